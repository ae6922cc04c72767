"""Threads that wake at absolute times: a probe of how late they are, and a camera for measurements."""

from __future__ import annotations

from typing import Any

from baldr_tango.kernels.atomics import load_acquire
from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.libc import monotonic_ns, sem_post_capped, sleep_until_ns
from baldr_tango.kernels.simulation_streams import write_frame

_POST_CAP = 10


@kernel
def next_deadline(deadline: int, period_ns: int, now_ns: int) -> int:
    """Return the first of the times ``deadline + k period``, k > 0, that is not over yet [ns]."""
    return deadline + period_ns * (1 + max(now_ns - deadline, 0) // period_ns)


@kernel
def watch_sleeps(
    control: Any, first_ns: int, period_ns: int, until_ns: int, due_ns: Any, late_ns: Any
) -> int:
    """Sleep until one time per period and note how late each wake-up was; return how many there were.

    Times that are over before the thread could sleep for them are left out: a delay counts once.

    control : (1,) int64, not 0 ends it before `until_ns`
    first_ns, until_ns : first time, and the one before which the last lies, CLOCK_MONOTONIC [ns]
    due_ns, late_ns : (n,) int64, overwritten: when the wake-ups were due, and how late they were [ns]
    """
    deadline = first_ns
    count = 0
    while deadline < until_ns and count < due_ns.size and load_acquire(control, 0) == 0:
        sleep_until_ns(deadline)
        now = monotonic_ns()
        due_ns[count] = deadline
        late_ns[count] = now - deadline
        count += 1
        deadline = next_deadline(deadline, period_ns, now)
    return count


@kernel
def post_frames(
    control: Any,
    streams: Any,
    semaphore: int,
    frames: Any,
    first_ns: int,
    period_ns: int,
    until_ns: int,
    scratch: Any,
    posted_ns: Any,
) -> int:
    """Write one frame per period into a camera stream and post it, as a camera does; return their number.

    A camera that is late begins a new period: it never catches up.

    control : (1,) int64, not 0 ends it before `until_ns`
    streams : `StreamTable` of one beam, without semaphores
    semaphore : address of the one that is posted
    frames : (m, P) int32, taken in turn
    scratch : write flag (8,) uint8 and counts (1, 2) int64 of the stream; frame k has the count k + 1
    posted_ns : (n,) int64, overwritten: CLOCK_MONOTONIC just before each post [ns]
    """
    flag, counts = scratch
    deadline = first_ns
    count = 0
    while deadline < until_ns and count < posted_ns.size and load_acquire(control, 0) == 0:
        sleep_until_ns(deadline)
        write_frame(streams, 0, frames[count % frames.shape[0]], flag, counts, False)
        now = monotonic_ns()
        posted_ns[count] = now
        sem_post_capped(semaphore, _POST_CAP)
        count += 1
        deadline = next_deadline(deadline, period_ns, now)
    return count
