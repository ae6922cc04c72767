"""``baldr status``: the beams of a running server."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from tango import DevState

from devices.cli.connect import connect
from devices.cli.table import beam_table, problems


def run(options: argparse.Namespace) -> int:
    """Show the beams; the exit status says whether all of them answer and none is in FAULT."""
    console = Console(highlight=False)
    beams = connect(options)
    reports = [beam.report() for beam in beams]
    if options.json:
        found = {
            str(beam.beam): json.loads(beam.run("status_json")) if report.is_reachable else None
            for beam, report in zip(beams, reports, strict=True)
        }
        console.print_json(json.dumps(found))
    else:
        console.print(beam_table(reports))
        for problem in problems(reports):
            console.print(problem, markup=False)
    return int(any(report.state in (DevState.UNKNOWN, DevState.FAULT) for report in reports))
