"""The open file of a stream: bytes in and out, and whether it still is the stream of its name."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from baldr_tango.errors import BackendError
from baldr_tango.streams.layout import (
    CNT0,
    CPU,
    CREATION,
    METADATA,
    VERSION,
    StreamLayout,
    text_of,
    timespec_ns,
)

_STATE: Final = struct.Struct(f"<qq{CNT0 - CREATION - 16}xQQQB")

DELETED: Final = "deleted"
NEW_INODE: Final = "re-created (new inode)"
IN_PLACE: Final = "re-created in place"
SHRUNK: Final = "shrunk"
RESHAPED: Final = "changed in shape or type"


class StreamState(NamedTuple):
    """The part of the header that changes, read in one go."""

    creation_time_ns: int
    cnt0: int
    cnt1: int
    cnt2: int
    write: int


class StreamFile:
    """An open stream file whose header has been checked."""

    def __init__(self, path: Path, descriptor: int, accepted: Collection[str], writable: bool) -> None:
        """Take over `descriptor`, which stays the caller's if this fails.

        Raises
        ------
        BackendError : the file is not a stream of an accepted version; the text has file, found, expected.
        """
        self.path = path
        self.fd = descriptor
        self.writable = writable
        try:
            found = os.fstat(descriptor)
        except OSError as error:
            raise self._failure("examined", error) from error
        if not stat.S_ISREG(found.st_mode):
            raise BackendError(f"{path}: is not a regular file")
        if found.st_size < METADATA.itemsize:
            raise BackendError(
                f"{path}: found {found.st_size} bytes, expected at least {METADATA.itemsize} "
                "(not a stream, or just being created)"
            )
        self._device, self.inode = found.st_dev, found.st_ino
        record = self.header()
        version = text_of(record["version"])
        if version != VERSION and version.rstrip(" ") not in accepted:
            expected = " or ".join(map(repr, (VERSION, *accepted)))
            raise BackendError(f"{path}: found version {version!r}, expected {expected}")
        # xaosim leaves 0 in this field, which would be the first GPU.
        if version == VERSION and record["location"] != CPU:
            raise BackendError(
                f"{path}: found data at location {record['location']}, expected {CPU} (CPU memory)"
            )
        self.layout = StreamLayout.of_header(record, path)
        if found.st_size < self.layout.file_size:
            raise BackendError(
                f"{path}: found {found.st_size} bytes, expected {self.layout.file_size} for "
                f"{self.layout.shape} of {self.layout.dtype}"
            )
        self.creation_time_ns = timespec_ns(record["creationtime"])
        self._highest_count = int(record["cnt0"])

    @classmethod
    def open(
        cls, path: Path, accept_version: str | Collection[str] = (), writable: bool = False
    ) -> StreamFile:
        """Open a stream file; versions besides the library's own only when named.

        Raises
        ------
        BackendError : missing, not allowed, or not a stream of an accepted version.
        """
        extra = (accept_version,) if isinstance(accept_version, str) else tuple(accept_version)
        # O_NONBLOCK: a FIFO under this name must not make us wait; regular files ignore it.
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError as error:
            raise BackendError(f"{path}: no such stream (is the server that makes it running?)") from error
        except OSError as error:
            raise BackendError(f"{path}: cannot be opened: {error.strerror}") from error
        try:
            return cls(path, descriptor, extra, writable)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self.fd = self.fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def header(self) -> np.void:
        """Read the whole header: a METADATA record."""
        return self.read_table(0, 1, METADATA)[0]

    def state(self) -> StreamState:
        """Read creation time, counters and write flag.

        Raises
        ------
        BackendError : the file has been cut or re-created in place.
        """
        state = self._raw_state()
        if state.creation_time_ns != self.creation_time_ns:
            raise BackendError(f"{self.path}: was {IN_PLACE}; open it again")
        return state

    def check(self) -> None:
        """Raise BackendError if the open file has lost its name or its end, or has been filled anew."""
        try:
            found = os.fstat(self.fd)
        except OSError as error:
            raise self._failure("examined", error) from error
        if found.st_nlink == 0:
            raise BackendError(f"{self.path}: was {DELETED} or replaced; open it again")
        if found.st_size < self.layout.file_size:
            raise self._shrunk(found.st_size)
        self.state()

    def change(self) -> str | None:
        """Tell what happened to the stream of this name since it was opened; None when it is still this one.

        One stat and two preads.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return DELETED
        except OSError as error:
            return f"cannot be examined: {error.strerror}"
        if (found.st_dev, found.st_ino) != (self._device, self.inode):
            return NEW_INODE
        if found.st_size < self.layout.file_size:
            return SHRUNK
        try:
            state = self._raw_state()
        except BackendError as error:
            return SHRUNK if self.fd >= 0 else str(error)
        # A counter that went back betrays writers that do not keep the creation time.
        if state.creation_time_ns != self.creation_time_ns or state.cnt0 < self._highest_count:
            return IN_PLACE
        try:
            layout = StreamLayout.of_header(self.header(), self.path)
        except BackendError as error:
            return str(error)
        if (layout.shape, layout.dtype) != (self.layout.shape, self.layout.dtype):
            return f"{RESHAPED}: {layout.shape} of {layout.dtype}"
        self._highest_count = state.cnt0
        return None

    def read_table(self, offset: int, number: int, dtype: DTypeLike) -> np.ndarray[Any, Any]:
        """Read `number` elements of `dtype`; BackendError when the file ends before."""
        table = np.empty(number, dtype)
        self.read_into(table, offset)
        return table

    def read_into(self, array: np.ndarray[Any, Any], offset: int) -> None:
        """Fill a contiguous array from the file; BackendError when the file ends before."""
        view = array.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise self._failure("read", error) from error
            if count == 0:
                raise self._shrunk(offset + done)
            done += count

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write bytes; the caller has made sure that they lie inside the stream."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += os.pwrite(self.fd, view[done:], offset + done)
            except OSError as error:
                raise self._failure("written", error) from error

    def _raw_state(self) -> StreamState:
        seconds, nanoseconds, *rest = _STATE.unpack(self.read_table(CREATION, _STATE.size, np.uint8).data)
        return StreamState(seconds * 1_000_000_000 + nanoseconds, *rest)

    def _shrunk(self, end: int) -> BackendError:
        return BackendError(f"{self.path}: has {SHRUNK}: it ends at byte {end}; open it again")

    def _failure(self, action: str, error: OSError) -> BackendError:
        reason = "it is closed" if self.fd < 0 else error.strerror
        return BackendError(f"{self.path}: cannot be {action}: {reason}")
