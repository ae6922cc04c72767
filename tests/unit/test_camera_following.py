"""When a beam takes the camera to have changed: the rate of frames, and what was told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from baldr_tango.beam.camera_following import RateWatch, differs
from baldr_tango.kernels import loop_data as d
from baldr_tango.peers import CameraState
from tests.problem import random_problem


class Frames:
    """A loop that has counted frames; time is told by the test."""

    def __init__(self, rate_hz: float = 1000.0) -> None:
        self.parameters = SimpleNamespace(frame_rate_hz=rate_hz)
        self.counters = np.zeros(d.N_COUNTERS, dtype=np.int64)
        self.now = 100.0

    def come(self, watch: RateWatch, rate_hz: float, seconds: float, counter: int = d.FRAMES) -> int:
        """Let frames come for a time, looking ten times a second; return how often the watch said so."""
        said = 0
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.counters[counter] += round(rate_hz * 0.1)
            said += watch.departs(self, self.now)
        return said


@pytest.mark.parametrize("rate", [1000.0, 1010.0, 990.0])
def test_frames_within_two_percent_of_the_nominal_rate_are_no_departure(rate):
    frames, watch = Frames(), RateWatch()
    assert frames.come(watch, rate, 5.0) == 0
    assert not watch.has_departed
    assert watch.measured_hz == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("rate", [500.0, 970.0, 1030.0, 2000.0])
def test_another_rate_is_told_after_a_second_and_then_rarely(rate):
    frames, watch = Frames(), RateWatch()
    assert frames.come(watch, 1000.0, 2.0) == 0
    assert frames.come(watch, rate, 0.9) == 0
    assert frames.come(watch, rate, 2.0) == 1
    assert frames.come(watch, rate, 5.0) == 0
    assert frames.come(watch, rate, 10.0) == 1


def test_a_short_hiccup_is_not_told():
    frames, watch = Frames(), RateWatch()
    frames.come(watch, 1000.0, 2.0)
    assert frames.come(watch, 800.0, 0.5) == 0
    assert frames.come(watch, 1000.0, 5.0) == 0


def test_lost_frames_are_frames_of_the_camera():
    frames, watch = Frames(), RateWatch()
    for _ in range(20):
        frames.counters[d.FRAMES] += 50
        assert frames.come(watch, 500.0, 0.1, d.LOST) == 0
    assert not watch.has_departed


def test_no_frames_at_all_say_nothing_about_the_rate():
    frames, watch = Frames(), RateWatch()
    frames.come(watch, 1000.0, 2.0)
    assert frames.come(watch, 0.0, 5.0) == 0


def test_a_slow_camera_is_not_judged_by_the_error_of_counting():
    frames, watch = Frames(10.0), RateWatch()
    assert frames.come(watch, 10.0, 20.0) == 0


def test_after_a_change_of_the_nominal_rate_the_count_begins_anew():
    frames, watch = Frames(), RateWatch()
    assert frames.come(watch, 500.0, 3.0) == 1
    frames.parameters.frame_rate_hz = 500.0
    watch.restart()
    assert frames.come(watch, 500.0, 5.0) == 0
    assert frames.come(watch, 1000.0, 3.0) == 1


def test_another_loop_begins_anew():
    one, other, watch = Frames(), Frames(), RateWatch()
    one.come(watch, 1000.0, 2.0)
    other.now = one.now
    assert other.come(watch, 1000.0, 3.0) == 0


@pytest.mark.parametrize(
    ("state", "is_other"),
    [
        (CameraState(), False),
        (CameraState(fps=1000.0, gain=1.0), False),
        (CameraState(fps=1000.05), False),
        (CameraState(fps=1000.5), True),
        (CameraState(fps=500.0), True),
        (CameraState(gain=2.0), True),
        (CameraState(fps=1000.0, nbreadworeset=7), False),
    ],
)
def test_what_the_loop_was_derived_for_is_compared_with_what_the_camera_says(state, is_other):
    assert differs(random_problem(), state) == is_other
