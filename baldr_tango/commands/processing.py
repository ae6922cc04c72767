"""Running mean of the signal, and bursts of non-destructive reads."""

from __future__ import annotations

from typing import Any

from baldr_tango.beam import Beam
from baldr_tango.commands import forms
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json


@beam_command()
def change_boxcar(beam: Beam, frames: int) -> dict[str, Json]:
    """Average the signal over several frames, the newest with the largest weight.

    The weights are N, N-1, ... 1 from the newest of N frames to the oldest. Controllers take the mean from
    the frame on that completes it; telemetry keeps the signal of each frame.

    Parameters
    ----------
    frames : N; 1 switches the mean off
    """
    beam.processing.set_boxcar(frames)
    return {"ok": True, "boxcar": beam.processing.boxcar}


@beam_command(waits=True)
def configure_burst(beam: Beam, phase: Any = None) -> dict[str, Json]:
    """Fit a slope to non-destructive reads, as many per reset as the camera says.

    Each frame of such a camera shows the charge since the reset; its light is the least-squares slope of the
    reads since then. The first read after a reset gives none: the mirror keeps its command. A camera in a
    mode that subtracts the reset itself (globalresetcds) switches this off. {"reads": 8} asks nobody; 0 or 1
    switches it off. Where the camera server sends slopes already (its ndmr_mode), leave it off.

    Parameters
    ----------
    phase : time of the first read after the reset in seconds, without influence on a slope; or {"reads": N}
    """
    if isinstance(phase, dict):
        given = forms.named((phase,), ("reads", "phase"), 1)
        reads = forms.integer("reads", given["reads"])
        beam.processing.set_reads(reads)
        return {"ok": True, "reads": beam.processing.reads, "burst": beam.processing.reads > 1}
    phase_s = 0.0
    if phase not in (None, "", []):
        phase_s = forms.number("phase", phase)
    if phase_s < 0:
        raise RequestError(f"phase: found {phase_s:g} s, expected 0 or more")
    readout = beam.processing.ask_camera()
    beam.processing.set_reads(readout.reads)
    return {
        "ok": True,
        "reads": readout.reads,
        "burst": readout.reads > 1,
        "frequency": readout.frame_rate_hz,
        "camera_mode": readout.mode,
        "phase": phase_s,
    }
