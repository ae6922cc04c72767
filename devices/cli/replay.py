"""``baldr replay``: recorded frames through the compiled loop once more."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from baldr_tango.replay import Changes, ReplayResult, changes_of_file, changes_of_texts, replay
from baldr_tango.telemetry.reader import TelemetryFile


def run(options: argparse.Namespace) -> int:
    """Replay a file; exit status 1 when it should be identical and is not."""
    values: dict[str, Any] = {}
    if options.config:
        with TelemetryFile(options.file) as file:
            values |= changes_of_file(options.config, int(file.attributes["beam"])).values
    values |= changes_of_texts(options.set).values
    result = replay(options.file, Changes(values), options.output)
    console = Console(highlight=False)
    if options.json:
        console.print_json(json.dumps(result.plain(), default=str))
    else:
        _show(result, console)
    return int(not result.changes and not result.is_identical)


def _show(result: ReplayResult, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    say(f"{result.path}: {result.replayed} of {result.rows} frames replayed")
    for first, last in result.passed_over:
        say(f"passed over: rows {first} to {last}: the loop's memory before them is not known")
    for key, value in result.changes.items():
        say(f"changed: {key} = {value}")
    for note in result.notes:
        say(f"note: {note}")
    if result.first is None:
        say(f"identical bit for bit: {', '.join(result.compared)}")
        if not result.changes:
            return
    else:
        where = result.first
        say(
            f"{result.different} frames differ, the first is frame {where.frame} (row {where.row}),"
            f" by its {where.field}"
        )
    table = Table(pad_edge=False)
    table.add_column("")
    for name in ("recorded", "replayed"):
        table.add_column(name, justify="right")
    for name, pair in result.figures().items():
        table.add_row(name, *(f"{value:.6g}" for value in pair))
    console.print(table)
