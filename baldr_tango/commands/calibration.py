"""What the calibration in force is worth."""

from __future__ import annotations

from typing import Final

from baldr_tango.beam import Beam
from baldr_tango.calibration.report import render
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import StateError
from baldr_tango.interface import Json

REPORT_WAIT_S: Final = 2.0
"""Longest wait for a report that is being made [s]; a Tango client gives up after 3 s."""


@beam_command(waits=True)
def calibration_report(beam: Beam) -> dict[str, Json]:
    """Judge the calibration in force: matrices, actuators, references, predicted stability, gain margin.

    The prediction holds for the gains in force.
    """
    report = beam.judgement.report(REPORT_WAIT_S)
    if report is None:
        if beam.loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        raise StateError("the calibration has not been judged yet; ask again")
    return {"ok": True, **report.as_dict(), "text": render(report)}
