"""The benchmarks' table, and the C++ reference that the loop is measured beside."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.compute import TOLERANCE, bytes_of, disagreement, with_bad_pixels
from benchmarks.cpp_reference import CppReference, UnavailableError, library
from benchmarks.frame_bench import frame_bench, frames_of
from benchmarks.report import Entry, load, markdown, table, write
from benchmarks.row import NOT_MEASURED, Row, middle
from benchmarks.run import GROUPS, main
from tests.problem import random_problem


def row(figure: float) -> Row:
    return Row("something", 2.0, figure, "x", {"a us": figure * 10}, reason="too slow.")


@pytest.mark.parametrize(
    ("figure", "verdict"), [(1.9, "met"), (2.0, "met"), (2.1, "missed"), (NOT_MEASURED, "not measured")]
)
def test_a_row_knows_its_verdict_and_says_why_it_is_missed(figure, verdict):
    line = table([row(figure)])[-1]
    assert row(figure).verdict == verdict
    assert f"| {verdict} |" in line
    assert ("too slow" in line) == (verdict != "met")


def test_the_middle_of_several_runs_leaves_out_those_without_a_figure():
    found = middle([row(3.0), row(NOT_MEASURED), row(1.0), row(2.0)])
    assert (found.figure, found.parts) == (2.0, {"a us": 20.0})
    assert math.isnan(middle([row(NOT_MEASURED)]).figure)


def test_a_report_keeps_the_groups_that_were_not_measured_again(tmp_path):
    machine = {"processor": "one"}
    first = [Entry("a", row(1.0), 3, "2026-01-01", machine), Entry("b", row(3.0), 3, "2026-01-01", machine)]
    write(first, ["a", "b"], tmp_path)
    write([Entry("b", row(NOT_MEASURED), 1, "2026-01-02", machine)], ["a", "b"], tmp_path)
    kept, new = load(tmp_path / "report.json")
    assert kept == first[0]
    assert (new.date, new.row.verdict) == ("2026-01-02", "not measured")
    text = (tmp_path / "report.md").read_text()
    assert text == markdown([kept, new])
    assert "| met |" in text
    assert "| not measured |" in text


def test_unknown_groups_are_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        main(["--rows", "nonsense"])
    told = capsys.readouterr().err
    assert all(name in told for name in ("nonsense", *(group.name for group in GROUPS)))


def test_bytes_of_a_problem_are_counted_by_their_non_zeros():
    p = random_problem(side=32, grid=12)
    read, written = bytes_of(p)
    full = replace(p, pixels_to_actuators=np.ones_like(p.pixels_to_actuators))
    assert bytes_of(full) == (read + 144 * 1024 * 4 - 144 * 4 * 8, written)


@pytest.mark.parametrize("kind", ["PID", "LEAKY"])
@pytest.mark.parametrize("repaired", [True, False])
def test_the_loop_and_the_cpp_reference_agree(kind, repaired):
    """Double against single precision over a run of frames, integrators included."""
    try:
        library()
    except UnavailableError as error:
        pytest.skip(str(error))
    p = random_problem(side=32, grid=12, controller_type_lo=kind, controller_type_ho=kind)
    p = with_bad_pixels(p, "median") if repaired else p
    reference = CppReference(p, p.bad_pixels)
    with frame_bench(p, 100) as bench:
        frames = frames_of(p, 20)
        assert disagreement(p, bench, reference, frames) < TOLERANCE
        changed = CppReference(replace(p, reference=p.reference * 1.001), p.bad_pixels)
        assert disagreement(p, bench, changed, frames) > TOLERANCE
    reference.close()
    changed.close()
