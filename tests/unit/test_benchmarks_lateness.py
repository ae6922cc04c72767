"""Lateness as the benchmarks compute it, against records made with known delays."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.deployed import lateness_us

RATE_HZ = 1000.0
PERIOD_NS = 1_000_000


def records(due_ns, late_ns, latency_ns, frame):
    return {"frame": frame, "time_ns": due_ns + late_ns, "latency_ns": latency_ns}


def test_delays_of_single_frames_are_found_on_a_regular_grid():
    rng = np.random.default_rng(3)
    frame = np.arange(5000) + 77
    late = np.where(rng.uniform(size=frame.size) < 0.2, rng.integers(1000, 400_000, frame.size), 0)
    latency = rng.integers(5000, 9000, frame.size)
    found = lateness_us(records(10**15 + frame * PERIOD_NS, late, latency, frame), RATE_HZ)
    np.testing.assert_allclose(found, (late + latency) * 1e-3, atol=0.3)


def test_lost_frames_leave_the_grid_as_it_is():
    frame = np.delete(np.arange(1000), [100, 101, 500])
    found = lateness_us(records(frame * PERIOD_NS, 0, np.full(frame.size, 7000), frame), RATE_HZ)
    np.testing.assert_allclose(found, 7.0)


@pytest.mark.parametrize("shift_ns", [300_000, 2_500_000])
def test_a_camera_that_begins_a_new_grid_does_not_make_the_loop_late(shift_ns):
    frame = np.arange(1000)
    late = np.zeros(1000, dtype=int)
    late[[300, 700]] = 200_000
    due = frame * PERIOD_NS + np.where(frame >= 500, shift_ns, 0)
    found = lateness_us(records(due, late, np.full(1000, 7000), frame), RATE_HZ)
    np.testing.assert_allclose(found, (late + 7000) * 1e-3)
