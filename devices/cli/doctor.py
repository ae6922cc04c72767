"""``baldr doctor``: is this machine prepared, and what should be changed?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from devices.cli.connect import configuration
from devices.doctor.examination import examine
from devices.doctor.finding import ADVICE, OK, PROBLEM, Finding

_STYLES = {OK: "green", ADVICE: "yellow", PROBLEM: "bold red"}


def run(options: argparse.Namespace) -> int:
    """Examine the machine; the exit status is 1 when there is a problem."""
    console = Console(highlight=False)
    found = examine(configuration(options), options.seconds)
    if options.json:
        console.print_json(json.dumps([asdict(finding) for finding in found]))
    else:
        console.print(_table(found))
        numbers = {level: sum(finding.level == level for finding in found) for level in _STYLES}
        console.print(f"{numbers[PROBLEM]} problems, {numbers[ADVICE]} pieces of advice, {numbers[OK]} OK")
    return int(any(finding.level == PROBLEM for finding in found))


def _table(found: list[Finding]) -> Table:
    table = Table(pad_edge=False, show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        style = _STYLES[finding.level]
        table.add_row(f"[{style}]{finding.level}[/]", finding.name, _escaped(finding.text))
        if finding.fix:
            table.add_row("", "", f"[{style}]->[/] {_escaped(finding.fix)}")
    return table


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")
