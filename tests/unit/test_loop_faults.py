"""Faults in the loop: each rule acts, counts, and leaves a finite map inside the limits in the DM channel."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from baldr_tango import streams
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import are_finite, mean_square_of_sum
from baldr_tango.kernels.frame import subtract_dark
from baldr_tango.kernels.loop_command import RESTART_WEIGHT, STROKE_WEIGHT
from baldr_tango.streams import Stream
from baldr_tango.telemetry.fields import FrameFlag
from tests.harness import LoopBench, wait_for
from tests.problem import gains, random_frame, random_problem

WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0, wrong_pixels=3, frozen_frames=4)
SKIPPED = FrameFlag.SKIPPED | FrameFlag.NOT_APPLIED


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def bench(rng):
    with LoopBench(random_problem(limits=WIDE)) as running:
        running.set_loops(True, True)
        for _ in range(5):
            running.step(random_frame(running.parameters, rng))
        assert np.abs(running.command()).max() > 0
        yield running
        check_mirror(running)


def check_mirror(bench):
    """The map in the channel is finite and inside the limit in force."""
    command = bench.command()
    assert np.all(np.isfinite(command))
    assert np.abs(command).max() <= bench.loop.slots.current("limits")[d.COMMAND_LIMIT]


def flags(bench):
    return FrameFlag(int(bench.newest("flags")))


def is_held(bench, frame, flag, counter):
    """A frame is not used for this reason, the command stays, and the next good frame is used."""
    held, before = bench.command(), bench.loop.counters
    np.testing.assert_array_equal(bench.step(frame), held)
    assert flags(bench) == SKIPPED | flag
    assert bench.counter(counter) == before[counter] + 1
    assert bench.counter(d.SKIPPED) == before[d.SKIPPED] + 1
    np.testing.assert_array_equal(bench.newest("command"), held.astype(np.float32))
    check_mirror(bench)


def is_used(bench, frame):
    held = bench.command()
    assert not np.array_equal(bench.step(frame), held)
    assert FrameFlag.SKIPPED not in flags(bench)


def with_pixels(frame, count, value):
    changed = frame.copy()
    changed.ravel()[10 : 10 + count] = value
    return changed


# Frames


@pytest.mark.parametrize("flux", [0.0, -1e4, 900.0])
def test_a_frame_without_light_is_not_used(bench, rng, flux):
    is_held(bench, random_frame(bench.parameters, rng, flux), FrameFlag.NO_FLUX, d.NO_FLUX)
    is_used(bench, random_frame(bench.parameters, rng))


def test_a_flux_that_is_not_finite_is_no_flux(bench, rng):
    dark = bench.parameters.dark.copy()
    wrong = np.where(np.arange(dark.size) == 3, -3e38, dark)
    bench.loop.slots.change(dark=wrong, flux_weights=np.full(64, 2))
    bench.switch()
    is_held(bench, random_frame(bench.parameters, rng), FrameFlag.NO_FLUX, d.NO_FLUX)
    bench.loop.slots.change(dark=dark, flux_weights=np.ones(64))
    bench.switch()
    is_used(bench, random_frame(bench.parameters, rng))


@pytest.mark.parametrize(
    ("value", "flag", "counter", "pixels"),
    [
        (65535, FrameFlag.SATURATED, d.SATURATED, d.SATURATED_PIXELS),
        (2**31 - 1, FrameFlag.SATURATED, d.SATURATED, d.SATURATED_PIXELS),
        (-400, FrameFlag.NEGATIVE, d.NEGATIVES, d.NEGATIVE_PIXELS),
    ],
)
def test_too_many_wrong_pixels_and_the_frame_is_not_used(bench, rng, value, flag, counter, pixels):
    frame = random_frame(bench.parameters, rng)
    is_used(bench, with_pixels(frame, 3, value))
    assert bench.counter(pixels) == 3
    is_held(bench, with_pixels(frame, 4, value), flag, counter)
    assert bench.counter(pixels) == 4
    is_used(bench, random_frame(bench.parameters, rng))


@pytest.mark.parametrize("rule", ["neighbours", "median"])
def test_bad_pixels_are_neither_saturated_nor_negative(rng, rule):
    bad = np.arange(20)
    weights = np.ones(64)
    if rule == "neighbours":
        weights[bad] = 0.0
    parameters = random_problem(limits=WIDE, bad_pixels=bad, bad_pixel_rule=rule, flux_weights=weights)
    frame = random_frame(parameters, rng)
    frame.ravel()[:10] = 65535
    frame.ravel()[10:20] = -65535
    with LoopBench(parameters) as bench:
        bench.step(frame)
        assert FrameFlag.SKIPPED not in flags(bench)
        assert bench.counter(d.SATURATED_PIXELS) == bench.counter(d.NEGATIVE_PIXELS) == 0


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_wrong_pixels_are_counted_as_numpy_does(rng, size):
    raw = rng.integers(-2000, 4000, size).astype(np.int32)
    dark = rng.uniform(0, 1000, size).astype(np.float32)
    weights = rng.integers(0, 2, size).astype(np.float32)
    out = np.zeros(size, dtype=np.float32)
    _, saturated, negative = subtract_dark(raw, dark, weights, np.float32(3000), np.float32(500), out)
    assert saturated == np.count_nonzero((raw >= 3000) & (weights != 0))
    assert negative == np.count_nonzero((out < -500) & (weights != 0))


def test_frames_that_repeat_are_counted_and_after_a_while_not_used(bench, rng):
    frame = random_frame(bench.parameters, rng)
    bench.step(frame)
    for repetition in range(1, 4):
        bench.step(frame)
        assert flags(bench) == FrameFlag.FROZEN
        assert bench.counter(d.FROZEN) == repetition
    for _ in range(3):
        is_held(bench, frame, FrameFlag.FROZEN, d.FROZEN)
    assert bench.counter(d.FROZEN_SKIPPED) == 3
    frame[-1, -1] += 1
    is_used(bench, frame)
    assert flags(bench) == FrameFlag(0)
    bench.step(frame)
    assert flags(bench) == FrameFlag.FROZEN, "the count in a row begins anew"


def test_repetitions_are_all_used_when_the_rule_is_off(bench, rng):
    bench.switch(FROZEN_FRAMES=0)
    frame = random_frame(bench.parameters, rng)
    for _ in range(8):
        bench.step(frame)
    assert bench.counter(d.FROZEN) == 7
    assert bench.counter(d.SKIPPED) == 0


@pytest.mark.parametrize("member", ["reference", "reconstructor_lo", "reconstructor_ho"])
def test_a_signal_or_an_error_that_is_not_finite_is_not_used(bench, rng, member):
    """Finite parameters whose products are beyond float32: the only way, for new values are checked."""
    good = getattr(bench.parameters, member).copy()
    wrong = good.copy()
    wrong[0] = np.where(good[0] != 0.0, 3e38, 0.0)
    changes = {member: wrong}
    if member != "reference":
        # Where the signal is small, the error would be finite.
        changes["reference"] = bench.parameters.reference - 1.0
    bench.loop.slots.change(**changes)
    bench.switch()
    is_held(bench, random_frame(bench.parameters, rng), FrameFlag.NOT_FINITE, d.NOT_FINITE)
    assert np.all(np.isfinite(bench.newest("signal")))
    assert np.all(np.isfinite(bench.newest("e_HO")))
    bench.loop.slots.change(**{member: good, "reference": bench.parameters.reference})
    bench.switch()
    is_used(bench, random_frame(bench.parameters, rng))
    assert np.isfinite(bench.newest("snr")), "the running statistics have not seen it"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize("size", [1, 5, 141])
def test_are_finite(rng, size, wrong):
    values = rng.normal(size=size).astype(np.float32) * np.float32(1e38)
    if wrong is not None:
        values[-1] = wrong
    assert are_finite(values) == (wrong is None)


# The stream


def test_a_stream_that_changes_its_type_is_not_used_and_opened_again(bench, rng):
    """The header says float32 from one frame to the next, without a new creation time."""
    held = bench.command()
    offset = streams.METADATA.fields["datatype"][1]
    code = os.pread(bench.camera.fd, 1, offset)
    os.pwrite(bench.camera.fd, b"\x09", offset)
    bench.post(random_frame(bench.parameters, rng))
    wait_for(lambda: bench.counter(d.WRONG_FORMAT) == 1, 10.0, "a frame of another type")
    np.testing.assert_array_equal(bench.command(), held)

    def refused():
        bench.loop.check_streams()
        return "found data type float32, expected int32" in bench.loop.problem

    wait_for(refused, 10.0, "a refusal that says why")
    check_mirror(bench)
    os.pwrite(bench.camera.fd, code, offset)
    bench.wait_running()
    is_used(bench, random_frame(bench.parameters, rng))


def test_a_stream_of_another_size_is_refused_with_a_message(bench, rng):
    """The camera server takes another region: the stream is created anew with other axes."""
    bench.camera.close()
    side = bench.parameters.frame_shape[0]
    bench.camera = Stream.create("baldr1", (side, 2 * side), np.int32, bench.directory, in_place=True)
    held = bench.command()
    bench.camera.write(np.full((side, 2 * side), 5000, dtype=np.int32))

    def refused():
        bench.loop.check_streams()
        return f"found shape {(side, 2 * side)}, expected {(side, side)}" in bench.loop.problem

    wait_for(refused, 10.0, "a refusal that says why")
    np.testing.assert_array_equal(bench.command(), held)
    bench.camera.close()
    bench.camera = Stream.create("baldr1", (side, side), np.int32, bench.directory)
    bench.wait_running()
    is_used(bench, random_frame(bench.parameters, rng))


def test_a_file_that_is_cut_is_a_read_error(bench, rng):
    held = bench.command()
    os.ftruncate(bench.camera.fd, 400)
    for semaphore in bench.camera.semaphores:
        semaphore.post(10)
    wait_for(lambda: bench.counter(d.READ_ERRORS) >= 1, 10.0, "a read error")
    np.testing.assert_array_equal(bench.command(), held)


# Controllers


def away(limits: LimitSettings, **changes):
    """A problem whose loops are driven away by any frame."""
    parameters = random_problem(limits=limits)
    n = parameters.reconstructor_ho.shape[0]
    return replace(parameters, reconstructor_ho=np.eye(n), **changes)


def test_high_order_modes_that_run_away_together_trip(rng):
    limits = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1e-3, ho_violations=10**6, runaway=200)
    with LoopBench(away(limits, control_ho=gains(16, kp=50.0, ki=0.0))) as bench:
        bench.set_loops(False, True)
        level, trip = 0, 0
        for _ in range(200):
            before = bench.counter(d.HO_LIMITED)
            bench.step(random_frame(bench.parameters, rng))
            level = max(level + bench.counter(d.HO_LIMITED) - before - 1, 0)
            trip = bench.counter(d.TRIP)
            if trip:
                break
            assert bench.counter(d.RUNAWAY) == level < 200
        assert trip == d.TRIP_RUNAWAY
        assert level >= 200
        assert FrameFlag.TRIPPED in flags(bench)
        assert not bench.command().any()
        assert (bench.counter(d.HO_CLOSED), bench.counter(d.RUNAWAY), bench.counter(d.TRIPS)) == (0, 0, 1)
        bench.step(random_frame(bench.parameters, rng))
        assert flags(bench) == FrameFlag.NOT_APPLIED
        bench.switch(CLOSE_HO=0, RESET=1)
        bench.step(random_frame(bench.parameters, rng))
        assert flags(bench) == FrameFlag(0)


def test_a_single_mode_at_its_limit_is_muted_not_tripped(rng):
    limits = LimitSettings(command=1.0, lo_command=1.0, ho_mode=0.01, ho_violations=20, runaway=30)
    gain = np.zeros(16)
    gain[3] = 1e3
    with LoopBench(away(limits, control_ho=gains(16, kp=gain, ki=0.0))) as bench:
        bench.set_loops(False, True)
        for _ in range(60):
            bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.TRIP) == 0
        assert bench.counter(d.MUTED) == 1
        assert bench.loop.arrays.state.violations[3] == 20
        assert bench.counter(d.HO_LIMITED) == 20


def test_tip_tilt_that_restarts_again_and_again_trips(rng):
    limits = LimitSettings(command=1.0, lo_command=1e-6, ho_mode=1.0, runaway=100)
    with LoopBench(away(limits, control_lo=gains(2, ki=5.0))) as bench:
        bench.set_loops(True, False)
        needed = -(-100 // (RESTART_WEIGHT - 1))
        for number in range(1, needed + 1):
            assert not bench.step(random_frame(bench.parameters, rng)).any()
            assert bench.counter(d.LO_LIMITED) == number
        assert bench.counter(d.TRIP) == d.TRIP_RUNAWAY


def test_a_large_command_for_long_trips_and_one_for_a_moment_does_not(rng):
    limits = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0, command_rms=1e-4, runaway=90)
    quiet = random_problem(limits=limits, control_ho=gains(16, kp=0.0, ki=0.0))
    with LoopBench(quiet) as bench:
        bench.set_loops(False, True)
        driven, idle = {"kp_ho": np.full(16, 5.0)}, {"kp_ho": np.zeros(16)}

        def frames(number, gain):
            bench.loop.slots.change(timeout_s=10.0, **gain)
            bench.switch()
            for _ in range(number):
                bench.step(random_frame(bench.parameters, rng))

        frames(5, driven)
        assert bench.counter(d.RUNAWAY) == 5 * (STROKE_WEIGHT - 1)
        frames(50, idle)
        assert bench.counter(d.RUNAWAY) == 0
        frames(9, driven)
        assert bench.counter(d.TRIP) == 0
        frames(1, driven)
        assert bench.counter(d.TRIP) == d.TRIP_RUNAWAY
        assert not bench.command().any()


def test_the_rule_is_off_at_0_and_does_not_count_open_loops(rng):
    limits = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1e-3, ho_violations=10**6, runaway=0)
    with LoopBench(away(limits, control_ho=gains(16, kp=50.0, ki=0.0))) as bench:
        bench.set_loops(False, True)
        for _ in range(20):
            bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.TRIP) == 0
        assert bench.counter(d.RUNAWAY) > 100
        bench.set_loops(False, False)
        bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.RUNAWAY) == 0


def test_mean_square_of_a_sum(rng):
    a, b = rng.normal(size=(2, 144)).astype(np.float32)
    assert mean_square_of_sum(a, b) == pytest.approx(np.mean((a + b) ** 2), rel=1e-5)


def test_the_points_beyond_the_command_limit_are_counted(rng):
    limits = LimitSettings(command=0.05, lo_command=1.0, ho_mode=1.0)
    parameters = away(limits, control_ho=gains(16, kp=0.5, ki=0.0))
    with LoopBench(parameters) as bench:
        bench.step(random_frame(parameters, rng))
        bench.set_loops(False, True)
        bench.step(random_frame(parameters, rng))
        wanted = 0.5 * bench.newest("e_HO")  # shapes are the identity
        np.testing.assert_array_equal(bench.loop.arrays.state.actuator_violations, np.abs(wanted) > 0.05)
        assert bench.counter(d.COMMAND_LIMITED) == 1
        assert not bench.command().any()


# Writing


@contextmanager
def unwritable(bench: LoopBench) -> Iterator[None]:
    """Exchange the loop's DM channel for a descriptor that cannot be written."""
    opened = bench.loop._streams
    assert opened is not None
    own = opened.channel.fd
    kept = os.dup(own)
    readable = os.open(opened.channel.path, os.O_RDONLY)
    os.dup2(readable, own)
    try:
        yield
    finally:
        os.dup2(kept, own)
        os.close(kept)
        os.close(readable)


def test_commands_that_cannot_be_written_are_counted_and_trip_in_the_end(bench, rng):
    bench.switch(WRITE_FAILURES=4)
    held = bench.command()
    with unwritable(bench):
        for number in range(1, 5):
            np.testing.assert_array_equal(bench.step(random_frame(bench.parameters, rng)), held)
            assert flags(bench) == FrameFlag.WRITE_FAILED | FrameFlag.NOT_APPLIED
            assert (bench.counter(d.WRITE_ERRORS), bench.counter(d.WRITE_RUN)) == (number, number)
        assert bench.counter(d.TRIP) == 0
        np.testing.assert_array_equal(bench.loop.arrays.state.command, held.astype(np.float32))
        bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.TRIP) == d.TRIP_WRITE
        assert FrameFlag.TRIPPED in flags(bench)
        assert bench.counter(d.FLAT_PENDING) == 1
        check_mirror(bench)
    # The flat comes as soon as it can, without a frame.
    wait_for(lambda: bench.counter(d.FLAT_PENDING) == 0, 10.0, "the flat command")
    assert not bench.command().any()
    bench.switch(CLOSE_LO=0, CLOSE_HO=0, RESET=1)
    bench.set_loops(True, True)
    is_used(bench, random_frame(bench.parameters, rng))


def test_a_failure_now_and_then_is_counted_and_does_not_trip(bench, rng):
    bench.switch(WRITE_FAILURES=2)
    for _ in range(3):
        with unwritable(bench):
            bench.step(random_frame(bench.parameters, rng))
        bench.step(random_frame(bench.parameters, rng))
    assert bench.counter(d.WRITE_ERRORS) == 3
    assert bench.counter(d.TRIP) == 0
    np.testing.assert_array_equal(bench.command(), bench.newest("command").astype(np.float64))


def test_stop_flattens_the_mirror_that_a_failure_has_kept_from_it(bench, rng):
    bench.switch(WRITE_FAILURES=1)
    with unwritable(bench):
        bench.step(random_frame(bench.parameters, rng))
        bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.TRIP) == d.TRIP_WRITE
    assert bench.loop.stop(10.0)
    assert not bench.command().any()


def test_a_command_written_in_part_is_a_failure(rng):
    """A limit of the file size cuts the write in the middle of the map."""
    with LoopBench(random_problem(grid=12, limits=WIDE)) as bench:
        bench.set_loops(True, True)
        bench.step(random_frame(bench.parameters, rng))
        middle = streams.DATA + 100 * 8
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        frame = random_frame(bench.parameters, rng)
        before, count = bench.records, bench.camera.counter()
        resource.setrlimit(resource.RLIMIT_FSIZE, (middle, hard))
        try:
            # By hand: the tables at the end of the stream are beyond the limit, too.
            os.pwrite(bench.camera.fd, frame.tobytes(), streams.DATA)
            os.pwrite(bench.camera.fd, (count + 1).to_bytes(8, "little"), streams.CNT0)
            for semaphore in bench.camera.semaphores:
                semaphore.post(10)
            wait_for(lambda: bench.records > before, 20.0, "a record")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert bench.counter(d.WRITE_ERRORS) == 1
        assert FrameFlag.WRITE_FAILED in flags(bench)
        check_mirror(bench)
        bench.step(random_frame(bench.parameters, rng))
        assert bench.counter(d.WRITE_RUN) == 0


# All at once


def test_whatever_comes_the_map_stays_finite_and_inside(rng):
    """Random faults in a row, with gains that run away; the operator acknowledges each trip."""
    limits = LimitSettings(
        command=0.2,
        lo_command=0.15,
        ho_mode=0.1,
        min_flux_adu=1.0,
        wrong_pixels=3,
        frozen_frames=2,
        runaway=60,
    )
    parameters = random_problem(limits=limits, control_lo=gains(2, ki=20.0), control_ho=gains(16, kp=100.0))
    generation, trips = 0, set()
    with LoopBench(parameters) as bench:
        bench.set_loops(True, True)
        frame = random_frame(parameters, rng)
        for _ in range(200):
            kind = rng.integers(9)
            good = random_frame(parameters, rng, flux=10.0 ** rng.uniform(2, 6))
            frame = {
                0: with_pixels(good, 9, 65535),
                1: with_pixels(good, 9, -9000),
                2: frame,
                3: np.zeros_like(frame),
                4: rng.integers(-(2**31), 2**31 - 1, frame.shape).astype(np.int32),
                5: random_frame(parameters, rng, flux=0.0),
            }.get(int(kind), good)
            bench.step(frame)
            check_mirror(bench)
            trips.add(bench.counter(d.TRIP))
            if bench.counter(d.TRIP):
                generation += 1
                bench.switch(RESET=generation)
        for counter in (d.SATURATED, d.NEGATIVES, d.FROZEN, d.NO_FLUX, d.LO_LIMITED, d.HO_LIMITED):
            assert bench.counter(counter) > 0
        assert d.TRIP_RUNAWAY in trips
        skipped = bench.counter(d.SKIPPED)
        recorded = bench.loop.arrays.ring.fields["flags"][: bench.records]
        assert skipped == np.count_nonzero(recorded & FrameFlag.SKIPPED)
