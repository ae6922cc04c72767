"""The compiled loop's parts on arrays, buffers and streams of their own, timed one call at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop as steps
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.libc import address_of, monotonic_ns
from baldr_tango.rtc.arrays import LoopArrays, build_arrays
from baldr_tango.rtc.compilation import buffers

_timer: Any = numba.njit(nogil=True, _nrt=False)


@_timer
def time_clock(bench, times):
    """Time nothing: what is measured of an empty interval."""
    for k in range(times.size):
        began = monotonic_ns()
        times[k] = monotonic_ns() - began


@_timer
def time_process(bench, times):
    """Time frame -> command, the write to the DM channel included."""
    parameters, state, io, ring = bench
    for k in range(times.size):
        began = monotonic_ns()
        steps.process(parameters, state, io, ring, 0, k % ring.frame.size)
        times[k] = monotonic_ns() - began


@_timer
def time_iteration(bench, times):
    """Time a whole iteration: read, number, process, write, judge, record."""
    parameters, state, io, ring = bench
    for k in range(times.size):
        state.counters[d.LAST_NUMBER] = io.frame_words[d.CNT0_WORD] - 1
        # Frames of a camera differ from each other.
        ring.img[(ring.cursor[0] - 1) % ring.frame.size, 0] = k
        began = monotonic_ns()
        steps.handle_frame(parameters, state, io, ring, 0, began)
        times[k] = monotonic_ns() - began


@_timer
def time_write(bench, times):
    """Time the write to the DM channel alone."""
    _, state, io, _ = bench
    for k in range(times.size):
        began = monotonic_ns()
        steps.write_command(io, state, state.command)
        times[k] = monotonic_ns() - began


@_timer
def time_read(bench, times):
    """Time the read of a frame alone."""
    io = bench[2]
    for k in range(times.size):
        began = monotonic_ns()
        steps.read_frame(io)
        times[k] = monotonic_ns() - began


@dataclass(frozen=True)
class FrameBench:
    """What the timers take: a loop's arrays with a frame in its buffer."""

    arrays: LoopArrays
    io: d.Io

    @property
    def groups(self) -> tuple[Any, ...]:
        """Argument of the timers."""
        return (self.arrays.parameters, self.arrays.state, self.io, self.arrays.ring_arrays)


def frame_of(p: LoopParameters, seed: int = 1) -> NDArray[np.int32]:
    """Return a plausible frame, flat."""
    light = np.random.default_rng(seed).uniform(20, 60, p.dark.size)
    return np.round(p.dark + light).astype(np.int32)


@contextmanager
def frame_bench(p: LoopParameters, ring_frames: int) -> Iterator[FrameBench]:
    """Build a loop with both servo loops closed on files in shared memory."""
    arrays = build_arrays(p, LoopSettings(ring_frames=ring_frames))
    semaphore = np.zeros(4, dtype=np.int64)
    handles = np.zeros(d.N_HANDLES, dtype=np.int64)
    handles[d.TRIGGER_SEMAPHORE] = address_of(semaphore)
    with ExitStack() as files:
        camera = files.enter_context(tempfile.TemporaryFile(dir="/dev/shm"))
        mirror = files.enter_context(tempfile.TemporaryFile(dir="/dev/shm"))
        handles[d.CAMERA_FD], handles[d.DM_FD] = camera.fileno(), mirror.fileno()
        # Ten semaphores and the log semaphore, as an ImageStreamIO stream has them.
        io = buffers(arrays, handles, np.full(11, address_of(semaphore), dtype=np.int64))
        io.frame_words[d.CNT0_WORD] = 1000
        io.raw[:] = frame_of(p)
        os.pwrite(camera.fileno(), io.frame_words.tobytes(), 0)
        arrays.state.counters[[d.LO_CLOSED, d.HO_CLOSED]] = 1
        # One and the same frame drives the controllers away; what is measured shall stay closed.
        arrays.parameters.switches[:, d.RUNAWAY_LEVEL] = 0
        yield FrameBench(arrays, io)


ROUNDS: Final = 15
CALLS: Final = 1500


def interleaved(
    timers: dict[str, Callable[[NDArray[np.int64]], object]], rounds: int = ROUNDS, calls: int = CALLS
) -> dict[str, float]:
    """Time several candidates in turns; return the median over the rounds of the medians [us].

    timers : functions that fill an array with durations [ns]; the first round warms up and is not counted
    """
    times = np.zeros(calls, dtype=np.int64)
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds + 1):
        for name, timer in timers.items():
            timer(times)
            found[name].append(float(np.median(times)) / 1e3)
    return {name: float(np.median(values[1:])) for name, values in found.items()}
