"""Recording telemetry."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json


def _record(beam: Beam, on: bool) -> dict[str, Json]:
    state = beam.record(on)
    return {
        "ok": True,
        "telemetry": on,
        "directory": str(beam.settings.telemetry.directory),
        "file": str(state.file or ""),
        "error": state.error or None,
    }


@beam_command()
def telem_on(beam: Beam) -> dict[str, Json]:
    """Record every frame to disk from now on."""
    return _record(beam, True)


@beam_command()
def telem_off(beam: Beam) -> dict[str, Json]:
    """End the recording; what is in the ring is still written."""
    return _record(beam, False)
