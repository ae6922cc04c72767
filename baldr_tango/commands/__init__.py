"""Every command of a beam, and the one door to them."""

from baldr_tango.commands import (
    calibration,
    configuration,
    controllers,
    fields,
    interaction,
    introspection,
    jobs,
    loops,
    peers,
    references,
    telemetry,
)
from baldr_tango.commands.door import execute, runs_beside
from baldr_tango.commands.table import COMMANDS

__all__ = [
    "COMMANDS",
    "calibration",
    "configuration",
    "controllers",
    "execute",
    "fields",
    "interaction",
    "introspection",
    "jobs",
    "loops",
    "peers",
    "references",
    "runs_beside",
    "telemetry",
]
