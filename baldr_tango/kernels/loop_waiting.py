"""Waiting for a frame by the camera's counter: polled for a while, then asleep on the semaphore.

Frames are told by their count alone. It comes last of what a camera does for a frame, or next to last before
its post; so whoever has seen it will find the frame whole, and never twice.
"""

from __future__ import annotations

from typing import Any

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.jit import part_of_kernel
from baldr_tango.kernels.libc import address_of, monotonic_ns, pread, sem_trywait, sem_wait_until
from baldr_tango.kernels.loop_streams import drain

_EARLY_NS = 200_000
"""Longest sleep after a post that came before its count: nothing else may announce that one."""


@part_of_kernel
def forget_frames(state: Any, io: Any) -> None:
    """Begin with the next frame: those so far are neither processed late nor counted as lost."""
    counters = state.counters
    drain(io.handles[d.CAMERA_SEMAPHORE])
    counters[d.LAST_NUMBER] = -1
    counters[d.POSTS_OWED] = 0
    if (
        io.handles[d.SPIN_NS] > 0
        and pread(io.handles[d.CAMERA_FD], address_of(io.check), 8, d.COUNTS_OFFSET) == 8
    ):
        counters[d.LAST_NUMBER] = io.check[0]
    counters[d.POSTS_NUMBER] = counters[d.LAST_NUMBER]


@part_of_kernel
def take_posts(state: Any, io: Any) -> None:
    """Take the posts of the frames that were found by their count, as far as they have come.

    Posts beyond those came without a frame; they count as stale wake-ups.
    """
    counters = state.counters
    frames = counters[d.LAST_NUMBER] - counters[d.POSTS_NUMBER]
    counters[d.POSTS_NUMBER] = counters[d.LAST_NUMBER]
    owed = counters[d.POSTS_OWED] + (frames if frames >= 0 else 1)
    while owed > 0 and sem_trywait(io.handles[d.CAMERA_SEMAPHORE]):
        owed -= 1
    # Right after a frame, a post too many may be that of the next one, whose count is still to come.
    early = 1 if frames > 0 else 0
    if owed < -early:
        counters[d.STALE] -= owed + early
    # At most the newest frame's post is still to come: others have been dropped, or taken by somebody else.
    counters[d.POSTS_OWED] = min(max(owed, -early), 1)


@part_of_kernel
def has_counted(state: Any, io: Any) -> bool:
    """True when the camera's counter has moved on; a stream that was emptied has no frame."""
    counters = state.counters
    if pread(io.handles[d.CAMERA_FD], address_of(io.check), 8, d.COUNTS_OFFSET) != 8:
        return False
    if io.check[0] == counters[d.LAST_NUMBER]:
        return False
    if io.check[0] == 0:
        counters[d.CAMERA_RESTARTS] += 1
        counters[d.LAST_NUMBER] = 0
        return False
    return True


@part_of_kernel
def wait_for_count(state: Any, io: Any) -> bool:
    """Wait until the camera has counted a frame; False when none came in ``WAIT_NS``, nor so after a post.

    With ``SPIN_NS`` as long as that, the counter is polled all the time, and posts are only taken away.
    """
    counters = state.counters
    semaphore = io.handles[d.CAMERA_SEMAPHORE]
    spin_ns = io.handles[d.SPIN_NS]
    now = monotonic_ns()
    deadline = now + io.handles[d.WAIT_NS]
    spin_until = now + spin_ns
    is_early = False
    if spin_until >= deadline:
        drain(semaphore)
    else:
        take_posts(state, io)
    while not has_counted(state, io):
        now = monotonic_ns()
        if now >= deadline:
            return False
        if now < spin_until:
            continue
        until = min(deadline, now + _EARLY_NS) if is_early else deadline
        if sem_wait_until(semaphore, until) or sem_trywait(semaphore):
            now = monotonic_ns()
            if not is_early:
                deadline = now + io.handles[d.WAIT_NS]  # its writer may be interrupted before it counts
            is_early = True
            counters[d.POSTS_OWED] -= 1
            spin_until = now + spin_ns
    return True
