"""Every command of a beam, and the one door to them."""

from baldr_tango.commands import (
    automation,
    calibration,
    configuration,
    controllers,
    fields,
    injection,
    interaction,
    introspection,
    jobs,
    loops,
    machine,
    offsets,
    peers,
    probing,
    processing,
    references,
    telemetry,
    timing,
)
from baldr_tango.commands.door import execute, only_reads, runs_beside
from baldr_tango.commands.table import COMMANDS

__all__ = [
    "COMMANDS",
    "automation",
    "calibration",
    "configuration",
    "controllers",
    "execute",
    "fields",
    "injection",
    "interaction",
    "introspection",
    "jobs",
    "loops",
    "machine",
    "offsets",
    "only_reads",
    "peers",
    "probing",
    "processing",
    "references",
    "runs_beside",
    "telemetry",
    "timing",
]
