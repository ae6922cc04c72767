"""Making and removing the files and semaphores of a stream."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams.keywords import unused_keywords
from baldr_tango.streams.layout import StreamLayout, semaphore_name, stream_path
from baldr_tango.streams.semaphores import Semaphore

FILE_MODE: Final = 0o600
"""File mode of a stream, as the library sets it: all participants run as one user."""

MAX_SEMAPHORES: Final = 100
"""Their names have two digits."""

_NO_PROCESS: Final = (-1).to_bytes(4, "little", signed=True)


def create_files(name: str, layout: StreamLayout, directory: str | Path | None, in_place: bool) -> None:
    """Make the file and the semaphores of a stream; data and counters are zero.

    With `in_place` an existing file keeps its inode and is cut to zero and filled again, and existing
    semaphores are set to zero: what the C library does. Without, both are new and the file appears complete,
    under its name, in one step; whoever has the old one open keeps the old one.

    Raises
    ------
    RequestError : `name` or the number of semaphores is not usable.
    BackendError : not allowed, or no memory left.
    """
    path = stream_path(name, directory)
    if layout.semaphores > MAX_SEMAPHORES:
        raise RequestError(
            f"stream {name}: {layout.semaphores} semaphores, expected at most {MAX_SEMAPHORES}"
        )
    try:
        if in_place:
            _fill_in_place(path, name, layout)
            _create_semaphores(name, layout, directory, reset=True)
        else:
            descriptor, text = tempfile.mkstemp(prefix=f".{name}.", suffix=".new", dir=path.parent)
            temporary = Path(text)
            try:
                _fill(descriptor, name, layout)
                remove_semaphores(name, directory)
                _create_semaphores(name, layout, directory, reset=False)
                temporary.rename(path)
            finally:
                os.close(descriptor)
                temporary.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, BackendError):
            raise
        raise BackendError(f"{path}: cannot be created: {error.strerror or error}") from error


def remove_files(name: str, directory: str | Path | None) -> bool:
    """Remove the file and the semaphores of a stream; False when there was no file.

    Raises
    ------
    RequestError : `name` is not usable.
    BackendError : not allowed.
    """
    path = stream_path(name, directory)
    try:
        path.unlink()
    except FileNotFoundError:
        existed = False
    except OSError as error:
        raise BackendError(f"{path}: cannot be removed: {error.strerror}") from error
    else:
        existed = True
    remove_semaphores(name, directory)
    return existed


def remove_semaphores(name: str, directory: str | Path | None) -> None:
    """Remove the names of all semaphores of a stream; who has them open keeps them."""
    for index in range(MAX_SEMAPHORES):
        Semaphore.unlink(semaphore_name(name, index, directory))
    Semaphore.unlink(semaphore_name(name, "log", directory))


def _create_semaphores(name: str, layout: StreamLayout, directory: str | Path | None, reset: bool) -> None:
    for index in layout.semaphore_indices:
        Semaphore.open(semaphore_name(name, index, directory), create=True, reset=reset).close()


def _fill_in_place(path: Path, name: str, layout: StreamLayout) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        _fill(descriptor, name, layout)
    finally:
        os.close(descriptor)


def _fill(descriptor: int, name: str, layout: StreamLayout) -> None:
    """Write an empty stream into an empty file; the header comes last, so that it vouches for the rest."""
    os.fchmod(descriptor, FILE_MODE)
    # Reserve the memory now: a sparse file would kill those who map it (SIGBUS) when memory runs out later.
    os.posix_fallocate(descriptor, 0, layout.file_size)
    os.pwrite(descriptor, unused_keywords(layout.keywords), layout.keyword_offset)
    os.pwrite(descriptor, _NO_PROCESS * (2 * layout.semaphores), layout.read_pid_offset)
    os.pwrite(descriptor, layout.header(name, time.time_ns()).tobytes(), 0)
