"""Long commands at work: their progress, and how to end them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json

CANCEL_TIMEOUT_S: Final = 2.0
"""Longest wait for a cancelled job to have put everything back [s]; a Tango client gives up after 3 s."""


@beam_command(reads=True)
def job_status(beam: Beam) -> dict[str, Json]:
    """Tell what the long command does that is running, or how the last one has ended."""
    return {"ok": True, **asdict(beam.jobs.status)}


@beam_command(waits=True)
def job_cancel(beam: Beam) -> dict[str, Json]:
    """End the long command that is running; it puts back what it has changed on mirror and settings."""
    return {"ok": True, **asdict(beam.jobs.cancel(CANCEL_TIMEOUT_S))}
