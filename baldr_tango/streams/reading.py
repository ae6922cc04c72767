"""Copies of stream data that no writer has touched meanwhile."""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams.layout import DATA
from baldr_tango.streams.streamfile import StreamFile

READ_TRIES: Final = 200
"""Attempts of one read to catch the data at rest; the later ones are 0.1 ms apart."""

_IMMEDIATE_TRIES: Final = 20


def copy_at_rest(file: StreamFile, tries: int) -> tuple[np.ndarray[Any, Any], int]:
    """Copy all data, and cnt0, as they are at rest.

    Write flag and counters must be the same before and after, and two copies in a row alike. The latter
    because the camera's streams count a frame only after ten posts, when the write flag has long fallen: a
    copy taken across such an update looks undisturbed by flag and counter. For the same reason the count may
    be one behind the data.

    Raises
    ------
    BackendError : deleted, cut, re-created, or never at rest in `tries` attempts.
    """
    data, again = (np.empty(file.layout.shape, file.layout.dtype) for _ in range(2))
    file.check()
    for attempt in range(tries):
        _pause(attempt)
        before = file.state()
        if before.write:
            continue
        file.read_into(data, DATA)
        file.read_into(again, DATA)
        after = file.state()
        if after == before and _same_bytes(data, again):
            return data, after.cnt0
    raise _restless(file, tries)


def copy_newest_slice(file: StreamFile, tries: int) -> tuple[np.ndarray[Any, Any], int]:
    """Copy slice (cnt0 - 1) mod z of a ring stream, and cnt0.

    Raises
    ------
    RequestError : the stream has no third axis.
    BackendError : as for `copy_at_rest`; also when the writer laps the reader each time.
    """
    depth = ring_depth(file)
    if depth == 1:
        cube, count = copy_at_rest(file, tries)
        return cube[0], count
    data = np.empty(file.layout.shape[1:], file.layout.dtype)
    file.check()
    for attempt in range(tries):
        _pause(attempt)
        count = file.state().cnt0
        file.read_into(data, DATA + (count - 1) % depth * data.nbytes)
        # After p more frames the writer is busy with slice (count + p) mod z, which is ours when p is z - 1.
        if 0 <= file.state().cnt0 - count < depth - 1:
            return data, count
    raise _restless(file, tries)


def read_slice_tables(file: StreamFile) -> tuple[np.ndarray[Any, Any], ...]:
    """Read acquisition times [ns], write times [ns] and counters of a circular stream: three (z,) arrays.

    Raises
    ------
    RequestError : the stream is not circular.
    """
    layout = file.layout
    if not layout.circular:
        raise RequestError(f"{file.path}: is not circular, it has no times of slices")
    depth = layout.shape[0]
    times = file.read_table(layout.slice_atime_offset, 4 * depth, "<i8").reshape(2, depth, 2)
    atime, writetime = times @ np.array([1_000_000_000, 1])
    return atime, writetime, file.read_table(layout.slice_count_offset, depth, "<u8")


def ring_depth(file: StreamFile) -> int:
    """Count the slices of a ring stream.

    Raises
    ------
    RequestError : the stream has no third axis.
    """
    if len(file.layout.shape) != 3:
        raise RequestError(f"{file.path}: shape {file.layout.shape} has no third axis, so no slices")
    return file.layout.shape[0]


def _same_bytes(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Compare as bytes: a NaN is equal to itself here."""
    return np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8))


def _pause(attempt: int) -> None:
    """Give a writer that lost its processor in the middle of a write the time to finish."""
    if attempt >= _IMMEDIATE_TRIES:
        time.sleep(1e-4)


def _restless(file: StreamFile, tries: int) -> BackendError:
    state = file.state()
    what = "its write flag stays up" if state.write else "its data never rest"
    return BackendError(f"{file.path}: no stable copy in {tries} attempts, {what} (cnt0 {state.cnt0})")
