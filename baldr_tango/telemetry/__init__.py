"""Telemetry: the ring that the loop fills, the thread that writes it to disk and the reader of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baldr_tango.telemetry.reader import TelemetryFile
    from baldr_tango.telemetry.ring import TelemetryRing
    from baldr_tango.telemetry.writer import TelemetryStatus, TelemetryWriter

__all__ = ["TelemetryFile", "TelemetryRing", "TelemetryStatus", "TelemetryWriter"]

_HOMES = {
    "TelemetryFile": "reader",
    "TelemetryRing": "ring",
    "TelemetryStatus": "writer",
    "TelemetryWriter": "writer",
}


def __getattr__(name: str) -> Any:
    """Load a class when it is first used: who only reads files need not wait for the compiler's import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
