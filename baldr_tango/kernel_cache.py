"""The directory on disk in which compiled kernels are kept: claimed while in use, removed when old.

A directory belongs to one state of the kernels' sources and may be used by several processes and several
copies of the product. It has two files of ours: ``in_use``, locked by everybody who uses the directory,
whose time is that of the last use; and ``saving``, locked by whoever writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

KEEP_NEWEST: Final = 10
"""Directories that are kept whatever their age up to `KEEP_DAYS`: branches and versions beside each other."""

KEEP_DAYS: Final = 30.0
FRESH_DAYS: Final = 1.0
"""A directory used within this time is kept however many there are."""

_SOURCES: Final = Path(__file__).parent / "kernels"
_IN_USE: Final = "in_use"
_SAVING: Final = "saving"
_OLD: Final = ".old-"
_TRIES: Final = 1000
_DAY_S: Final = 86400.0

_claims: list[int] = []
"""Open files whose locks last as long as this process."""


def cache_directory(compiler_version: str) -> Path:
    """Return the directory of the kernels as their sources are now, which need not exist.

    Its name is a digest of all kernel sources: an edit or an upgrade can never run yesterday's machine code.

    Parameters
    ----------
    compiler_version : of numba.
    """
    base = (
        os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    )
    digest = hashlib.sha256(compiler_version.encode())
    for source in sorted(_SOURCES.glob("*.py")):
        digest.update(source.read_bytes())
    return Path(base) / "baldr_tango" / digest.hexdigest()[:16]


def has_kernel(directory: Path, name: str) -> bool:
    """Tell whether a kernel of this copy of the product, named ``module.function``, is in a directory.

    numba gives each directory of sources its own, named after a digest of the path.
    """
    digest = hashlib.sha1(os.path.abspath(_SOURCES).encode(), usedforsecurity=False)  # noqa: PTH100 - as numba
    return any((directory / f"{_SOURCES.name}_{digest.hexdigest()}").glob(f"{name}-*.nbc"))


def claim(directory: Path) -> None:
    """Make a directory if need be and keep it from being removed while this process lives.

    Whoever makes a new one removes those beside it that are old: they only become more when one is made.

    Raises
    ------
    OSError : it cannot be written.
    """
    is_new = not directory.is_dir()
    for _ in range(_TRIES):
        file = _share(directory)
        if file is not None:
            os.utime(file)
            _claims.append(file)
            break
    else:
        raise FileNotFoundError(f"{directory}: is removed as soon as it is made")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory}: not writable")
    if is_new:
        remove_old(directory)


def _share(directory: Path) -> int | None:
    """Open the directory's file of claims with a lock; None when the directory was taken away meanwhile."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = os.open(directory / _IN_USE, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileNotFoundError, FileExistsError):
        if directory.is_dir() or directory.parent.is_dir():
            return None
        raise
    with contextlib.suppress(OSError):  # no locks on this file system: then nobody removes either
        fcntl.flock(file, fcntl.LOCK_SH)
    if _is_same(file, directory / _IN_USE):
        return file
    os.close(file)
    return None


@contextlib.contextmanager
def saving(directory: Path) -> Iterator[None]:
    """Let no other process write into a directory meanwhile.

    numba numbers the variants of a function. Two processes that save different ones at the same time could
    give both the same number, and the index would lead to machine code for other types.
    """
    file = os.open(directory / _SAVING, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def remove_old(keep: Path) -> list[Path]:
    """Remove directories beside `keep` that have not been used for long and are not in use; return them.

    Old is what was not used for `KEEP_DAYS`, and what is not among the `KEEP_NEWEST` most recently used
    nor was used within `FRESH_DAYS`.
    """
    found = []
    with contextlib.suppress(OSError):
        for path in keep.parent.iterdir():
            if path.name.startswith(_OLD):
                shutil.rmtree(path, ignore_errors=True)  # what an interrupted removal has left
            elif re.fullmatch("[0-9a-f]{16}", path.name) and path != keep:
                found.append((_last_use(path), path))
    now = time.time()
    removed = []
    for place, (used, path) in enumerate(sorted(found, reverse=True), start=1):
        days = (now - used) / _DAY_S
        if (days > KEEP_DAYS or (place >= KEEP_NEWEST and days > FRESH_DAYS)) and _remove(path):
            removed.append(path)
    return removed


def _last_use(directory: Path) -> float:
    """Return when a directory was last claimed; one without claims counts from its last kernel."""
    for path in (directory / _IN_USE, directory):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return time.time()


def _remove(directory: Path) -> bool:
    """Remove a directory unless a process uses it; tell whether it was removed."""
    try:
        file = os.open(directory / _IN_USE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_same(file, directory / _IN_USE):
            return False  # another process was quicker, and a third one may have claimed a new directory
        # At once under another name: whoever claims it from now on finds nothing and makes a new one.
        gone = directory.with_name(f"{_OLD}{directory.name}-{os.getpid()}")
        directory.rename(gone)
    except OSError:
        return False
    finally:
        os.close(file)
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _is_same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False
