"""Recording, saving and polling telemetry."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json
from baldr_tango.telemetry import polling

REPLY_TIME_S: Final = 0.8
"""Longest wait for a file to be complete [s]: displays give up on a reply after 1 s."""

_SECONDS: Final = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*s\s*")
_CAPACITY: Final = 'expected a number of frames, or a time: "5 s" or {"seconds": 5}'


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


@beam_command()
def set_telem_capacity(beam: Beam, capacity: Any) -> dict[str, Json]:
    """Set how many of the newest frames are saved, polled and averaged; records that are there stay.

    Parameters
    ----------
    capacity : frames, for instance 1000, or a time: "5 s" or {"seconds": 5}
    """
    frames = _frames(capacity, beam.saving.frame_rate_hz)
    beam.saving.set_capacity(frames)
    rate_hz = beam.saving.frame_rate_hz
    return {
        "status": f"Telemetry capacity updated to {frames}",
        "ok": True,
        "capacity": frames,
        "seconds": frames / rate_hz if rate_hz > 0 else None,
    }


def _frames(capacity: Any, rate_hz: float) -> int:
    """Return the number of frames that a request means; seconds are rounded up to whole frames."""
    seconds: Any = None
    if isinstance(capacity, dict) and set(capacity) == {"frames"}:
        capacity = capacity["frames"]
    elif isinstance(capacity, dict) and set(capacity) == {"seconds"}:
        seconds = capacity["seconds"]
    elif isinstance(capacity, str) and (match := _SECONDS.fullmatch(capacity)):
        seconds = _number(match[1])
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
            raise RequestError(f"set_telem_capacity: time {seconds!r}: expected seconds, more than 0")
        if rate_hz <= 0:
            raise RequestError("set_telem_capacity: the frame rate is not known; give a number of frames")
        return math.ceil(round(seconds * rate_hz, 6))
    whole = isinstance(capacity, int) or (isinstance(capacity, float) and capacity.is_integer())
    if isinstance(capacity, bool) or not whole:
        raise RequestError(f"set_telem_capacity: found {capacity!r}; {_CAPACITY}")
    return int(capacity)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@beam_command(waits=True)
def save_telemetry(beam: Beam) -> dict[str, Json]:
    """Save the newest frames in memory to a file of their own, while the loop goes on.

    The reply comes when the file is complete; while it is not within 0.8 s, with ``pending``: it is there,
    under the name given, as soon as it is complete.
    """
    saved = beam.saving.save()
    is_pending = not saved.done.wait(REPLY_TIME_S)
    saved.check()
    reply: dict[str, Json] = {
        "ok": True,
        "path": str(saved.path),
        "frames": saved.frames,
        "format": saved.format,
    }
    return {**reply, "pending": True} if is_pending else reply


@beam_command()
def set_telem_save_format(beam: Beam, format: str) -> dict[str, Json]:
    """Choose the format of save_telemetry.

    Parameters
    ----------
    format : "fits" (needs astropy), "json" or "hdf5"
    """
    chosen = beam.saving.set_format(format)
    return {"status": "Telemetry format updated successfully", "ok": True, "format": chosen}


@beam_command()
def set_telem_save_path(beam: Beam, path: str) -> dict[str, Json]:
    """Choose the directory of save_telemetry; it is created.

    Parameters
    ----------
    path : absolute path of a directory, as the server's host sees it
    """
    directory = beam.saving.set_directory(path)
    return {"status": "Telemetry save path updated", "ok": True, "new_path": f"{directory}".rstrip("/") + "/"}


@beam_command(reads=True)
def poll_telem_vector(beam: Beam, field: str) -> dict[str, Json]:
    """Read the newest sample of a vector telemetry field.

    Parameters
    ----------
    field : name, in any case, for instance e_LO, img or command
    """
    return _poll(beam, field, vector=True)


@beam_command(reads=True)
def poll_telem_scalar(beam: Beam, field: str) -> dict[str, Json]:
    """Read the newest sample of a scalar telemetry field.

    Parameters
    ----------
    field : name, in any case, for instance snr, flux or timestamp
    """
    return _poll(beam, field, vector=False)


def _poll(beam: Beam, field: str, *, vector: bool) -> dict[str, Json]:
    polling.check_name(field, vector=vector)
    if beam.loop is None:
        return {"ok": False, "error": "insufficient data", "size": 0}
    return polling.newest(beam.loop.arrays.ring, field, vector=vector)
