"""Stalls of the machine: told from lateness, matched with frames, watched on every CPU."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldr_tango.rtc.stalls import STALL_NS, Stall, StallReport, StallWatch, find_stalls, steal_seconds


def test_only_long_delays_are_stalls_and_they_come_in_the_order_of_time():
    found = find_stalls(
        [(0, [100, 900], [STALL_NS - 1, STALL_NS]), (1, [500, 600], [STALL_NS * 30, 7])],
    )
    assert found == (Stall(1, 500, 30 * STALL_NS), Stall(0, 900, STALL_NS))


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=6)


@given(spans, spans)
def test_a_frame_is_touched_when_the_two_spans_have_a_moment_in_common(stalls, frames):
    seen = StallReport(1.0, (0,), True, tuple(Stall(0, begin, length) for begin, length in stalls))
    begin = np.array([b for b, _ in frames], dtype=np.int64)
    end = begin + np.array([n for _, n in frames], dtype=np.int64)
    moments = [set(range(b, b + n + 1)) for b, n in stalls]
    expected = [
        any(set(range(b, e + 1)) & stall for stall in moments) for b, e in zip(begin, end, strict=True)
    ]
    np.testing.assert_array_equal(seen.touches(begin, end), np.array(expected, dtype=bool))


def test_the_longest_stall_is_in_milliseconds():
    report = StallReport(1.0, (0,), True, (Stall(0, 0, 2_500_000), Stall(0, 9, 1_000_000)))
    assert report.longest_ms == pytest.approx(2.5)
    assert StallReport(1.0, (0,), True).longest_ms == 0.0


def test_steal_time_is_the_eighth_number_of_all_cpus(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert steal_seconds(tmp_path) == pytest.approx(250 / os.sysconf("SC_CLK_TCK"))
    assert steal_seconds(tmp_path / "nowhere") == 0.0


def test_a_watch_looks_at_every_cpu_and_leaves_the_caller_as_it_was():
    cpus, policy = os.sched_getaffinity(0), os.sched_getscheduler(0)
    watch = StallWatch(0.05)
    watch.start()
    report = watch.finish()
    assert report.cpus == tuple(sorted(cpus))
    assert report.seconds >= 0.05
    assert all(probe.count > 0 for probe in watch._probes)
    assert (os.sched_getaffinity(0), os.sched_getscheduler(0)) == (cpus, policy)


def test_a_watch_can_be_stopped():
    watch = StallWatch(3600.0)
    watch.start()
    watch.stop()
    assert watch.finish().seconds < 3600.0
