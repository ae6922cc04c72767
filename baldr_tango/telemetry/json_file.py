"""Telemetry as a JSON file with the legacy keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from numpy.typing import NDArray

from baldr_tango.telemetry import legacy
from baldr_tango.telemetry.recording import Description
from baldr_tango.telemetry.ring import TelemetryRing

_ROWS: int = 64  # scalars written at a time


def write_json(path: Path, ring: TelemetryRing, description: Description) -> None:
    """Write all records of a ring that nobody fills any more.

    The keys are the legacy ones, then the fields that the legacy had not, then ``header`` with what describes
    the recording. Vectors have one line per record; what is not finite is null. Text is made row by row: the
    encoder holds the interpreter, and other threads want to run.

    Raises
    ------
    OSError : the file cannot be written.
    """
    start, stop = ring.oldest, ring.write_index
    columns = [*legacy.COLUMNS, *(legacy.LegacyColumn(name, name) for name in legacy.extra_fields())]
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{{\n"counter": {stop}')
        for column in columns:
            file.write(f',\n"{column.key}": [')
            pieces = [column.values(ring.fields[column.field][part]) for part in ring.slices(start, stop)]
            _write_rows(file, pieces)
            file.write("]")
        header = {name: legacy.plain(value) for name, value in description.items()}
        file.write(',\n"header": ')
        file.write(json.dumps(header, indent=1, default=str, allow_nan=False))
        file.write("\n}\n")


def _write_rows(file: TextIO, pieces: list[NDArray[Any]]) -> None:
    between = "\n"
    for piece in pieces:
        if piece.ndim > 1:
            for row in piece:
                file.write(between + json.dumps(legacy.plain(row), separators=(",", ":")))
                between = ",\n"
            continue
        for first in range(0, len(piece), _ROWS):
            text = json.dumps(legacy.plain(piece[first : first + _ROWS]), separators=(",", ":"))
            file.write(between + text[1:-1])
            between = ",\n"
