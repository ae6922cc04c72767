"""Options of ``baldr`` and its sub-commands; each is imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from baldr_tango.errors import BaldrError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``baldr``; return its exit status: 0 done, 1 failed, 2 wrong options, 130 interrupted."""
    try:
        options = parser().parse_args(arguments)
        if options.command == "up":
            # Imports take a second on a small machine; the operator sees at once that something happens.
            sys.stdout.write("baldr up: starting (Ctrl-C stops everything)\n")
            sys.stdout.flush()
        return int(importlib.import_module(f"devices.cli.{options.module}").run(options))
    except BaldrError as error:
        sys.stderr.write(f"baldr {options.command}: {error}\n")
        return 1
    except BrokenPipeError:
        # The reader of our output has gone; nothing may be written at exit either.
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of all sub-commands."""
    top = argparse.ArgumentParser(prog="baldr", description="Baldr adaptive optics: run it and look at it.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="runtime file (default: the shipped one)")
    common.add_argument("--state", type=Path, metavar="DIR", help="in place of instrument.state")

    up = commands.add_parser(
        "up",
        parents=[common],
        help="start database, virtual instrument and device server; close the loops; show them",
    )
    up.set_defaults(module="up")
    up.add_argument("--seconds", type=_positive, metavar="S", help="stop after S seconds of closed loops")
    up.add_argument("--no-simulator", action="store_true", help="the instrument is there already")
    up.add_argument("--open", action="store_true", help="leave the loops open")
    up.add_argument("--once", action="store_true", help="print the table once, then stop everything")
    up.add_argument(
        "--plain", action="store_true", help="lines instead of a live table (default without a terminal)"
    )
    up.add_argument(
        "--isolated",
        action="store_true",
        help="own stream directory, free ports, own database: beside whatever else is running",
    )
    up.add_argument(
        "--database-port", type=int, metavar="PORT", help="port of the embedded Tango database (10000)"
    )

    compiler = commands.add_parser(
        "compile", help="compile the loop now, after an installation or update; the next start need not"
    )
    compiler.set_defaults(module="compile")

    client = argparse.ArgumentParser(add_help=False, parents=[common])
    client.add_argument("--beam", type=int, action="append", metavar="N", help="beam; repeatable; all")
    client.add_argument(
        "--tango-host",
        metavar="HOST:PORT",
        help="Tango database (default: TANGO_HOST, else that of a running 'baldr up')",
    )
    status = commands.add_parser("status", parents=[client], help="show the beams of a running server")
    status.set_defaults(module="status")
    status.add_argument("--json", action="store_true", help="every status key of every beam as JSON")

    telemetry = commands.add_parser("telemetry", parents=[client], help="telemetry files and recording")
    telemetry.set_defaults(module="telemetry")
    telemetry.add_argument("action", choices=("list", "show", "on", "off"), help="show: the newest, or FILE")
    telemetry.add_argument("file", nargs="?", type=Path, metavar="FILE", help="telemetry file (show)")

    replay = commands.add_parser(
        "replay", help="recorded frames through the compiled loop again: the same commands, or other gains"
    )
    replay.set_defaults(module="replay")
    replay.add_argument("file", type=Path, metavar="FILE", help="telemetry file with every raw image")
    replay.add_argument(
        "--config", type=Path, metavar="FILE", help="runtime file whose gains and limits are tried"
    )
    replay.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="gain or limit that is tried, for instance control_ho.ki=0.5; repeatable",
    )
    replay.add_argument("--output", type=Path, metavar="FILE", help="write the replayed telemetry (HDF5)")
    replay.add_argument("--json", action="store_true", help="the whole result as JSON")

    streams = commands.add_parser("streams", parents=[common], help="look at the shared-memory streams")
    streams.set_defaults(module="streams")
    streams.add_argument("names", nargs="*", metavar="NAME", help="streams (default: those of the beams)")
    streams.add_argument("--directory", metavar="DIR", help="in place of streams.directory")
    streams.add_argument("--all", action="store_true", help="every stream of the directory")

    calibrate = commands.add_parser(
        "calibrate", parents=[common], help="measure the instrument and write calibration files; loops open"
    )
    calibrate.set_defaults(module="calibrate")
    calibrate.add_argument("--beam", type=int, action="append", metavar="N", help="beam; repeatable; all")

    doctor = commands.add_parser(
        "doctor",
        parents=[common],
        help="is this machine prepared? What to change; exit status 1 for a problem",
    )
    doctor.set_defaults(module="doctor")
    doctor.add_argument(
        "--seconds",
        type=_not_negative,
        default=3.0,
        metavar="S",
        help="time to look for stalls of the machine; 0: none (%(default)s)",
    )
    doctor.add_argument("--json", action="store_true", help="the findings as JSON")

    calibration = commands.add_parser("calibration", parents=[common], help="judge calibration files")
    calibration.set_defaults(module="calibration")
    calibration.add_argument("action", choices=("check",), help="check: exit status 1 when unstable")
    calibration.add_argument("file", type=Path, metavar="FILE", help="calibration file")
    calibration.add_argument(
        "--beam", type=int, action="append", metavar="N", help="beam; repeatable; all that the file has"
    )
    calibration.add_argument("--mask", metavar="NAME", help="phase mask (default: that of the configuration)")
    calibration.add_argument("--json", action="store_true", help="the whole report as JSON")
    return top


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, expected a positive number of seconds")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 to 3600 seconds")
    return value
