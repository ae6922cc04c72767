"""From a measurement to a verdict: made-up times, of which it is known what they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from baldr_tango.rtc.measurement import Measurement
from baldr_tango.rtc.stalls import Stall, StallReport
from baldr_tango.rtc.throttling import Throttling
from baldr_tango.rtc.verdict import percentiles_us, report

FREE = Throttling(-1, 1_000_000)
US = 1000
MS = 1_000_000


def measurement(**changes):
    """A good machine at 1 kHz: 2000 frames, 20 us to wake up, 10 us to compute."""
    n = 2000
    posted = np.arange(n, dtype=np.int64) * MS
    values = {
        "frame_rate_hz": 1000.0,
        "seconds": 2.0,
        "posted": n,
        "lost": 0,
        "posted_ns": posted,
        "wake_ns": np.full(n, 20 * US),
        "compute_ns": np.full(n, 10 * US),
        "computed": np.ones(n, dtype=bool),
        "sleep_due_ns": posted + MS // 2,
        "sleep_late_ns": np.full(n, 15 * US),
        "stalls": StallReport(2.0, (0, 1), True),
        "tripped": False,
        "scheduling": "SCHED_FIFO 50",
        "waiting": "semaphore",
        "has_priority": True,
        "page_faults": 0,
        "context_switches": 0,
    }
    return Measurement(**{**values, **changes})


def late(array, number, value):
    """The same times, of which the last `number` are `value`."""
    changed = array.copy()
    changed[array.size - number :] = value
    return changed


def test_percentiles_are_times_that_occurred():
    times = np.arange(1, 1001) * US
    assert percentiles_us(times) == {"p50": 500.0, "p99": 990.0, "p99_9": 999.0, "max": 1000.0}
    assert percentiles_us(times[:0]) == {"p50": 0.0, "p99": 0.0, "p99_9": 0.0, "max": 0.0}


def test_a_good_machine_is_fit():
    found = report(measurement(), FREE)
    assert found["fit"] is found["product_fit"] is True
    assert found["reasons"] == found["notes"] == []
    assert found["verdict"] == "fit to close a loop at 1000 Hz"
    assert found["response_us"]["p50"] == pytest.approx(30.0)
    assert found["wake_up_us"]["max"] == pytest.approx(20.0)
    assert found["compute_us"]["p99"] == pytest.approx(10.0)


@pytest.mark.parametrize(("frames", "is_fit"), [(2, True), (3, False)])
def test_more_than_a_thousandth_of_slow_frames_is_not_fit(frames, is_fit):
    good = measurement()
    slow = replace(good, wake_ns=late(good.wake_ns, frames, 600 * US))
    found = report(slow, FREE)
    assert found["fit"] is is_fit
    assert found["response_us"]["max"] == pytest.approx(610.0)
    if not is_fit:
        assert "610 us" in found["reasons"][0]
        assert "500 us" in found["reasons"][0]


def test_the_rate_decides_what_is_slow_enough():
    slow = measurement(compute_ns=np.full(2000, 300 * US))
    assert report(slow, FREE)["fit"]
    assert not report(replace(slow, frame_rate_hz=2000.0), FREE)["fit"]


def test_sleeps_that_end_late_are_not_fit():
    found = report(measurement(sleep_late_ns=np.full(2000, 260 * US)), FREE)
    assert not found["fit"]
    assert "260 us" in found["reasons"][0]


def test_lost_frames_without_a_stall_are_the_products():
    found = report(measurement(lost=1), FREE)
    assert found["product_fit"] is False
    assert "1 of 2000 frames were lost" in found["reasons"]


def stalled():
    """The same machine, of which one CPU stands still for 20 ms; its frames are late, or lost."""
    good = measurement()
    stall = Stall(1, 1000 * MS, 20 * MS)
    wake, sleep = good.wake_ns.copy(), good.sleep_late_ns.copy()
    wake[1000:1020] = 20 * MS
    sleep[1000:1020] = 20 * MS
    return replace(
        good,
        wake_ns=wake,
        sleep_late_ns=sleep,
        lost=19,
        stalls=StallReport(2.0, (0, 1), True, (stall,), steal_s=0.0),
    )


def test_the_machine_standing_still_is_told_from_the_products_own_lateness():
    found = report(stalled(), FREE)
    assert found["fit"] is False
    assert found["product_fit"] is True
    assert len(found["reasons"]) == 1
    assert "the machine itself stood still" in found["reasons"][0]
    assert "20.0 ms" in found["reasons"][0]
    assert "the machine it runs on is not" in found["verdict"]
    assert found["response_us"]["max"] == pytest.approx(20010.0)
    assert found["outside_stalls"]["response_us"]["max"] == pytest.approx(30.0)
    assert found["stalls"]["number"] == 1
    assert found["stalls"]["longest_ms"] == pytest.approx(20.0)
    assert found["stalls"]["per_cpu"] == {"0": 0, "1": 1}
    assert found["stalls"]["frames"] == 21  # the one after it was posted in its last moment


def test_without_priority_nobody_knows_who_was_in_the_way():
    seen = stalled()
    found = report(replace(seen, stalls=replace(seen.stalls, is_certain=False)), FREE)
    assert found["product_fit"] is False
    assert not any("stood still" in reason for reason in found["reasons"])
    assert any("cannot be told" in note for note in found["notes"])


def test_a_stall_within_the_period_loses_no_frame_and_is_no_reason():
    good = measurement(frame_rate_hz=500.0)
    short = StallReport(2.0, (0,), True, (Stall(0, 0, 1_500_000),))
    found = report(replace(good, stalls=short), FREE)
    assert found["fit"] is True
    assert found["stalls"]["number"] == 1


def test_stalls_as_long_as_the_kernels_limit_name_it():
    seen = stalled()
    long = replace(seen, stalls=replace(seen.stalls, stalls=(Stall(1, 0, 50 * MS),)))
    assert "sched_rt_runtime_us" in report(long, Throttling(950_000, 1_000_000))["reasons"][-1]
    assert "sched_rt_runtime_us" not in report(long, FREE)["reasons"][-1]


def test_what_does_not_decide_is_noted():
    found = report(measurement(has_priority=False), Throttling(950_000, 1_000_000))
    assert found["fit"] is True
    assert any("baldr doctor" in note for note in found["notes"])
    assert any("5 %" in note for note in found["notes"])


def test_frames_that_give_no_command_are_not_a_measurement():
    found = report(measurement(computed=np.zeros(2000, dtype=bool)), FREE)
    assert found["fit"] is False
    assert "no command was computed" in found["reasons"][0]
