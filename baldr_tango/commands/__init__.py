"""Every command of a beam, and the one door to them."""

from baldr_tango.commands import calibration, configuration, fields, introspection, loops, peers, telemetry
from baldr_tango.commands.door import execute, runs_beside
from baldr_tango.commands.table import COMMANDS

__all__ = [
    "COMMANDS",
    "calibration",
    "configuration",
    "execute",
    "fields",
    "introspection",
    "loops",
    "peers",
    "runs_beside",
    "telemetry",
]
