"""Taking a dark: light off, new frames, dark, light on again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from baldr_tango.beam.frames import DEFAULT_FRAMES
from baldr_tango.beam.jobs import JobControl
from baldr_tango.errors import BackendError, StateError
from baldr_tango.names import RtcState

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

LAMP: Final = "SBB"
"""Broad-band calibration source, as the MDS calls it; it lights all beams."""

SILENT_S: Final = 2.0
"""Time without a new frame after which the camera counts as stopped [s]."""

_POLL_S: Final = 0.02


def take_dark(
    beam: Beam, job: JobControl, *, frames: int | None = None, settle_s: float = 1.0, lamp: str = LAMP
) -> dict[str, Any]:
    """Switch the light off, wait, take the dark, switch the light on again, whatever happens.

    The loops must be open: without light there is nothing to correct by.

    Parameters
    ----------
    frames : frames to average; None: `DEFAULT_FRAMES`, or what the telemetry keeps if that is less
    settle_s : time that the light takes to go out [s]
    lamp : name of the light source for the MDS

    Raises
    ------
    StateError : a loop is closed, or the loop does not run.
    BackendError : the MDS does not answer or refuses, or no frames come.
    """
    state = beam.state()
    loop = beam.loop
    if loop is None or state.rtc != RtcState.RUNNING or state.lo or state.ho:
        raise StateError("acquire_dark: the real-time loop must run with both loops open")
    wanted = min(frames or DEFAULT_FRAMES, loop.arrays.ring.horizon)
    try:
        job.progress(0.0, f"{lamp} off")
        _ask(beam, f"off {lamp}")
        job.pause(settle_s)
        begin = seen = loop.arrays.ring.write_index
        silent = 0.0
        while seen < begin + wanted:
            job.progress((seen - begin) / wanted, f"{wanted} dark frames")
            job.pause(_POLL_S)
            now = loop.arrays.ring.write_index
            silent = silent + _POLL_S if now == seen else 0.0
            if silent > SILENT_S or beam.loop is not loop:
                raise BackendError("acquire_dark: no frames come")
            seen = now
        reply = beam.references.update_dark(wanted)
    finally:
        _ask(beam, f"on {lamp}")
    return {**reply, "lamp": lamp}


def _ask(beam: Beam, text: str) -> None:
    answer = beam.send_mds(text).strip(" \r\n\0")
    if answer.startswith("NACK"):
        raise BackendError(f"the MDS refused {text!r}: {answer}")
