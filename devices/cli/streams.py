"""``baldr streams``: what the shared-memory streams look like."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from baldr_tango.streams import inspect
from devices.cli.connect import configuration


def run(options: argparse.Namespace) -> int:
    """Show the streams; the exit status says whether nothing is wrong with them."""
    console = Console(highlight=False)
    config = configuration(options)
    directory = options.directory or config.streams.directory or None
    if options.all:
        names = inspect.list_streams(directory)
    else:
        names = options.names or [
            name for beam in config.beams for name in _names(config.for_beam(beam).streams)
        ]
    found = [inspect.describe_stream(name, directory) for name in names]
    table = Table(pad_edge=False)
    table.add_column("stream")
    table.add_column("shape")
    table.add_column("type")
    table.add_column("frames (cnt0)", justify="right")
    table.add_column("semaphores", overflow="fold")
    table.add_column("problems", overflow="fold")
    for stream in found:
        table.add_row(*_row(stream))
    console.print(table)
    return int(any(stream["problems"] for stream in found))


def _names(settings: Any) -> tuple[str, str, str]:
    return settings.camera, settings.dm_command, settings.dm_combined


def _row(stream: dict[str, Any]) -> list[str]:
    values = [semaphore["value"] for semaphore in stream.get("semaphores", [])]
    return [
        stream["name"],
        " x ".join(map(str, stream.get("shape", ()))),
        stream.get("dtype", ""),
        str(stream.get("cnt0", "")),
        " ".join("-" if value is None else str(value) for value in values),
        "; ".join(stream["problems"]) or "none",
    ]
