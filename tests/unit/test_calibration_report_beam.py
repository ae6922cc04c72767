"""A beam judges its calibration beside everything else, and does not close what is predicted unstable."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.beam import judgement
from baldr_tango.commands import COMMANDS
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.settings import ControlSettings
from baldr_tango.errors import StateError
from tests.beam_bench import BeamBench
from tests.harness import wait_for
from tests.unit.configuration_problem import calibration_table

TOO_MUCH = ControlSettings(type="PID", ki=1.5)
"""More than the largest gain, 1, of an integrator with a delay of 2 frames."""

MODERATE = ControlSettings(type="PID", ki=0.2)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BeamBench]:
    with BeamBench(tmp_path, control_lo=MODERATE, control_ho=MODERATE) as started:
        yield started


@pytest.fixture
def wild(tmp_path: Path) -> Iterator[BeamBench]:
    """A beam whose high-order loop is predicted unstable."""
    with BeamBench(tmp_path, control_lo=MODERATE, control_ho=TOO_MUCH) as started:
        yield started


def values(bench: BeamBench) -> dict[str, Any]:
    return bench.beam.read(["predicted_stable", "gain_margin", "calibration_warnings"])


def set_gain(bench: BeamBench, ki: float) -> None:
    """Change the integral gain of the high orders while the loop runs."""
    parameters = bench.loop.parameters
    control = replace(parameters.control_ho, ki=np.full_like(parameters.control_ho.ki, ki))
    bench.beam.update(replace(parameters, control_ho=control))


def test_values_are_published_once_the_report_is_there(bench):
    wait_for(lambda: values(bench)["predicted_stable"] is not None, 20.0, "a report")
    found = values(bench)
    assert found["predicted_stable"] is True
    assert found["gain_margin"] > 1
    assert found["calibration_warnings"] == ""


def test_the_command_gives_the_whole_report(bench):
    reply = bench.ask("calibration_report")
    assert reply["ok"] is True
    assert reply["predicted_stable"] is True
    assert reply["config_sha256"] == bench.loop.parameters.config_sha256
    assert "gain margin" in reply["text"]
    json.dumps(reply, allow_nan=False)
    assert COMMANDS.find("calibration_report").waits


def test_stable_loops_close(bench):
    assert bench.ask("close_all", "") == {"ok": True, "TT_state": 1, "HO_state": 1}


def test_unstable_loops_do_not_close(wild):
    for name, force in (
        ("close_all", "force_close_all"),
        ("close_baldr_HO", "force_close_baldr_HO"),
        ("CLOSE_ALL", "force_close_all"),
    ):
        with pytest.raises(StateError, match=rf"predicted unstable, gain margin 0\.\d+ .*{force}$"):
            wild.ask(name)
    state = wild.beam.state()
    assert (state.lo, state.ho) == (0, 0)
    assert values(wild)["predicted_stable"] is False
    assert values(wild)["gain_margin"] < 1
    assert "closed HO predicted unstable" in values(wild)["calibration_warnings"]


def test_only_what_would_be_closed_is_judged(wild):
    """Tip/tilt alone is stable; together with the high orders it is not."""
    assert wild.ask("close_baldr_LO") == {"ok": True, "TT_state": 1}
    with pytest.raises(StateError, match=r"closed LO\+HO is predicted unstable"):
        wild.ask("close_baldr_HO")
    assert wild.ask("close_baldr_LO", "") == {"ok": True, "TT_state": 1}, "it is closed already"
    assert wild.ask("open_all")["ok"]


@pytest.mark.parametrize(
    ("name", "arguments", "closed"),
    [
        ("close_all", [True], (1, 1)),
        ("close_all", ["force"], (1, 1)),
        ("close_baldr_HO", ["FORCE"], (0, 1)),
        ("force_close_baldr_HO", [], (0, 1)),
        ("force_close_baldr_LO", [""], (1, 0)),
        ("force_close_all", [], (1, 1)),
    ],
)
def test_force_closes_all_the_same(wild, name, arguments, closed):
    assert wild.ask(name, *arguments)["ok"] is True
    state = wild.beam.state()
    assert (state.lo, state.ho) == closed


@pytest.mark.parametrize("argument", ["", "no", False, None, 1, {"force": True}, ["force"]])
def test_anything_else_does_not_force(wild, argument):
    with pytest.raises(StateError, match="predicted unstable"):
        wild.ask("close_all", argument)


def test_closing_stays_void_for_tango_and_for_introspection():
    for name in ("close_all", "close_baldr_LO", "close_baldr_HO"):
        for entry in (COMMANDS.find(name), COMMANDS.find(f"force_{name}")):
            assert entry.arguments == ()
        assert COMMANDS.find(name).summary.startswith("Close")


def test_the_prediction_follows_the_gains_in_force(wild):
    with pytest.raises(StateError):
        wild.ask("close_all")
    before = wild.ask("calibration_report")["gain_margin"]
    set_gain(wild, 0.2)
    assert wild.ask("close_all")["ok"] is True, "the old prediction must not be used"
    report = wild.ask("calibration_report")
    assert report["gain_margin"] > 1 > before
    wild.ask("open_all")
    set_gain(wild, 1.5)
    with pytest.raises(StateError):
        wild.ask("close_baldr_HO")
    assert wild.ask("calibration_report")["gain_margin"] == pytest.approx(before, rel=0.01)


def test_changes_that_do_not_matter_make_no_new_report(bench, monkeypatch):
    assert bench.ask("calibration_report")["ok"]
    made: list[object] = []
    monkeypatch.setattr(judgement, "judge", lambda *arguments: made.append(arguments))
    parameters = bench.loop.parameters
    bench.beam.update(replace(parameters, dark=parameters.dark + 1.0))
    assert bench.beam.judgement.report(0.0) is not None
    assert not made


def test_closing_waits_for_the_report_but_not_for_ever(tmp_path, monkeypatch, caplog):
    release = threading.Event()
    judge = judgement.judge

    def slow(*arguments: Any) -> Any:
        release.wait(30.0)
        return judge(*arguments)

    monkeypatch.setattr(judgement, "judge", slow)
    monkeypatch.setattr(judgement, "CLOSING_WAIT_S", 0.05)
    try:
        with BeamBench(tmp_path, control_lo=MODERATE, control_ho=TOO_MUCH) as bench:
            assert values(bench) == {
                "predicted_stable": None,
                "gain_margin": None,
                "calibration_warnings": "",
            }
            with caplog.at_level(logging.WARNING):
                assert bench.ask("close_all")["ok"] is True
            assert "without a prediction of its stability: not ready" in caplog.text
            bench.ask("open_all")
            monkeypatch.setattr(judgement, "CLOSING_WAIT_S", 20.0)
            threading.Timer(0.1, release.set).start()
            with pytest.raises(StateError, match="predicted unstable"):
                bench.ask("close_all")
    finally:
        release.set()


def test_a_report_that_fails_does_not_keep_loops_open(tmp_path, monkeypatch, caplog):
    def broken(*_arguments: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(judgement, "judge", broken)
    with BeamBench(tmp_path) as bench:
        assert bench.ask("close_all")["ok"] is True
        with pytest.raises(StateError, match="has not been judged"):
            bench.ask("calibration_report")
    assert "could not be judged" in caplog.text


def test_without_an_interaction_matrix_loops_close_with_a_warning(tmp_path, caplog):
    with BeamBench(tmp_path) as bench:
        table = calibration_table()
        del table["IM"]
        bench.ask("readBDRConfig", str(write_calibration(tmp_path / "other.toml", table, 1, "H3")))
        bench.wait_running()
        assert bench.ask("close_all")["ok"] is True
        assert "no interaction matrix" in caplog.text
        assert values(bench)["predicted_stable"] is None
        assert "cannot be predicted" in values(bench)["calibration_warnings"]


def test_a_new_configuration_is_judged_anew(wild):
    with pytest.raises(StateError):
        wild.ask("close_all")
    table = calibration_table()
    table["I2M_HO"] = 0.1 * table["I2M_HO"]
    path = write_calibration(wild.directory / "gentle.toml", table, 1, "H3")
    wild.ask("readBDRConfig", str(path))
    wild.wait_running()
    assert wild.ask("close_all")["ok"] is True
    assert wild.ask("calibration_report")["config_file"] == str(path)


def test_closing_a_beam_ends_its_judge(tmp_path):
    with BeamBench(tmp_path) as bench:
        assert bench.ask("calibration_report")["ok"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("judge-")]
