"""How the loop waits for frames: no frame twice, none half-written, none lost, and always ready to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango import streams
from baldr_tango.configuration.settings import LimitSettings, RealtimeSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.streams import Stream
from tests.harness import LoopBench, wait_for
from tests.problem import random_frame, random_problem

WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0)
ROOT = Path(__file__).parents[2]
MODES = ("semaphore", "spin", "spin_then_wait")
BY_COUNT = MODES[1:]


def running(mode, spin_us=200.0):
    """A loop that waits in this way, with normal scheduling."""
    settings = RealtimeSettings(priority=0, lock_memory=False, waiting=mode, spin_us=spin_us)
    return LoopBench(random_problem(limits=WIDE), realtime=settings)


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def numbers(bench):
    """Frame numbers recorded so far."""
    return bench.loop.arrays.ring.fields["frame"][: bench.records]


def idle(bench):
    """Wait until the loop has waited in vain: everything that was announced has been dealt with."""
    before = bench.counter(d.TIMEOUTS)
    wait_for(lambda: bench.counter(d.TIMEOUTS) >= before + 2, 20.0, "a time-out")


@pytest.mark.parametrize("count_first", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_each_frame_is_taken_once_under_its_own_number(mode, count_first, rng):
    with running(mode) as bench:
        frames = [random_frame(bench.parameters, rng) for _ in range(60)]
        before = bench.counter(d.TIMEOUTS)
        for number, frame in enumerate(frames):
            bench.post(frame, count_first=count_first)
            wait_for(lambda number=number: bench.records > number, 20.0, f"frame {number}")
        held_up = bench.counter(d.TIMEOUTS) - before
        idle(bench)
        # The count of the very first frame is waited for only briefly: a camera held up there is one behind.
        behind = 1 - int(numbers(bench)[0])
        assert behind == 0 or (behind == 1 and not count_first)
        np.testing.assert_array_equal(numbers(bench)[1:], np.arange(2, 61))
        assert bench.counter(d.LOST) == behind
        recorded = bench.loop.arrays.ring.fields["img"][:60]
        np.testing.assert_array_equal(recorded, [frame.ravel() for frame in frames])
        for counter in (d.TORN, d.READ_ERRORS, d.CAMERA_RESTARTS):
            assert bench.counter(counter) == 0, counter
        # A busy machine may stop the camera between post and count for longer than the loop waits.
        assert bench.counter(d.STALE) <= held_up


@pytest.mark.parametrize("count_first", [True, False])
@pytest.mark.parametrize("mode", BY_COUNT)
def test_frames_at_full_speed_are_recorded_or_counted_as_lost(mode, count_first, rng):
    with running(mode) as bench:
        frames = [random_frame(bench.parameters, rng) for _ in range(200)]
        before = bench.counter(d.TIMEOUTS)
        for frame in frames:
            bench.post(frame, count_first=count_first)
        held_up = bench.counter(d.TIMEOUTS) - before
        idle(bench)
        assert bench.counter(d.FRAMES) + bench.counter(d.LOST) == 200
        assert int(numbers(bench)[-1]) == 200
        assert np.all(np.diff(numbers(bench)) >= 1), "a frame was taken twice"
        assert bench.counter(d.STALE) <= held_up


@pytest.mark.parametrize("mode", BY_COUNT)
def test_posts_do_not_pile_up(mode, rng):
    with running(mode) as bench:
        for _ in range(30):
            bench.step(random_frame(bench.parameters, rng))
        idle(bench)
        assert bench.camera.semaphores[1].value() == 0
        assert bench.camera.semaphores[0].value() == 10, "those of others stay"


@pytest.mark.parametrize("mode", BY_COUNT)
def test_a_frame_whose_post_somebody_else_takes_is_found_by_its_count(mode, rng):
    with running(mode) as bench:
        for number in range(5):
            bench.post(random_frame(bench.parameters, rng), post=False)
            wait_for(lambda number=number: bench.records > number, 20.0, f"frame {number}")
        assert bench.counter(d.LOST) == 0


@pytest.mark.parametrize("mode", BY_COUNT)
def test_a_half_written_frame_is_never_taken(mode, rng):
    """The writer stops between data and write flag: the count is there, the frame is not to be touched."""
    with running(mode) as bench:
        bench.step(random_frame(bench.parameters, rng))
        frame = random_frame(bench.parameters, rng)
        os.pwrite(bench.camera.fd, b"\x01", streams.WRITE)
        os.pwrite(bench.camera.fd, frame.tobytes()[:100], streams.DATA)
        os.pwrite(bench.camera.fd, np.array([2, 2]).tobytes(), streams.CNT0)
        wait_for(lambda: bench.counter(d.TORN) >= 1, 20.0, "a torn frame")
        assert bench.counter(d.FRAMES) == 1
        os.pwrite(bench.camera.fd, frame.tobytes(), streams.DATA)
        os.pwrite(bench.camera.fd, b"\x00", streams.WRITE)
        wait_for(lambda: bench.records == 2, 20.0, "the whole frame")
        np.testing.assert_array_equal(bench.newest("img"), frame.ravel())


def test_a_post_without_a_frame_is_counted_when_the_loop_sleeps(rng):
    with running("spin_then_wait") as bench:
        bench.step(random_frame(bench.parameters, rng))
        idle(bench)
        bench.camera.post(1)
        wait_for(lambda: bench.counter(d.STALE) == 1, 20.0, "a stale wake-up")
        bench.step(random_frame(bench.parameters, rng))
        idle(bench)
        assert bench.counter(d.FRAMES) == 2
        assert bench.counter(d.STALE) == 1


@pytest.mark.parametrize("mode", BY_COUNT)
@pytest.mark.parametrize("frames_arrive", [True, False])
def test_changes_pause_and_stop_are_taken_over_with_and_without_frames(mode, frames_arrive, rng):
    with running(mode) as bench:
        bench.step(random_frame(bench.parameters, rng))
        done = threading.Event()

        def camera():
            while not done.is_set():
                bench.post(random_frame(bench.parameters, rng))

        thread = threading.Thread(target=camera)
        if frames_arrive:
            thread.start()
        try:
            bench.set_loops(True, True)
            bench.switch(PAUSE=1)
            assert bench.counter(d.PAUSED) == 1
            bench.switch(PAUSE=0)
            bench.set_loops(False, False)
            assert bench.loop.stop(10.0)
        finally:
            done.set()
            if frames_arrive:
                thread.join()
        assert not bench.command().any()


@pytest.mark.parametrize("mode", BY_COUNT)
def test_frames_of_a_pause_are_forgotten(mode, rng):
    with running(mode) as bench:
        bench.step(random_frame(bench.parameters, rng))
        bench.switch(PAUSE=1)
        for _ in range(7):
            bench.post(random_frame(bench.parameters, rng))
        bench.switch(PAUSE=0)
        bench.step(random_frame(bench.parameters, rng))
        idle(bench)
        np.testing.assert_array_equal(numbers(bench), [1, 9])
        assert bench.counter(d.LOST) == bench.counter(d.STALE) == 0


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("mode", BY_COUNT)
def test_a_stream_made_again_brings_no_empty_frame(mode, in_place, rng):
    """In place the file is cut to zero under the poll: no signal, no read error, no frame of zeros."""
    with running(mode) as bench:
        for _ in range(3):
            bench.step(random_frame(bench.parameters, rng))
        bench.camera.close()
        shape = bench.parameters.frame_shape
        bench.camera = Stream.create("baldr1", shape, np.int32, bench.directory, in_place=in_place)

        def reopened():
            bench.loop.check_streams()
            return bench.loop.reopens >= 1 and bench.loop.has_streams

        wait_for(reopened, 20.0, "opening the streams again")
        bench.wait_running()
        bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.FRAMES) == 4
        assert bench.counter(d.SKIPPED) == 0
        assert int(bench.newest("frame")) == 1


def test_all_ways_of_waiting_compute_the_same(rng):
    """The same frames and closed loops: the same commands, bit for bit, compiled and interpreted."""
    results = {}
    for mode in MODES:
        results[mode] = commands(mode)
    for mode in BY_COUNT:
        np.testing.assert_array_equal(results[mode], results["semaphore"])
    assert np.any(results["spin"])


def commands(mode):
    """Commands of twenty frames with both loops closed."""
    frames = np.random.default_rng(5)
    with running(mode) as bench:
        bench.set_loops(True, True)
        return np.array([bench.step(random_frame(bench.parameters, frames)) for _ in range(20)])


@pytest.mark.parametrize("mode", BY_COUNT)
def test_interpreted_code_waits_in_the_same_way(mode):
    """The tests of this file without compilation, in a process of its own."""
    chosen = f"({mode}) and (own_number or half_written or full_speed or taken_over or pile_up)"
    if mode == "spin":
        chosen += " and not then"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
        timeout=300,
    )


def test_the_mode_of_a_running_loop_is_told(rng):
    with running("spin_then_wait", spin_us=30.0) as bench:
        assert bench.loop.waiting is not None
        assert bench.loop.waiting.mode == "spin_then_wait"
        assert bench.loop.waiting.spin_ns == 30_000
    with LoopBench(replace(random_problem(limits=WIDE))) as bench:
        assert bench.loop.waiting is not None
        assert bench.loop.waiting.mode == "semaphore"


def test_a_writer_that_is_interrupted_between_post_and_count_loses_nothing(rng):
    """The post wakes the loop, the count comes long after the poll has ended: still the same frame, once."""
    with running("spin_then_wait", spin_us=10.0) as bench:
        for number in range(1, 9):
            frame = random_frame(bench.parameters, rng)
            os.pwrite(bench.camera.fd, b"\x01", streams.WRITE)
            os.pwrite(bench.camera.fd, frame.tobytes(), streams.DATA)
            os.pwrite(bench.camera.fd, b"\x00", streams.WRITE)
            owed = bench.counter(d.POSTS_OWED)
            bench.camera.post(1)
            wait_for(lambda owed=owed: bench.counter(d.POSTS_OWED) < owed, 20.0, "a wake-up")
            assert bench.records == number - 1
            os.pwrite(bench.camera.fd, np.array([number, number]).tobytes(), streams.CNT0)
            wait_for(lambda number=number: bench.records == number, 20.0, f"frame {number}")
            np.testing.assert_array_equal(bench.newest("img"), frame.ravel())
        idle(bench)
        np.testing.assert_array_equal(numbers(bench), np.arange(1, 9))
        assert bench.counter(d.LOST) == 0
