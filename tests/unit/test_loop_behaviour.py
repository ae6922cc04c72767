"""What operators rely on: open, close, pause, stop, frame accounting, safety, streams opened again."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest

from baldr_tango import streams
from baldr_tango.configuration.settings import LimitSettings, LoopSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc.arrays import build_arrays
from baldr_tango.rtc.slots import ParameterSlots
from baldr_tango.streams import Stream
from baldr_tango.telemetry.fields import FrameFlag
from tests.harness import LoopBench, wait_for
from tests.problem import gains, random_frame, random_problem

WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def bench():
    with LoopBench(random_problem(limits=WIDE)) as running:
        yield running


def closed(bench, rng, frames=5):
    """Close both loops and make a few steps."""
    bench.set_loops(True, True)
    for _ in range(frames):
        bench.step(random_frame(bench.parameters, rng))
    assert np.abs(bench.command()).max() > 0


def test_open_loops_write_a_flat_command(bench, rng):
    assert not bench.step(random_frame(bench.parameters, rng)).any()
    assert bench.channel.counter() == 1


def test_opening_removes_the_correction_without_a_frame(bench, rng):
    closed(bench, rng)
    bench.set_loops(False, False)
    assert not bench.command().any()


def test_opening_one_loop_keeps_the_correction_of_the_other(bench, rng):
    closed(bench, rng)
    high_order = -bench.newest("c_HO")
    bench.set_loops(False, True)
    np.testing.assert_allclose(bench.command(), high_order, atol=1e-6)


def test_closing_starts_from_zero_state(bench, rng):
    frame = random_frame(bench.parameters, rng)
    bench.set_loops(True, True)
    first = bench.step(frame)
    for _ in range(5):
        bench.step(frame)
    bench.set_loops(False, False)
    bench.set_loops(True, True)
    np.testing.assert_array_equal(bench.step(frame), first)


def test_pause_keeps_the_command_and_forgets_the_frames_of_the_pause(bench, rng):
    closed(bench, rng)
    held, frames = bench.command(), bench.counter(d.FRAMES)
    bench.switch(PAUSE=1)
    for _ in range(7):
        bench.post(random_frame(bench.parameters, rng))
    np.testing.assert_array_equal(bench.command(), held)
    bench.switch(PAUSE=0)
    bench.step(random_frame(bench.parameters, rng))
    assert bench.counter(d.FRAMES) == frames + 1
    assert bench.counter(d.LOST) == 0


def test_opening_while_paused_removes_the_correction(bench, rng):
    closed(bench, rng)
    bench.switch(PAUSE=1)
    bench.set_loops(False, False)
    assert not bench.command().any()


@pytest.mark.parametrize("frames_arrive", [True, False])
def test_stop_is_prompt_flattens_the_mirror_and_start_works_again(bench, rng, frames_arrive):
    closed(bench, rng)
    done = threading.Event()

    def camera():
        while not done.is_set():
            bench.post(random_frame(bench.parameters, rng))

    thread = threading.Thread(target=camera)
    if frames_arrive:
        thread.start()
    try:
        assert bench.loop.stop(10.0)
    finally:
        done.set()
        if frames_arrive:
            thread.join()
    assert not bench.command().any()
    bench.loop.slots.change(switches={d.CLOSE_LO: 0, d.CLOSE_HO: 0})
    bench.loop.start()
    bench.wait_running()
    frames = bench.counter(d.FRAMES)
    bench.step(random_frame(bench.parameters, rng))
    assert bench.counter(d.FRAMES) == frames + 1


def test_lost_frames_are_counted_from_the_cameras_counter(bench, rng):
    bench.step(random_frame(bench.parameters, rng))
    for _ in range(3):
        bench.camera.write(random_frame(bench.parameters, rng), post=False)
    bench.step(random_frame(bench.parameters, rng))
    assert bench.counter(d.LOST) == 3
    assert int(bench.newest("frame")) == 5
    assert FrameFlag(int(bench.newest("flags"))) & FrameFlag.MISSED_BEFORE


def test_a_post_without_a_new_frame_is_not_processed(bench, rng):
    bench.step(random_frame(bench.parameters, rng))
    bench.camera.post(1)
    wait_for(lambda: bench.counter(d.STALE) == 1, 10.0, "a stale wake-up")
    assert bench.counter(d.FRAMES) == 1


def test_streams_that_post_before_they_count_lose_nothing(bench, rng):
    """The camera server's order: a frame may be read with the old count; numbers stay exact."""
    for _ in range(50):
        before = bench.records
        bench.camera.write(random_frame(bench.parameters, rng), count_first=False)
        wait_for(lambda before=before: bench.records > before, 10.0, "a record")
    assert bench.counter(d.FRAMES) == 50
    assert bench.counter(d.LOST) == 0
    numbers = bench.loop.arrays.ring.fields["frame"][:50]
    assert np.all(np.diff(numbers) == 1)


def test_a_frame_without_flux_is_skipped_and_the_command_stays(bench, rng):
    closed(bench, rng)
    held = bench.command()
    dark = np.round(bench.parameters.dark).astype(np.int32).reshape(bench.parameters.frame_shape)
    np.testing.assert_array_equal(bench.step(dark), held)
    assert bench.counter(d.SKIPPED) == 1
    assert int(bench.newest("flags")) & FrameFlag.SKIPPED


def test_a_frame_that_is_never_finished_is_given_up(bench, rng):
    bench.step(random_frame(bench.parameters, rng))
    os.pwrite(bench.camera.fd, b"\x01", streams.WRITE)
    bench.camera.post(1)
    wait_for(lambda: bench.counter(d.TORN) == 1, 10.0, "a torn frame")
    assert bench.counter(d.FRAMES) == 1


def tripping_problem():
    """A high-order loop whose very first step exceeds the limit of the command."""
    parameters = random_problem(limits=LimitSettings(command=0.05, lo_command=1.0, ho_mode=1.0))
    n = parameters.reconstructor_ho.shape[0]
    return replace(parameters, control_ho=gains(n, kp=5.0, ki=0.0), reconstructor_ho=np.eye(n))


def test_a_tripped_limit_flattens_once_and_last_until_acknowledged(rng):
    with LoopBench(tripping_problem()) as bench:
        bench.step(random_frame(bench.parameters, rng))
        bench.set_loops(False, True)
        writes = bench.channel.counter()
        assert not bench.step(random_frame(bench.parameters, rng)).any()
        assert bench.counter(d.TRIP) == d.TRIP_LIMIT
        assert int(bench.newest("flags")) & FrameFlag.TRIPPED
        assert bench.channel.counter() == writes + 1
        for _ in range(5):
            bench.step(random_frame(bench.parameters, rng))
        assert bench.channel.counter() == writes + 1, "nothing is written after the flat"
        assert bench.counter(d.HO_CLOSED) == 0
        bench.switch(CLOSE_HO=0, RESET=1)
        assert bench.counter(d.TRIP) == 0
        bench.step(random_frame(bench.parameters, rng))
        assert bench.channel.counter() == writes + 2


def test_no_command_beyond_the_limits_ever_reaches_the_mirror(rng):
    """Random huge gains, saturated and negative frames: the channel stays finite and inside."""
    limits = LimitSettings(command=0.2, lo_command=0.15, ho_mode=0.1, min_flux_adu=1.0)
    parameters = random_problem(limits=limits, control_lo=gains(2, ki=50.0), control_ho=gains(16, kp=300.0))
    generation = 0
    with LoopBench(parameters) as bench:
        bench.set_loops(True, True)
        for number in range(150):
            kind = number % 5
            frame = random_frame(parameters, rng, flux=10.0 ** rng.uniform(0, 7))
            if kind == 3:
                frame = rng.integers(-(2**31), 2**31 - 1, frame.shape, dtype=np.int64).astype(np.int32)
            if kind == 4:
                frame = np.full(frame.shape, 2**31 - 1, dtype=np.int32)
            command = bench.step(frame)
            assert np.all(np.isfinite(command))
            assert np.abs(command).max() <= 0.2
            if bench.counter(d.TRIP):
                generation += 1
                bench.switch(RESET=generation)
        assert bench.counter(d.LIMITED) > 0


def test_tip_tilt_beyond_its_limit_restarts(rng):
    parameters = random_problem(
        limits=LimitSettings(command=1.0, lo_command=0.01, ho_mode=1.0), control_lo=gains(2, ki=5.0)
    )
    with LoopBench(parameters) as bench:
        bench.set_loops(True, False)
        assert not bench.step(random_frame(parameters, rng)).any()
        assert bench.counter(d.LIMITED) == 1
        assert bench.counter(d.LO_CLOSED) == 1
        assert not bench.loop.arrays.state.integral_lo.any()


def test_a_new_camera_stream_is_noticed_and_used(bench, rng):
    closed(bench, rng)
    bench.camera.close()
    bench.camera = Stream.create("baldr1", bench.parameters.frame_shape, np.int32, bench.directory)

    def reopened():
        bench.loop.check_streams()
        return bench.loop.reopens >= 1 and bench.loop.has_streams

    wait_for(reopened, 10.0, "opening the streams again")
    bench.wait_running()
    frames = bench.counter(d.FRAMES)
    bench.step(random_frame(bench.parameters, rng))
    assert bench.counter(d.FRAMES) == frames + 1
    assert bench.counter(d.LOST) == 0


def test_a_stream_that_vanished_is_waited_for_and_stop_still_works(bench, rng):
    closed(bench, rng)
    Stream.destroy("baldr1", bench.directory)

    def waiting():
        bench.loop.check_streams()
        return bool(bench.loop.problem)

    wait_for(waiting, 10.0, "a complaint about the missing stream")
    assert "baldr1" in bench.loop.problem
    assert bench.loop.stop(10.0)


def test_a_change_is_whole_or_not_at_all(bench, rng):
    """Gains flip between two consistent sets while frames pass: no frame may see a mixture."""
    frame = random_frame(bench.parameters, rng)
    bench.set_loops(True, True)
    n = bench.parameters.reconstructor_ho.shape[0]
    sets = [
        {"kp_lo": np.full(2, k), "ki_lo": np.zeros(2), "kp_ho": np.full(n, k), "ki_ho": np.zeros(n)}
        for k in (0.1, 0.2)
    ]
    commands = []
    for values in sets:
        bench.loop.slots.change(**values)
        bench.switch()
        commands.append(bench.step(frame))
    done = threading.Event()

    def flip():
        i = 0
        while not done.is_set():
            bench.loop.slots.change(**sets[i % 2], timeout_s=10.0)
            i += 1

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        seen = {0: 0, 1: 0}
        for _ in range(300):
            command = bench.step(frame)
            matches = [i for i in (0, 1) if np.array_equal(command, commands[i])]
            assert matches, "a command from a mixture of two parameter sets"
            seen[matches[0]] += 1
    finally:
        done.set()
        thread.join()
    assert min(seen.values()) > 0


def test_wrong_changes_are_refused_and_nothing_changes(bench):
    version = bench.loop.slots.version
    with pytest.raises(RequestError, match="expected shape"):
        bench.loop.slots.change(kp_lo=np.zeros(5))
    with pytest.raises(RequestError, match="finite"):
        bench.loop.slots.change(kp_lo=np.array([0.1, np.nan]))
    with pytest.raises(RequestError, match="not a parameter"):
        bench.loop.slots.change(state=np.array([1]))
    assert bench.loop.slots.version == version


def test_a_loop_that_does_not_react_is_reported():

    arrays = build_arrays(random_problem(), LoopSettings(ring_frames=16))
    slots = ParameterSlots(arrays.parameters, arrays.control, lambda: True)
    slots.change(kp_lo=np.ones(2))
    with pytest.raises(StateError, match="did not react"):
        slots.change(kp_lo=np.ones(2), timeout_s=0.02)
