"""``baldr telemetry``: list and look at files, switch recording."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import tango
from rich.console import Console
from rich.table import Table

from baldr_tango.errors import BackendError
from baldr_tango.telemetry.files import list_files
from baldr_tango.telemetry.reader import TelemetryFile
from devices.cli.connect import configuration, connect
from devices.cli.table import number
from devices.failures import describe


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for."""
    console = Console(highlight=False)
    if options.action in ("on", "off"):
        return _switch(options, console)
    if options.action == "show":
        return _show(options, console)
    return _list(options, console)


def _switch(options: argparse.Namespace, console: Console) -> int:
    failed = False
    for beam in connect(options):
        try:
            answer = beam.run(f"telem_{options.action}")
        except tango.DevFailed as error:
            failed = True
            answer = describe(error)
        console.print(f"beam {beam.beam}: {answer}", markup=False, soft_wrap=True)
    return int(failed)


def _list(options: argparse.Namespace, console: Console) -> int:
    table = Table(pad_edge=False)
    for name in ("beam", "start (UTC)"):
        table.add_column(name)
    for name in ("seconds", "frames", "lost", "MB"):
        table.add_column(name, justify="right")
    table.add_column("file", overflow="fold")
    config = configuration(options)
    for beam in options.beam or config.beams:
        directory = config.for_beam(beam).telemetry.directory
        for path in list_files(directory, beam):
            try:
                with TelemetryFile(path) as file:
                    found = file.summary()
            except BackendError as error:
                table.add_row(str(beam), "-", "-", "-", "-", "-", str(error))
                continue
            running = "" if found["is_finished"] else " (not closed)"
            table.add_row(
                str(beam),
                found.get("start_utc", "-")[:19],
                number(found.get("duration_s"), ".1f"),
                str(found["frames"]),
                str(found["lost_frames"]),
                f"{found['size_mb']:.1f}",
                f"{path}{running}",
            )
    console.print(table)
    return 0


def _show(options: argparse.Namespace, console: Console) -> int:
    files: list[Path] = [options.file] if options.file else _newest(options)
    if not files:
        raise BackendError("no telemetry file; 'baldr telemetry on' records")
    for path in files:
        with TelemetryFile(path) as file:
            found = {
                **file.summary(),
                "attributes": file.attributes,
                "fields": {
                    field.name: f"{field.dtype}{list(field.shape) or ''} {field.unit}: {field.doc}"
                    for field in file.fields.values()
                },
            }
        console.print_json(json.dumps(found, default=str))
    return 0


def _newest(options: argparse.Namespace) -> list[Path]:
    config = configuration(options)
    files: list[Path] = []
    for beam in options.beam or config.beams:
        files += list_files(config.for_beam(beam).telemetry.directory, beam)[-1:]
    return files
