"""Byte layout of an ImageStreamIO stream, and the names of its file and semaphores.

The layout is that of the ImageStreamIO version "0.0.01" used by the camera and the DM server of the
instrument (x86-64, native alignment, little endian): a header of 336 bytes, the data, the keywords, two
tables of process numbers per semaphore and, for circular streams only, tables of times and counters per
slice. Nothing lies between the parts, so the data are not aligned to more than 16 bytes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from baldr_tango.errors import BackendError, RequestError

VERSION: Final = "0.0.01"
"""Version text that the library compares on opening."""

SEMAPHORE_CAP: Final = 10
"""A post is dropped when the semaphore already holds this many."""

MAX_NAME: Final = 79
"""Longest stream name [bytes]: the header has 80, the last one is NUL."""

FILE_SUFFIX: Final = ".im.shm"

MATH_DATA: Final = 0x2
CIRCULAR_MASK: Final = 0xF000F
CIRCULAR: Final = 0x20001
"""Image type of a circular stream: circular buffer along a third axis that is time."""

CPU: Final = -1
"""Location of data in shared memory; other numbers are GPUs."""

TIMESPEC: Final = np.dtype([("sec", "<i8"), ("nsec", "<i8")])

METADATA: Final = np.dtype(
    {
        "names": [
            "version", "name", "naxis", "size", "nelement", "datatype", "imagetype",
            "creationtime", "lastaccesstime", "atime", "writetime",
            "shared", "location", "status", "flag", "logflag", "sem",
            "cnt0", "cnt1", "cnt2", "write", "NBkw", "cudaMemHandle",
        ],
        "formats": [
            "S32", "S80", "u1", ("<u4", (3,)), "<u8", "u1", "<u8",
            TIMESPEC, TIMESPEC, TIMESPEC, TIMESPEC,
            "u1", "i1", "u1", "<u8", "u1", "<u2",
            "<u8", "<u8", "<u8", "u1", "<u2", "V64",
        ],
        "offsets": [
            0, 32, 112, 116, 128, 136, 144,
            152, 168, 184, 200,
            216, 217, 218, 224, 232, 234,
            240, 248, 256, 264, 266, 268,
        ],
        "itemsize": 336,
    }
)  # fmt: skip
"""Header of a stream; field names are the library's."""

KEYWORD: Final = np.dtype(
    {
        "names": ["name", "type", "value", "comment"],
        "formats": ["S16", "S1", "V16", "S80"],
        "offsets": [0, 16, 24, 40],
        "itemsize": 120,
    }
)
"""One keyword; `value` holds an int64, a double or 16 characters, as `type` says."""

# Offsets of the header fields that are read and written one by one [bytes].
CREATION: Final = 152
WRITE_TIME: Final = 200
CNT0: Final = 240
CNT1: Final = 248
CNT2: Final = 256
WRITE: Final = 264
DATA: Final = METADATA.itemsize

DATATYPES: Final[dict[int, np.dtype[Any]]] = {
    code: np.dtype(text)
    for code, text in enumerate(
        ["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8", "<c8", "<c16", "<f2"], start=1
    )
}
"""Data type of each code of the header."""


def datatype_code(dtype: DTypeLike) -> int:
    """Find the header's code of a numpy data type.

    Raises
    ------
    RequestError : a stream cannot hold this type.
    """
    wanted = np.dtype(dtype)
    for code, known in DATATYPES.items():
        if known == wanted:
            return code
    allowed = ", ".join(str(known) for known in DATATYPES.values())
    raise RequestError(f"a stream cannot hold {wanted}; allowed: {allowed}")


def text_of(field: bytes) -> str:
    """Decode a character field of a header up to its first NUL, as C does."""
    return bytes(field).split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def timespec_ns(field: np.void) -> int:
    """Convert a timespec of a header to nanoseconds."""
    return int(field["sec"]) * 1_000_000_000 + int(field["nsec"])


@dataclass(frozen=True)
class StreamLayout:
    """Where the parts of one stream lie; offsets and sizes in bytes from the start of the file."""

    shape: tuple[int, ...]
    """numpy order: (x,), (y, x) or (z, y, x)."""
    dtype: np.dtype[Any]
    keywords: int = 10
    semaphores: int = 10
    circular: bool = False

    def __post_init__(self) -> None:
        """Refuse what no header can describe (RequestError)."""
        if not 1 <= len(self.shape) <= 3 or not all(1 <= axis < 2**32 for axis in self.shape):
            raise RequestError(f"stream shape {self.shape}: expected 1 to 3 axes of at least 1 element")
        if self.circular and len(self.shape) != 3:
            raise RequestError(f"stream shape {self.shape}: a circular stream needs 3 axes")
        for what, number in (("keywords", self.keywords), ("semaphores", self.semaphores)):
            if not 0 <= number < 2**16:
                raise RequestError(f"{number} {what} in a stream: expected 0 to 65535")
        datatype_code(self.dtype)

    @property
    def semaphore_indices(self) -> list[int | str]:
        """What `semaphore_name` must be asked for: the numbers, then "log"; empty without semaphores."""
        return [*range(self.semaphores), "log"] if self.semaphores else []

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def keyword_offset(self) -> int:
        return DATA + self.nbytes

    @property
    def read_pid_offset(self) -> int:
        return self.keyword_offset + self.keywords * KEYWORD.itemsize

    @property
    def write_pid_offset(self) -> int:
        return self.read_pid_offset + 4 * self.semaphores

    @property
    def slice_atime_offset(self) -> int:
        return self.write_pid_offset + 4 * self.semaphores

    @property
    def slice_writetime_offset(self) -> int:
        return self.slice_atime_offset + 16 * self._slices

    @property
    def slice_count_offset(self) -> int:
        return self.slice_writetime_offset + 16 * self._slices

    @property
    def file_size(self) -> int:
        return self.slice_count_offset + 8 * self._slices

    @property
    def _slices(self) -> int:
        """Slices that have an entry in the trailing tables."""
        return self.shape[0] if self.circular else 0

    def header(self, name: str, creation_time_ns: int) -> np.ndarray[Any, Any]:
        """Write down the header of a fresh stream: (1,) METADATA."""
        header = np.zeros(1, METADATA)
        record = header[0]
        record["version"] = VERSION
        record["name"] = name
        record["naxis"] = len(self.shape)
        record["size"][: len(self.shape)] = self.shape[::-1]
        record["nelement"] = math.prod(self.shape)
        record["datatype"] = datatype_code(self.dtype)
        record["imagetype"] = CIRCULAR if self.circular else MATH_DATA
        for field in ("creationtime", "lastaccesstime"):
            record[field] = divmod(creation_time_ns, 1_000_000_000)
        record["shared"] = 1
        record["location"] = CPU
        record["sem"] = self.semaphores
        record["NBkw"] = self.keywords
        return header

    @classmethod
    def of_header(cls, record: np.void, path: Path) -> StreamLayout:
        """Work out the layout that a header describes.

        Raises
        ------
        BackendError : the header of `path` describes no stream that we can read.
        """
        axes = int(record["naxis"])
        size = tuple(int(axis) for axis in record["size"][:axes])
        if not 1 <= axes <= 3 or 0 in size:
            raise BackendError(f"{path}: found {axes} axes of sizes {size}, expected 1 to 3 of at least 1")
        if math.prod(size) != int(record["nelement"]):
            found = int(record["nelement"])
            raise BackendError(f"{path}: found {found} elements, expected {math.prod(size)} for axes {size}")
        code = int(record["datatype"])
        if code not in DATATYPES:
            raise BackendError(f"{path}: found data type code {code}, expected 1 to {max(DATATYPES)}")
        circular = axes == 3 and (int(record["imagetype"]) & CIRCULAR_MASK) == CIRCULAR
        return cls(size[::-1], DATATYPES[code], int(record["NBkw"]), int(record["sem"]), circular)


def shm_directory(directory: str | Path | None = None) -> Path:
    """Find the directory that holds the streams.

    `directory` if given and not empty, else $MILK_SHM_DIR if set and existing, else /dev/shm, else /tmp: the
    rule of the library.
    """
    return Path(_directory_text(directory))


def stream_path(name: str, directory: str | Path | None = None) -> Path:
    """Name the file of a stream.

    Raises
    ------
    RequestError : `name` is not usable as a stream name.
    """
    return shm_directory(directory) / (check_name(name) + FILE_SUFFIX)


def semaphore_name(name: str, index: int | str, directory: str | Path | None = None) -> str:
    """Name semaphore `index` of a stream for `sem_open`; index "log" is the log semaphore.

    The directory is part of the name, with dots for slashes.

    Raises
    ------
    RequestError : `name` is not usable as a stream name, or the semaphore's name becomes too long.
    """
    number = index if isinstance(index, str) else f"{index:02d}"
    text = f"/{_directory_text(directory).replace('/', '.')}.{check_name(name)}_sem{number}"
    if len(os.fsencode(text)) > 250:  # NAME_MAX, less the "sem." of the file and the slash
        raise RequestError(f"semaphore name {text} is too long: at most 250 bytes")
    return text


def check_name(name: str) -> str:
    """Return `name` if a stream can have it.

    Raises
    ------
    RequestError : empty, longer than 79 characters, not printable ASCII, or with a slash.
    """
    if not 1 <= len(name) <= MAX_NAME or not name.isascii() or not name.isprintable() or "/" in name:
        raise RequestError(f"stream name {name!r}: expected 1 to {MAX_NAME} ASCII characters without '/'")
    return name


def _directory_text(directory: str | Path | None) -> str:
    """Spell the directory as the library does.

    The library makes semaphore names from the characters of $MILK_SHM_DIR, a final slash included; the same
    spelling is used when a caller names that directory, or we would wait on semaphores that nobody posts.
    """
    variable = os.environ.get("MILK_SHM_DIR", "")
    usable = bool(variable) and Path(variable).is_dir()
    if directory is not None and str(directory):
        explicit = Path(directory).absolute()
        return variable if usable and Path(variable) == explicit else str(explicit)
    if usable:
        return variable
    return "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"
