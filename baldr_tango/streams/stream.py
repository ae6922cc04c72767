"""One ImageStreamIO stream: read, write, wait, post.

The library and all its users map the file. Here data and header are read with `pread` and written with
`pwrite` instead. The servers re-create their streams while we have them open, often in place: the file is
cut to zero and grows again. A load from a mapping beyond the end of its file is no error that a program can
handle where it happens: the kernel sends SIGBUS, and the whole device server dies, four beams, because one
camera server was restarted. A `pread` in the same moment returns fewer bytes, and a `pwrite` without memory
left fails with ENOSPC; both become a BackendError for the one beam concerned. The price is a system call,
about a microsecond for a frame of 4 kB; and both act on the same pages as those who map the file.

The one mapping left is that of the semaphores, which POSIX makes. Nobody ever cuts those files, and one that
is removed stays valid for those who have it open.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams.creation import create_files, remove_files
from baldr_tango.streams.keywords import Keyword, read_keywords, write_keyword
from baldr_tango.streams.layout import (
    CNT0,
    DATA,
    SEMAPHORE_CAP,
    WRITE,
    WRITE_TIME,
    StreamLayout,
    semaphore_name,
    stream_path,
)
from baldr_tango.streams.reading import (
    READ_TRIES,
    copy_at_rest,
    copy_newest_slice,
    read_slice_tables,
    ring_depth,
)
from baldr_tango.streams.semaphores import Semaphore
from baldr_tango.streams.streamfile import StreamFile


class Stream:
    """An open stream; close it, or use it in a `with` statement.

    Reading, writing, posting and waiting may happen in different threads. One program writes a stream, by
    convention: nobody locks. `close` is for when all threads are done with it.
    """

    def __init__(
        self, name: str, file: StreamFile, semaphores: list[Semaphore], log_semaphore: Semaphore | None
    ) -> None:
        """Put an open stream together; use `Stream.open` or `Stream.create`."""
        self.name = name
        self.semaphores = semaphores
        self.log_semaphore = log_semaphore
        """Posted with every post; None for a stream without semaphores."""
        self._file = file
        self.path: Path = file.path
        self.layout: StreamLayout = file.layout
        self.shape: tuple[int, ...] = file.layout.shape
        """numpy order: (x,), (y, x) or (z, y, x)."""
        self.dtype: np.dtype[Any] = file.layout.dtype
        self.nbytes: int = file.layout.nbytes
        self.data_offset: int = DATA
        self.n_semaphores: int = file.layout.semaphores
        self.inode: int = file.inode
        self.creation_time_ns: int = file.creation_time_ns
        """As its maker wrote it, normally UTC since 1970 [ns]."""
        self.writable: bool = file.writable

    @classmethod
    def open(
        cls,
        name: str,
        directory: str | Path | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: DTypeLike | None = None,
        writable: bool = False,
        accept_version: str | Collection[str] = (),
    ) -> Stream:
        """Open an existing stream.

        Missing semaphores are created, as the library does, and damaged ones repaired (see `semaphores`).

        Parameters
        ----------
        shape, dtype : what the stream must hold; None accepts anything.
        accept_version : version texts to accept besides "0.0.01"; "xaosim" for files that xaosim has created.

        Raises
        ------
        RequestError : `name` is not usable.
        BackendError : missing, not allowed, or of another version, shape, type or size; names the file,
            what was found and what was expected.
        """
        file = StreamFile.open(stream_path(name, directory), accept_version, writable)
        layout = file.layout
        semaphores: list[Semaphore] = []
        try:
            if shape is not None and layout.shape != tuple(shape):
                raise BackendError(f"{file.path}: found shape {layout.shape}, expected {tuple(shape)}")
            if dtype is not None and layout.dtype != np.dtype(dtype):
                raise BackendError(f"{file.path}: found data type {layout.dtype}, expected {np.dtype(dtype)}")
            for index in layout.semaphore_indices:
                semaphores.append(Semaphore.open(semaphore_name(name, index, directory), create=True))
                semaphores[-1].repair()
        except BaseException:
            for semaphore in semaphores:
                semaphore.close()
            file.close()
            raise
        log_semaphore = semaphores.pop() if semaphores else None
        return cls(name, file, semaphores, log_semaphore)

    @classmethod
    def create(
        cls,
        name: str,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        directory: str | Path | None = None,
        *,
        semaphores: int = 10,
        keywords: int = 10,
        in_place: bool = False,
        circular: bool = False,
    ) -> Stream:
        """Create a stream, replacing one of the same name, and open it for writing.

        By default the file and its semaphores are new and appear complete, so that nobody sees a half-made
        stream; those who have the old one open keep it until they notice. `in_place` imitates the C library:
        the old file is cut to zero and filled again, its semaphores are reset under those who wait on them.

        Raises
        ------
        RequestError : name, shape, type or numbers that a stream cannot have.
        BackendError : not allowed, or no memory left.
        """
        layout = StreamLayout(tuple(shape), np.dtype(dtype), keywords, semaphores, circular)
        create_files(name, layout, directory, in_place)
        return cls.open(name, directory, shape=layout.shape, dtype=layout.dtype, writable=True)

    @staticmethod
    def destroy(name: str, directory: str | Path | None = None) -> bool:
        """Remove a stream and its semaphores; False when there was no such file.

        Raises
        ------
        BackendError : not allowed.
        """
        return remove_files(name, directory)

    @property
    def fd(self) -> int:
        """File descriptor, for compiled code; -1 after `close`."""
        return self._file.fd

    def header(self) -> np.void:
        """Read the whole header: a METADATA record."""
        return self._file.header()

    def counter(self) -> int:
        """Read cnt0, the number of frames written so far."""
        return self._file.state().cnt0

    def is_current(self) -> str | None:
        """Tell what happened to the stream of this name since it was opened; one stat and two preads.

        None while the open stream is still the one under its path, else "deleted", "re-created (new inode)",
        "re-created in place", "shrunk", "changed in shape or type: ...", or "cannot be examined: ...".
        """
        return self._file.change()

    def read(self, retries: int = READ_TRIES) -> tuple[np.ndarray[Any, Any], int]:
        """Copy the data as they are at rest: array of `shape` and `dtype`, and cnt0.

        A camera stream's count may be one behind the data: it posts before it counts.

        Raises
        ------
        BackendError : deleted, cut, re-created, or never at rest in `retries` attempts.
        """
        return copy_at_rest(self._file, retries)

    def newest_slice(self, retries: int = READ_TRIES) -> tuple[np.ndarray[Any, Any], int]:
        """Copy the newest slice of a ring stream, number (cnt0 - 1) mod z: (y, x) array, and cnt0.

        While cnt0 is 0 nothing has been written, and the slice is what its maker left there.

        Raises
        ------
        RequestError : the stream has no third axis.
        BackendError : as for `read`; also when the writer laps the reader each time.
        """
        return copy_newest_slice(self._file, retries)

    def slice_tables(self) -> tuple[np.ndarray[Any, Any], ...]:
        """Read acquisition times [ns], write times [ns] and counters of a circular stream: three (z,) arrays.

        Raises
        ------
        RequestError : the stream is not circular.
        """
        return read_slice_tables(self._file)

    def write(self, array: ArrayLike, *, post: bool = True, count_first: bool = True) -> None:
        """Publish new data: write flag, data, write time, cnt0 and cnt1 one up, posts.

        Parameters
        ----------
        array : of the stream's shape; converted to its type if that keeps the kind of number.
        post : post all semaphores.
        count_first : False lowers the write flag and posts before counting, as the camera server does.

        Raises
        ------
        RequestError : wrong shape or kind of number.
        BackendError : deleted, cut, re-created, or open for reading only.
        """
        data = self._fitting(array, self.shape)
        self._check_writable()
        state = self._file.state()
        counters = np.array([state.cnt0 + 1, state.cnt1 + 1], "<u8").tobytes()
        self._file.write_at(WRITE, b"\1")
        self._file.write_at(DATA, data)
        self._file.write_at(WRITE_TIME, _timespec_now())
        if count_first:
            self._file.write_at(CNT0, counters)
        else:
            self._file.write_at(WRITE, b"\0")
        if post:
            self._post(-1)
        if count_first:
            self._file.write_at(WRITE, b"\0")
        else:
            self._file.write_at(CNT0, counters)

    def write_slice(self, array: ArrayLike, *, post: bool = True) -> None:
        """Publish the next slice of a ring stream, number cnt0 mod z; cnt1 becomes the slice after it.

        Parameters
        ----------
        array : (y, x).

        Raises
        ------
        RequestError : no third axis, wrong shape or kind of number.
        BackendError : deleted, cut, re-created, or open for reading only.
        """
        depth = ring_depth(self._file)
        data = self._fitting(array, self.shape[1:])
        self._check_writable()
        count = self.counter()
        slot = count % depth
        now = _timespec_now()
        self._file.write_at(WRITE, b"\1")
        self._file.write_at(DATA + slot * len(data), data)
        self._file.write_at(WRITE_TIME, now)
        if self.layout.circular:
            self._file.write_at(self.layout.slice_atime_offset + 16 * slot, now)
            self._file.write_at(self.layout.slice_writetime_offset + 16 * slot, now)
            self._file.write_at(self.layout.slice_count_offset + 8 * slot, (count + 1).to_bytes(8, "little"))
        self._file.write_at(WRITE, b"\0")
        self._file.write_at(CNT0, np.array([count + 1, (count + 1) % depth], "<u8").tobytes())
        if post:
            self._post(-1)

    def post(self, index: int = -1) -> None:
        """Post semaphore `index`, or all with -1, and the log semaphore; none above 10.

        Also notes our process number in the stream when it is open for writing.

        Raises
        ------
        RequestError : there is no such semaphore.
        BackendError : open for writing, and deleted, cut or re-created.
        """
        if self.writable:
            self._file.check()
        self._post(index)

    def wait(self, semaphore_index: int, timeout_s: float) -> bool:
        """Wait for a post on one semaphore, at most `timeout_s`; False when none came.

        Raises
        ------
        RequestError : there is no such semaphore, or the time-out is not finite.
        """
        return self._semaphore(semaphore_index).wait(timeout_s)

    def semaphore_pids(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Read which processes wait on and which posted the semaphores: two (n_semaphores,), -1 unknown."""
        table = self._file.read_table(self.layout.read_pid_offset, 2 * self.n_semaphores, "<i4")
        waiting, posting = table.reshape(2, self.n_semaphores)
        return waiting, posting

    def keywords(self) -> dict[str, Keyword]:
        """Read the keywords in use."""
        return {keyword.name: keyword for keyword in read_keywords(self._file) if keyword is not None}

    def set_keyword(self, name: str, value: int | float | str, comment: str = "") -> None:
        """Set a keyword, in its present place or in the first unused one.

        Raises
        ------
        RequestError : the keyword does not fit, or no place is left.
        BackendError : deleted, cut, re-created, or open for reading only.
        """
        self._check_writable()
        write_keyword(self._file, Keyword(name, value, comment))

    def close(self) -> None:
        """Close file and semaphores; the stream itself stays. A second call does nothing."""
        for semaphore in self.semaphores:
            semaphore.close()
        if self.log_semaphore is not None:
            self.log_semaphore.close()
        self._file.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self.path} {self.shape} {self.dtype}{'' if self.fd >= 0 else ' closed'}>"

    def _semaphore(self, index: int) -> Semaphore:
        if not 0 <= index < self.n_semaphores:
            raise RequestError(f"stream {self.name}: no semaphore {index}, it has {self.n_semaphores}")
        return self.semaphores[index]

    def _post(self, index: int) -> None:
        targets = [self._semaphore(index)] if index >= 0 else self.semaphores
        for semaphore in targets:
            semaphore.post(SEMAPHORE_CAP)
        if self.writable and targets:
            own = os.getpid().to_bytes(4, "little") * len(targets)
            self._file.write_at(self.layout.write_pid_offset + 4 * max(index, 0), own)
        if self.log_semaphore is not None:
            self.log_semaphore.post(SEMAPHORE_CAP)

    def _fitting(self, array: ArrayLike, shape: tuple[int, ...]) -> memoryview:
        """View the bytes of `array` in the stream's type."""
        data = np.asarray(array)
        if data.shape != shape:
            raise RequestError(f"stream {self.name}: data of shape {data.shape}, expected {shape}")
        if not np.can_cast(data.dtype, self.dtype, "same_kind"):
            raise RequestError(f"stream {self.name}: data of type {data.dtype}, expected {self.dtype}")
        return np.ascontiguousarray(data, self.dtype).reshape(-1).view(np.uint8).data

    def _check_writable(self) -> None:
        """Refuse to write into what is not, or no longer, this stream: a pwrite would grow a cut file."""
        if not self.writable:
            raise BackendError(f"{self.path}: is open for reading only")
        self._file.check()


def _timespec_now() -> bytes:
    return np.array(divmod(time.time_ns(), 1_000_000_000), "<i8").tobytes()
