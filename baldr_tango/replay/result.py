"""What a replay found: the first difference, and figures of the recorded and of the replayed loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.replay.recording import Arrays
from baldr_tango.telemetry.fields import TELEMETRY_FIELDS, FrameFlag

VECTORS: Final = ("e_LO", "e_HO", "u_LO", "u_HO", "command")
"""Fields of which rms and largest value are compared [DM units]."""
FLAGS: Final = (FrameFlag.SKIPPED, FrameFlag.LIMITED, FrameFlag.TRIPPED, FrameFlag.NOT_APPLIED)
"""Flags whose frames are counted on both sides."""


@dataclass(frozen=True)
class Difference:
    """Where a replay first departs from its recording."""

    row: int
    """Row of the file."""
    frame: int
    """Frame number."""
    field: str
    """First field that differs, in the order of the table of fields; ``frame``: the loop gave no record."""


class _Side:
    """Sums over the records of one side."""

    def __init__(self) -> None:
        self.squares = dict.fromkeys(VECTORS, 0.0)
        self.numbers = dict.fromkeys(VECTORS, 0)
        self.largest = dict.fromkeys(VECTORS, 0.0)
        self.flags = {flag.name: 0 for flag in FLAGS}

    def add(self, fields: Arrays) -> None:
        usable = (fields["flags"] & FrameFlag.SKIPPED) == 0
        for name in VECTORS:
            if name in fields:
                values = fields[name][usable].astype(np.float64)
                self.squares[name] += float((values**2).sum())
                self.numbers[name] += values.size
                self.largest[name] = max(self.largest[name], float(np.abs(values).max(initial=0.0)))
        for flag in FLAGS:
            self.flags[flag.name] += int(np.count_nonzero(fields["flags"] & flag))

    def figures(self) -> dict[str, float]:
        """Figures by name, of the fields that were there."""
        found: dict[str, float] = {}
        for name in VECTORS:
            if self.numbers[name]:
                found[f"{name} rms"] = float(np.sqrt(self.squares[name] / self.numbers[name]))
                found[f"{name} largest"] = self.largest[name]
        return found | {f"frames {name}": count for name, count in self.flags.items()}


@dataclass
class ReplayResult:
    """Result of one replay."""

    path: Path
    rows: int
    """Frames of the file."""
    changes: dict[str, Any]
    """Keys of the runtime file that were changed."""
    compared: tuple[str, ...]
    """Fields compared bit for bit."""
    replayed: int = 0
    """Frames that went through the loop."""
    passed_over: list[tuple[int, int]] = field(default_factory=list)
    """Ranges of rows, first and last, before which the memory of the loop is not known."""
    different: int = 0
    """Frames in which any compared field differs."""
    first: Difference | None = None
    notes: list[str] = field(default_factory=list)
    """What the reader has to know to judge the result."""
    _recorded: _Side = field(default_factory=_Side)
    _replayed: _Side = field(default_factory=_Side)

    @property
    def is_identical(self) -> bool:
        """True when every compared field of every replayed frame is the recorded one, bit for bit."""
        return self.replayed > 0 and self.first is None

    def add(self, row: int, recorded: Arrays, replayed: Arrays) -> None:
        """Compare consecutive records of both sides, the first of them from row `row` of the file."""
        self.replayed += len(recorded["frame"])
        self._recorded.add(recorded)
        self._replayed.add(replayed)
        differs = {
            name: (_bytes(recorded[name]) != _bytes(replayed[name])).any(axis=1) for name in self.compared
        }
        anywhere = np.logical_or.reduce(list(differs.values()))
        self.different += int(anywhere.sum())
        if self.first is None and anywhere.any():
            k = int(np.argmax(anywhere))
            order = [f.name for f in TELEMETRY_FIELDS if f.name in differs]
            name = next(name for name in order if differs[name][k])
            self.first = Difference(row + k, int(recorded["frame"][k]), name)

    def pass_over(self, row: int) -> None:
        """Note a row that cannot be replayed."""
        if self.passed_over and self.passed_over[-1][1] == row - 1:
            self.passed_over[-1] = (self.passed_over[-1][0], row)
        else:
            self.passed_over.append((row, row))

    def figures(self) -> dict[str, tuple[float, float]]:
        """Figure of the recorded and of the replayed loop by name."""
        recorded, replayed = self._recorded.figures(), self._replayed.figures()
        return {name: (value, replayed[name]) for name, value in recorded.items()}

    def plain(self) -> dict[str, Any]:
        """Return the result fit for JSON."""
        return {
            "path": str(self.path),
            "frames": self.rows,
            "replayed": self.replayed,
            "passed_over": [list(rows) for rows in self.passed_over],
            "changes": self.changes,
            "compared": list(self.compared),
            "identical": self.is_identical,
            "different": self.different,
            "first_difference": None if self.first is None else asdict(self.first),
            "figures": {name: list(pair) for name, pair in self.figures().items()},
            "notes": self.notes,
        }


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the bytes of each record: equal bytes, equal values, NaN included."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)
