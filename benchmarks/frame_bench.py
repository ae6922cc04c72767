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
from baldr_tango.kernels.linear import copy
from baldr_tango.rtc.arrays import LoopArrays, build_arrays
from baldr_tango.rtc.compilation import buffers

_timer: Any = numba.njit(
    nogil=True, _nrt=False, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"}
)
"""With the flags of the loop itself, into which its parts are pasted."""


@_timer
def time_clock(bench, times):
    """Time nothing: what is measured of an empty interval."""
    for k in range(times.size):
        began = monotonic_ns()
        times[k] = monotonic_ns() - began


@_timer
def _time_frame(bench, frames, is_whole, times):
    parameters, state, io, ring = bench
    for k in range(times.size):
        copy(frames[k % frames.shape[0]], io.raw)
        began = monotonic_ns()
        row = ring.cursor[0] % ring.frame.size
        flags, _ = steps.compute(parameters, state, io, ring, 0, row)
        commanded = monotonic_ns()
        steps.record(parameters, state, io, ring, 0, flags, 0, began, commanded)
        times[k] = (monotonic_ns() if is_whole else commanded) - began


def time_compute(bench: Any, frames: NDArray[np.int32], times: NDArray[np.int64]) -> None:
    """Time frame in -> command out, in memory, in a running loop. frames : (n, P) taken in turns."""
    _time_frame(bench, frames, False, times)


def time_recorded(bench: Any, frames: NDArray[np.int32], times: NDArray[np.int64]) -> None:
    """Time frame in -> command out -> record complete, in memory."""
    _time_frame(bench, frames, True, times)


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


@dataclass(frozen=True)
class FrameBench:
    """What the timers take: a loop's arrays with a frame in its buffer."""

    arrays: LoopArrays
    io: d.Io

    @property
    def groups(self) -> tuple[Any, ...]:
        """Argument of the timers."""
        return (self.arrays.parameters, self.arrays.state, self.io, self.arrays.ring_arrays)


def frames_of(p: LoopParameters, count: int = 64) -> NDArray[np.int32]:
    """Return plausible frames (count, P): so many that no branch predictor learns a median by heart."""
    light = np.random.default_rng(1).uniform(20, 60, (count, p.dark.size))
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
        io.raw[:] = frames_of(p, 1)[0]
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
