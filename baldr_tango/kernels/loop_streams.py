"""The loop's ends: a frame out of the camera stream, its number, a command into the DM channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.jit import kernel, part_of_kernel
from baldr_tango.kernels.libc import (
    address_of,
    monotonic_ns,
    pread,
    pwrite,
    sem_post_capped,
    sem_trywait,
    sleep_until_ns,
)
from baldr_tango.kernels.linear import copy

_POST_CAP = 10
_BUSY_ATTEMPTS = 20
_MOST_ATTEMPTS = 500
_RETRY_NS = 20_000
_SETTLE_ATTEMPTS = 5

READ = 0
TORN = 1
SHORT = 2
OTHER_FORMAT = 3


@kernel
def drain(semaphore: int) -> None:
    """Take every post that is waiting."""
    while sem_trywait(semaphore):
        pass


@part_of_kernel
def read_frame(io: Any) -> int:
    """Copy the camera stream into ``io.frame_words``; return how that went, one of READ to OTHER_FORMAT.

    The frame is good when neither the counter nor the write flag moved while it was copied. A writer
    may post before it takes its flag down, and may be interrupted there: it gets about 20 ms.
    """
    nbytes = d.HEADER_WORDS * 8 + io.raw.size * 4
    for attempt in range(_MOST_ATTEMPTS):
        if pread(io.handles[d.CAMERA_FD], address_of(io.frame_words), nbytes, 0) != nbytes:
            return SHORT
        if (
            pread(io.handles[d.CAMERA_FD], address_of(io.check), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
            != d.COUNTS_NBYTES
        ):
            return SHORT
        same = io.check[0] == io.frame_words[d.CNT0_WORD]
        if same and io.check[3] & 0xFF == 0 and io.frame_words[d.WRITE_WORD] & 0xFF == 0:
            for k in range(d.FORMAT_WORDS):
                if io.frame_words[d.FORMAT_WORD + k] != io.format[k]:
                    return OTHER_FORMAT
            return READ
        # The writer may have been preempted by this very thread: let it finish.
        if attempt >= _BUSY_ATTEMPTS:
            sleep_until_ns(monotonic_ns() + _RETRY_NS)
    return TORN


@kernel
def same_pixels(a: Any, b: Any) -> bool:
    """True when two frames are equal pixel by pixel."""
    for i in range(a.size):  # noqa: SIM110 - a generator cannot be compiled
        if a[i] != b[i]:
            return False
    return True


@part_of_kernel
def number_frame(state: Any, count: int, raw: Any, last_raw: Any) -> int:
    """Return the lost frames before this one and store its number; -1 for a wake-up without a new frame.

    Camera streams post their semaphores *before* they advance the counter, so a new frame may still
    carry the old count; pixels tell it from a stale post. The total of lost frames stays exact.
    """
    counters = state.counters
    last = counters[d.LAST_NUMBER]
    if last < 0 or count < last - 1:
        if last >= 0:
            counters[d.CAMERA_RESTARTS] += 1
        counters[d.LAST_NUMBER] = count
        return 0
    if count <= last:
        if same_pixels(raw, last_raw):
            counters[d.STALE] += 1
            return -1
        counters[d.LAST_NUMBER] = last + 1
        return 0
    counters[d.LAST_NUMBER] = count
    counters[d.LOST] += count - last - 1
    return count - last - 1


@part_of_kernel
def settled_count(io: Any) -> int:
    """Return the camera's counter of the frame just read, for the first frame of a count.

    A stream that posts before it counts is still about to advance it. Later frames need no such wait:
    from here on a count that lags is recognised.
    """
    count = io.frame_words[d.CNT0_WORD]
    for _ in range(_SETTLE_ATTEMPTS):
        sleep_until_ns(monotonic_ns() + _RETRY_NS)
        if (
            pread(io.handles[d.CAMERA_FD], address_of(io.check), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
            == d.COUNTS_NBYTES
            and io.check[0] == count + 1
            and io.check[3] & 0xFF == 0
        ):
            return count + 1
    return count


@part_of_kernel
def write_command(io: Any, state: Any, command: Any) -> bool:
    """Put a map into the DM channel and wake whoever waits for it; False when it could not be written.

    Order as the instrument's programs expect: write flag, data, counters, flag off, the channel's
    semaphores, then the semaphore of the summed map, which moves the mirror.

    command : (G,) float32 [DM units]
    """
    for i in range(command.size):
        io.dm_map[i] = np.float64(command[i])
    nbytes = (d.COUNTS_WORDS + io.dm_map.size) * 8
    flag_byte = io.dm_words[3] & ~0xFF
    io.dm_words[3] = flag_byte | 1
    written = pwrite(io.handles[d.DM_FD], address_of(io.dm_words), nbytes, d.COUNTS_OFFSET)
    io.dm_words[0] += 1
    io.dm_words[1] += 1
    io.dm_words[3] = flag_byte
    counted = pwrite(io.handles[d.DM_FD], address_of(io.dm_words), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
    complete = written == nbytes and counted == d.COUNTS_NBYTES
    if complete:
        state.counters[d.WRITE_RUN] = 0
        copy(command, state.command)
    else:
        state.counters[d.WRITE_ERRORS] += 1
        state.counters[d.WRITE_RUN] += 1
    for k in range(io.dm_semaphores.size):
        sem_post_capped(io.dm_semaphores[k], _POST_CAP)
    sem_post_capped(io.handles[d.TRIGGER_SEMAPHORE], _POST_CAP)
    state.counters[d.WRITES] += 1
    return complete
