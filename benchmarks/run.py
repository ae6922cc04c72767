"""Runs the groups of rows, prints the table with its verdicts, writes the report on request."""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.machine import describe
from benchmarks.report import Entry, table, write
from benchmarks.row import Row, middle


@dataclass(frozen=True)
class Group:
    """Rows that are measured together.

    Parameters
    ----------
    name : as it is given to ``--rows``.
    module : module of this package; its function ``rows() -> list[Row]`` measures once.
    about : what is measured.
    minutes : how long that takes.
    is_endurance : its ``rows`` take the number of minutes.
    """

    name: str
    module: str
    about: str
    minutes: float
    is_endurance: bool = False


GROUPS: Final = (
    Group("compute", "compute", "one frame, compute only, beside C++/Eigen and the memory floor", 1),
    Group("iteration", "iteration", "a full iteration with all telemetry over its computation", 0.5),
    Group("dense", "dense", "dense products of 1000 and 4000 actuators beside the memory's bandwidth", 0.5),
    Group("end_to_end", "end_to_end", "from the camera's post to the command written", 1),
    Group("load", "load", "lateness and replies while 24 clients hammer", 3),
    Group("overhead", "overhead", "processor time outside the loops", 1.5),
    Group("full_rate", "full_rate", "four beams at 2 kHz, all telemetry on the disk", 11, True),
    Group("start", "start", "start of the server to the first corrected frame", 2),
)


def measure(group: Group, minutes: float | None = None) -> list[Row]:
    """Measure the rows of one group once.

    minutes : length of the endurance rows, in place of the ten minutes of their goal
    """
    module = importlib.import_module(f"benchmarks.{group.module}")
    rows: list[Row] = module.rows(minutes) if minutes and group.is_endurance else module.rows()
    return rows


def tell(text: str) -> None:
    """Say something while the measurement goes on; the table goes to the standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def medians(runs: list[dict[str, list[Row]]], groups: Iterable[Group]) -> list[tuple[str, Row]]:
    """Return (group, row) with the medians over the runs, in the order of the table."""
    found = []
    for group in groups:
        names = [row.name for row in runs[-1][group.name]]
        for name in names:
            same = [row for run in runs for row in run[group.name] if row.name == name]
            found.append((group.name, middle(same)))
    return found


def parser() -> argparse.ArgumentParser:
    """Return the command line's description."""
    listing = "\n".join(f"  {group.name:12} {group.about}, {group.minutes:g} min" for group in GROUPS)
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the product beside its goals.",
        epilog=f"groups of rows:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--rows", metavar="GROUP[,GROUP]", help="only these groups of rows (see below); default: all"
    )
    made.add_argument("--runs", type=int, default=1, help="runs of everything; the medians are shown (1)")
    made.add_argument("--minutes", type=float, help="length of the endurance rows, to try them (10)")
    made.add_argument("--write", action="store_true", help="put the rows into benchmarks/results/")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 0 whatever the verdicts are."""
    cli = parser()
    options = cli.parse_args(arguments)
    by_name = {group.name: group for group in GROUPS}
    wanted = options.rows.split(",") if options.rows else list(by_name)
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        cli.error(f"--rows {','.join(unknown)}: there are {', '.join(by_name)}")
    if options.runs < 1:
        cli.error(f"--runs {options.runs}: expected at least 1")
    groups = [group for group in GROUPS if group.name in wanted]
    runs: list[dict[str, list[Row]]] = []
    for run in range(options.runs):
        runs.append({})
        for group in groups:
            began = time.monotonic()
            runs[-1][group.name] = measure(group, options.minutes)
            tell(f"run {run + 1}/{options.runs}: {group.name}, {time.monotonic() - began:.0f} s")
    machine = describe()
    found = medians(runs, groups)
    for name, value in machine.items():
        sys.stdout.write(f"{name}: {value}\n")
    sys.stdout.write("\n" + "\n".join(table(row for _, row in found)) + "\n")
    if options.write:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        entries = [Entry(name, row, options.runs, today, machine) for name, row in found]
        for file in write(entries, [group.name for group in GROUPS]):
            tell(f"written: {file}")
    return 0
