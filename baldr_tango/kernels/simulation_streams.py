"""Streams of the virtual instrument, read and written by compiled code.

B beams, C DM channels, G = 144 points of the DM grid, P pixels of a frame, S semaphores.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.libc import address_of, pread, pwrite, sem_post_capped

# Columns of the table of file descriptors; the DM channels are the last ones.
COMBINED: Final = 0
CAMERA: Final = 1
TRUTH_STREAM: Final = 2
FIRST_CHANNEL: Final = 3


class StreamTable(NamedTuple):
    """Descriptors, semaphores and header offsets of the streams."""

    descriptors: NDArray[np.int64]
    """(B, FIRST_CHANNEL + C) combined DM stream, camera, truth, C DM channels."""
    triggers: NDArray[np.int64]
    """(B,) address of the semaphore that DM writers post."""
    posts: NDArray[np.int64]
    """(B, S) addresses of the semaphores of the camera stream."""
    cap: int
    """Value above which a semaphore is not posted."""
    data_offset: int
    cnt0_offset: int
    """Offset of cnt0; cnt1 follows it."""
    write_offset: int


@kernel
def read_mirror(streams, beam, channel, total, combined):
    """Sum the DM channels of a beam and clip to the stroke, as the DM server does.

    channel : (G,) scratch
    total : (G,) scratch
    combined : (G,) overwritten with the sum clipped to [0, 1]; NaN stays NaN, as on the instrument
    """
    nbytes = 8 * combined.size
    total[:] = 0.0
    for k in range(FIRST_CHANNEL, streams.descriptors.shape[1]):
        done = pread(streams.descriptors[beam, k], address_of(channel), nbytes, streams.data_offset)
        if done == nbytes:
            for g in range(total.size):
                total[g] += channel[g]
    for g in range(total.size):
        value = total[g]
        if value < 0.0:
            value = 0.0
        if value > 1.0:
            value = 1.0
        combined[g] = value


@kernel
def write_combined(streams, beam, combined, flag, counts):
    """Write the combined DM stream: write flag, data, cnt1 = 0, cnt0 + 1, write flag; nothing is posted."""
    fd = streams.descriptors[beam, COMBINED]
    counts[beam, 0] += 1
    counts[beam, 1] = 0
    ok = begin_write(streams, fd, flag)
    nbytes = 8 * combined.size
    ok += pwrite(fd, address_of(combined), nbytes, streams.data_offset) == nbytes
    ok += pwrite(fd, address_of(counts[beam]), 16, streams.cnt0_offset) == 16
    ok += end_write(streams, fd, flag)
    return 4 - ok


@kernel
def begin_write(streams, fd, flag):
    """Raise the write flag of a stream."""
    flag[0] = 1
    return int(pwrite(fd, address_of(flag), 1, streams.write_offset) == 1)


@kernel
def end_write(streams, fd, flag):
    """Lower the write flag of a stream."""
    flag[0] = 0
    return int(pwrite(fd, address_of(flag), 1, streams.write_offset) == 1)


@kernel
def post_all(streams, beam):
    """Post every semaphore of the camera stream, unless it holds `cap` posts already."""
    for k in range(streams.posts.shape[1]):
        sem_post_capped(streams.posts[beam, k], streams.cap)


@kernel
def write_frame(streams, beam, frame, flag, counts, post_first):
    """Write a camera frame: write flag, data, write flag, then count and post.

    The camera server posts before it counts; `post_first` imitates that.
    """
    fd = streams.descriptors[beam, CAMERA]
    nbytes = 4 * frame.size
    ok = begin_write(streams, fd, flag)
    ok += pwrite(fd, address_of(frame), nbytes, streams.data_offset) == nbytes
    ok += end_write(streams, fd, flag)
    if post_first:
        post_all(streams, beam)
    counts[beam, 0] += 1
    counts[beam, 1] += 1
    ok += pwrite(fd, address_of(counts[beam]), 16, streams.cnt0_offset) == 16
    if not post_first:
        post_all(streams, beam)
    return 4 - ok


@kernel
def write_truth(streams, beam, truth, flag, counts):
    """Write the truth vector of a beam."""
    fd = streams.descriptors[beam, TRUTH_STREAM]
    nbytes = 8 * truth.shape[1]
    counts[beam, 0] += 1
    counts[beam, 1] += 1
    ok = begin_write(streams, fd, flag)
    ok += pwrite(fd, address_of(truth[beam]), nbytes, streams.data_offset) == nbytes
    ok += pwrite(fd, address_of(counts[beam]), 16, streams.cnt0_offset) == 16
    ok += end_write(streams, fd, flag)
    return 4 - ok
