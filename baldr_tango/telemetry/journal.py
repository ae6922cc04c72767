"""What a recording holds beside its frames, so that the loop can be run again on them.

Whoever runs the loop keeps a journal of what frames do not tell: the parameters of every version, and the
loop's memory between two frames. A file has it in its group ``replay``: ``entries``, one row per array, and
``values``, the arrays' bytes one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from baldr_tango.telemetry.ring import TelemetryRing

GROUP: Final = "replay"
"""Group of the file that holds the journal."""

PARAMETERS: Final = "parameters"
"""Kind of an entry: members of one version of the parameters that differ from the version before."""
STATE: Final = "state"
"""Kind of an entry: the loop's memory before record `Entry.record`, `Entry.version` being in force."""
ENTERED: Final = "entered"
"""The same where the loop began anew, on streams opened again, with that version of the parameters."""
FIRST: Final = "first"
"""Kind of an entry without arrays: the ring's record that is row 0 of the file."""

_ENTRY: Final = np.dtype(
    [
        ("kind", "S12"),
        ("record", "<i8"),
        ("version", "<i8"),
        ("name", "S40"),
        ("dtype", "S8"),
        ("shape", "<i8", (3,)),
        ("offset", "<i8"),
        ("nbytes", "<i8"),
    ]
)
_NO_SIZE: Final = -1  # of the dimensions that an array does not have


@dataclass(frozen=True)
class Entry:
    """One thing that the frames do not tell."""

    kind: str
    """`PARAMETERS`, `STATE`, `ENTERED` or `FIRST`."""
    record: int = -1
    """Record of the ring before which it holds; -1: told by the version."""
    version: int = -1
    """Version of the parameters."""
    arrays: Mapping[str, NDArray[Any]] | None = None
    """Arrays of up to three dimensions by name; None: there are none."""

    @property
    def nbytes(self) -> int:
        """Size of its arrays [bytes]."""
        return sum(array.nbytes for array in (self.arrays or {}).values())


class Journal(Protocol):
    """What is written into a file as it happens."""

    def take(self) -> list[Entry]:
        """Return what has come since the last call, oldest first."""

    def checkpoint(self) -> int | None:
        """Have the loop's memory in the journal, for instance behind a gap.

        Returns
        -------
        record before which it is known; None: the loop does not run, and is noted when it begins.

        Raises
        ------
        StateError : the loop did not react in time.
        """

    def close(self) -> None:
        """End it; harmless when called twice."""


OpenJournal = Callable[[TelemetryRing], Journal | None]
"""Begins the journal of the loop that fills a ring; None when none does, or no longer."""


class JournalDatasets:
    """The journal of a file that is being written.

    Parameters
    ----------
    file : the file, before SWMR mode.
    attributes : what describes where the loop runs.
    """

    def __init__(self, file: h5py.File, attributes: Mapping[str, str]) -> None:
        group = file.create_group(GROUP)
        group.attrs.update(attributes)
        self._entries = group.create_dataset("entries", (0,), _ENTRY, maxshape=(None,), chunks=(256,))
        self._values = group.create_dataset("values", (0,), np.uint8, maxshape=(None,), chunks=(65536,))

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries behind those that are there; they are complete in the file after a flush."""
        rows, pieces = [], []
        begin, first = int(self._values.shape[0]), int(self._entries.shape[0])
        offset = begin
        for entry in entries:
            for name, value in (entry.arrays or {"": np.zeros(0, np.uint8)}).items():
                array = np.ascontiguousarray(value)
                shape = (*array.shape, _NO_SIZE, _NO_SIZE, _NO_SIZE)[:3]
                where = (entry.kind.encode(), entry.record, entry.version, name.encode())
                rows.append((*where, array.dtype.str.encode(), shape, offset, array.nbytes))
                pieces.append(array.reshape(-1).view(np.uint8))
                offset += array.nbytes
        if not rows:
            return
        if offset > begin:
            self._values.resize(offset, axis=0)
            self._values[begin:] = np.concatenate(pieces)
        self._entries.resize(first + len(rows), axis=0)
        self._entries[first:] = np.array(rows, dtype=_ENTRY)


def read_journal(group: h5py.Group) -> list[Entry]:
    """Read the journal of a file; what is not yet complete in a running file is left out."""
    for name in ("values", "entries"):
        group[name].refresh()
    table, values = group["entries"][()], group["values"][()]
    entries: list[Entry] = []
    for row in table:
        begin, nbytes = int(row["offset"]), int(row["nbytes"])
        if not row["kind"] or begin + nbytes > values.size:
            break
        kind, record, version = row["kind"].decode(), int(row["record"]), int(row["version"])
        before = entries[-1] if entries else None
        if before is None or (before.kind, before.record, before.version) != (kind, record, version):
            entries.append(before := Entry(kind, record, version, {}))
        if row["name"]:
            array = values[begin : begin + nbytes].copy().view(row["dtype"].decode())
            shape = [size for size in row["shape"].tolist() if size != _NO_SIZE]
            before.arrays[row["name"].decode()] = array.reshape(shape)  # type: ignore[index]
    return entries
