"""Telemetry files on disk: their names, how they are opened, listed and thinned out."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import h5py

from baldr_tango.errors import BackendError

FORMAT: Final = "baldr-telemetry"
"""Value of the attribute ``format`` of every telemetry file."""

FORMAT_VERSION: Final = 2
"""Value of the attribute ``format_version``; raised when old readers could misread a file."""

_NAME_ATTEMPTS: Final = 1000
MEGABYTE: Final = 1_000_000

_NAME: Final = re.compile(r"baldr_beam(?P<beam>\d+)_(?P<time>\d{8}T\d{6}\.\d{3}Z)\.h5")
_CONSISTENCY_FLAGS: Final = 11  # offset in an HDF5 superblock of version 3, the one that SWMR needs
_HDF5_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"


def beam_directory(directory: Path | str, beam: int) -> Path:
    """Directory of one beam's files: ``<directory>/beamN``."""
    return Path(directory) / f"beam{beam}"


def file_name(beam: int, utc_ns: int) -> str:
    """Name of the file of a beam that begins at `utc_ns` (nanoseconds since 1970, UTC)."""
    return f"baldr_beam{beam}_{_stamp(utc_ns)}.h5"


def saved_name(beam: int, utc_ns: int, suffix: str) -> str:
    """Name of a file with the ring's records of a beam, saved at `utc_ns` (nanoseconds since 1970, UTC)."""
    return f"baldr_beam{beam}_telemetry_{_stamp(utc_ns)}{suffix}"


def _stamp(utc_ns: int) -> str:
    seconds, nanoseconds = divmod(utc_ns, 10**9)
    stamp = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%dT%H%M%S")
    return f"{stamp}.{nanoseconds // 10**6:03d}Z"


def reserve(directory: Path, beam: int, utc_ns: int, suffix: str) -> tuple[Path, Path]:
    """Reserve a name that no other file has and no other writer can get.

    Returns
    -------
    an empty hidden file to be written, and the name that `publish` will give it: that of `utc_ns`, or of
    one of the next milliseconds.

    Raises
    ------
    BackendError : files cannot be created in the directory.
    """
    for step in range(_NAME_ATTEMPTS):
        path = directory / saved_name(beam, utc_ns + step * 10**6, suffix)
        hidden = path.with_name(f".{path.name}.part")
        try:
            if not path.exists():
                hidden.open("x").close()
                if not path.exists():  # published by another writer between the two looks
                    return hidden, path
                hidden.unlink()
        except FileExistsError:
            continue
        except OSError as error:
            raise BackendError(f"{directory}: no file can be created: {error.strerror}") from error
    raise BackendError(f"{directory}: no free name for a telemetry file")


def list_files(directory: Path | str, beam: int | None = None) -> list[Path]:
    """Telemetry files of one beam, or of all, the oldest first; empty when there is no such directory.

    Parameters
    ----------
    directory : the directory of the settings, which holds ``beamN``.
    beam : beam number; None for all.
    """
    found: list[tuple[str, int, Path]] = []
    for folder in Path(directory).glob("beam*" if beam is None else f"beam{beam}"):
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and folder.name == f"beam{match['beam']}":
                found.append((match["time"], int(match["beam"]), path))
    return [path for _, _, path in sorted(found)]


def is_finished(path: Path) -> bool:
    """True when the file was closed; False while it is written, or when its writer was killed.

    Raises
    ------
    BackendError : the file cannot be read, or is no HDF5 file of the kind that telemetry uses.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_CONSISTENCY_FLAGS + 1)
    except OSError as error:
        raise BackendError(f"telemetry file {path}: {error.strerror}") from error
    if len(head) <= _CONSISTENCY_FLAGS or not head.startswith(_HDF5_SIGNATURE):
        raise BackendError(f"telemetry file {path}: not an HDF5 file")
    return head[_CONSISTENCY_FLAGS] == 0


def open_file(path: Path) -> h5py.File:
    """Open a telemetry file for reading: finished, being written, or left behind by a killed writer.

    Raises
    ------
    BackendError : it cannot be read, or is no telemetry file.
    """
    finished = is_finished(path)
    try:
        file = h5py.File(path, "r", swmr=not finished, locking="best-effort")
    except (OSError, RuntimeError, ValueError) as error:
        raise BackendError(f"telemetry file {path}: {first_line(error)}") from error
    found = file.attrs.get("format", "nothing"), int(file.attrs.get("format_version", 0))
    if found[0] != FORMAT or found[1] > FORMAT_VERSION:
        file.close()
        raise BackendError(
            f"telemetry file {path}: found format {found[0]} version {found[1]}, "
            f"expected {FORMAT} up to version {FORMAT_VERSION}"
        )
    return file


def remove_oldest(directory: Path | str, beam: int, keep: int) -> list[Path]:
    """Delete the oldest files of a beam until `keep` are left; 0 keeps all.

    Only regular files that carry the name *and* the content of this beam's telemetry are touched.

    Returns
    -------
    the files deleted.
    """
    if keep <= 0:
        return []
    removed = []
    for path in list_files(directory, beam)[:-keep]:
        if _is_ours(path, beam):
            path.unlink()
            removed.append(path)
    return removed


def _is_ours(path: Path, beam: int) -> bool:
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        with open_file(path) as file:
            return int(file.attrs["beam"]) == beam
    except (BackendError, KeyError, ValueError):
        return False


def free_bytes(directory: Path) -> int:
    """Space that this process may use on the file system of a directory [bytes]."""
    space = os.statvfs(directory)
    return space.f_bavail * space.f_frsize


def publish(source: Path, target: Path) -> None:
    """Give a complete file its name without ever replacing another one.

    Raises
    ------
    FileExistsError : the name is taken.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system
        if target.exists():
            raise FileExistsError(f"{target} exists") from None
        source.rename(target)
        return
    source.unlink()


def first_line(error: BaseException) -> str:
    """Reason of an error in a few words: the operating system's, when HDF5 quotes it."""
    text = str(error)
    quoted = re.search(r"error message = '([^']*)'", text)
    if quoted:
        return quoted[1]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with contextlib.suppress(IndexError):
        return text.splitlines()[0]
    return type(error).__name__
