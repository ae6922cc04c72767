"""What the machine is worth for a real-time loop."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.beam.self_test import self_test as measure_machine
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json


@beam_command(waits=True)
def self_test(beam: Beam, seconds: float = 2.0, force: bool = False) -> dict[str, Json]:
    """Measure wake-up, compute and jitter on this machine, and say whether it is fit to close a loop.

    A second loop with this beam's parameters, priority and CPUs works on frames of its own at the beam's
    frame rate. Mirror and camera are not touched. Refused while a loop is closed: its frames would be late.
    The machine itself is watched meanwhile: times at which a CPU stood still are told apart from those that
    this program needs.

    Parameters
    ----------
    seconds : how long to measure, 0.1 to 60
    force : also while a loop is closed
    """
    return {"ok": True, **measure_machine(beam, seconds, force=force)}
