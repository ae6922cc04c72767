"""What the streams of a directory look like, and what is wrong with them, for people.

Looking changes nothing: no semaphore is created or repaired, no post taken, no byte written.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams.keywords import decode_keyword
from baldr_tango.streams.layout import (
    CPU,
    FILE_SUFFIX,
    KEYWORD,
    METADATA,
    VERSION,
    WRITE,
    StreamLayout,
    semaphore_name,
    shm_directory,
    stream_path,
    text_of,
    timespec_ns,
)
from baldr_tango.streams.semaphores import Semaphore

WRITE_FLAG_PATIENCE_S: Final = 0.05
"""A write flag that stays up this long, without a frame being counted, is called stuck."""

_TIMES: Final = ("creationtime", "lastaccesstime", "atime", "writetime")
_NUMBERS: Final = ("shared", "location", "status", "flag", "logflag", "cnt0", "cnt1", "cnt2", "write")


def list_streams(directory: str | Path | None = None) -> list[str]:
    """Name the streams in a directory, sorted; empty when there is no such directory."""
    files = shm_directory(directory).glob("*" + FILE_SUFFIX)
    return sorted(path.name.removesuffix(FILE_SUFFIX) for path in files)


def describe_streams(directory: str | Path | None = None) -> list[dict[str, Any]]:
    """Describe all streams in a directory, sorted by name."""
    return [describe_stream(name, directory) for name in list_streams(directory)]


def describe_stream(name: str, directory: str | Path | None = None) -> dict[str, Any]:
    """Describe one stream as far as it can be read; never raises for a broken one.

    Returns
    -------
    dictionary of plain Python values, which grows with what can be read:
    always: name, path, problems (list of sentences, empty when all is well);
    of the file: file_size [bytes], inode, mode (octal text), owner (user number);
    of the header: its fields under the library's names (times in ns since 1970, 0 not set), header_name,
    age_s since creation, since_write_s (None when the writer does not note its time, as the camera server);
    of a sound header: shape, dtype, circular, expected_size [bytes];
    of a whole file: keywords, semaphores (index, name, value, read_pid, write_pid; value None when it does
    not exist) and log_semaphore (index, name, value).
    """
    result: dict[str, Any] = {"name": name, "path": "", "problems": []}
    try:
        path = stream_path(name, directory)
        result["path"] = str(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        result["problems"].append("no such stream")
    except RequestError as error:
        result["problems"].append(str(error))
    except OSError as error:
        result["problems"].append(f"not readable: {error.strerror}")
    else:
        try:
            _describe_file(descriptor, name, directory, result)
        except (OSError, RequestError) as error:
            result["problems"].append(f"not readable: {error}")
        finally:
            os.close(descriptor)
    return result


def _describe_file(descriptor: int, name: str, directory: str | Path | None, result: dict[str, Any]) -> None:
    problems: list[str] = result["problems"]
    found = os.fstat(descriptor)
    result.update(
        file_size=found.st_size, inode=found.st_ino, mode=f"{found.st_mode & 0o777:04o}", owner=found.st_uid
    )
    if os.getuid() not in (found.st_uid, 0):
        problems.append(
            f"owned by user {found.st_uid}, we are {os.getuid()}: its semaphores cannot be posted"
        )
    if not stat.S_ISREG(found.st_mode):
        problems.append("not a regular file")
        return
    raw = os.pread(descriptor, METADATA.itemsize, 0)
    if len(raw) < METADATA.itemsize:
        problems.append(f"size mismatch: {len(raw)} bytes, a header needs {METADATA.itemsize}")
        return
    record = np.frombuffer(raw, METADATA)[0]
    _describe_header(record, name, result)
    if record["write"] and _write_flag_is_stuck(descriptor):
        problems.append("write flag stuck: the writer stopped in the middle of a frame")
    try:
        layout = StreamLayout.of_header(record, Path(result["path"]))
    except BackendError as error:
        problems.append(str(error).removeprefix(f"{result['path']}: "))
        return
    result.update(
        shape=layout.shape, dtype=str(layout.dtype), circular=layout.circular, expected_size=layout.file_size
    )
    if found.st_size < layout.file_size:
        problems.append(f"size mismatch: {found.st_size} bytes, header says {layout.file_size}")
        return
    keywords = _table(descriptor, layout.keyword_offset, layout.keywords, KEYWORD)
    decoded = (decode_keyword(keyword) for keyword in keywords)
    result["keywords"] = [keyword._asdict() for keyword in decoded if keyword is not None]
    pids = _table(descriptor, layout.read_pid_offset, 2 * layout.semaphores, np.dtype("<i4"))
    _describe_semaphores(name, directory, layout, pids.tolist(), result)


def _describe_header(record: np.void, name: str, result: dict[str, Any]) -> None:
    problems: list[str] = result["problems"]
    now_ns = time.time_ns()
    version, own_name = text_of(record["version"]), text_of(record["name"])
    result.update(
        version=version,
        header_name=own_name,
        naxis=int(record["naxis"]),
        size=record["size"].tolist(),
        nelement=int(record["nelement"]),
        datatype=int(record["datatype"]),
        imagetype=int(record["imagetype"]),
        sem=int(record["sem"]),
        NBkw=int(record["NBkw"]),
        **{field: timespec_ns(record[field]) for field in _TIMES},
        **{field: int(record[field]) for field in _NUMBERS},
    )
    result["age_s"] = 1e-9 * (now_ns - result["creationtime"]) if result["creationtime"] else None
    result["since_write_s"] = 1e-9 * (now_ns - result["writetime"]) if result["writetime"] else None
    if version != VERSION:
        problems.append(f"wrong version: found {version!r}, expected {VERSION!r}")
    else:  # xaosim fills these fields in another way
        if own_name != name:
            problems.append(f"wrong name: the header says {own_name!r}")
        if result["location"] != CPU:
            problems.append(f"data on GPU {result['location']}, not in this file")
    if not result["sem"]:
        problems.append("no semaphores: nobody can wait for its frames")


def _describe_semaphores(
    name: str,
    directory: str | Path | None,
    layout: StreamLayout,
    pids: list[int],
    result: dict[str, Any],
) -> None:
    problems: list[str] = result["problems"]
    described = []
    for index in layout.semaphore_indices:
        entry: dict[str, Any] = {
            "index": index, "name": semaphore_name(name, index, directory), "value": None
        }  # fmt: skip
        try:
            semaphore = Semaphore.open(entry["name"])
        except BackendError as error:
            problems.append(f"no semaphore {index}: {str(error).rpartition(': ')[2]}")
        else:
            entry["value"] = semaphore.value()
            if semaphore.has_lost_waiters():
                problems.append(f"semaphore {index} wakes nobody: it was reset while somebody waited")
            semaphore.close()
        described.append(entry)
    result["log_semaphore"] = described.pop() if described else None
    for index, entry in enumerate(described):
        entry.update(read_pid=pids[index], write_pid=pids[layout.semaphores + index])
    result["semaphores"] = described


def _table(descriptor: int, offset: int, number: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    table = np.zeros(number, dtype)
    if number and os.preadv(descriptor, [table.view(np.uint8).data], offset) < table.nbytes:
        raise BackendError("it has shrunk meanwhile")
    return table


def _write_flag_is_stuck(descriptor: int) -> bool:
    """Look again until the flag falls, a frame is counted, or patience ends."""
    end = time.monotonic() + WRITE_FLAG_PATIENCE_S
    first = np.frombuffer(os.pread(descriptor, METADATA.itemsize, 0), METADATA)
    while time.monotonic() < end:
        raw = os.pread(descriptor, METADATA.itemsize, 0)
        if len(raw) <= WRITE or not raw[WRITE]:
            return False
        if np.frombuffer(raw, METADATA)["cnt0"][0] != first["cnt0"][0]:
            return False
        time.sleep(1e-3)
    return True
