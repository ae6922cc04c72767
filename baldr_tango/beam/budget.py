"""Where the time of a frame goes, stage by stage, measured by the running loop when somebody asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from baldr_tango.beam.changes import put_in_force
from baldr_tango.beam.jobs import JobControl, JobResult
from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import RtcState
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.rtc.histogram import percentile_us

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

STAGES: Final = {
    "wait": d.STAGE_WAIT,
    "read": d.STAGE_READ,
    "reconstruct": d.STAGE_RECONSTRUCT,
    "control": d.STAGE_CONTROL,
    "write": d.STAGE_WRITE,
    "record": d.STAGE_RECORD,
    "latency": d.STAGE_LATENCY,
}
"""Stages in their order, and at the end what the attributes ``latency_*`` measure: from read to write."""

SILENT_S: Final = 2.0
"""Time without a timed frame after which the measurement is given up [s]."""

_LOOK_S: Final = 0.02


def take_budget(beam: Beam, control: JobControl, *, frames: int) -> JobResult:
    """Have the loop time the stages of its next frames; return median, 99th percentile and maximum of each.

    Frames that move no mirror (without flux, after a trip) are not timed.

    Parameters
    ----------
    frames : number of frames

    Raises
    ------
    StateError : the beam is not running, or its loop gets no frames.
    """
    rtc = beam.state().rtc
    loop = beam.loop
    if loop is None or rtc != RtcState.RUNNING:
        raise StateError(
            f"latency_budget: the beam is {rtc.name.lower()}; stages are timed while it is running"
        )
    epoch = loop.slots.switch(d.BUDGET_EPOCH) + 1
    put_in_force(loop, {d.BUDGET_EPOCH: epoch, d.BUDGET_FRAMES: frames})
    try:
        _wait(beam, loop, control, frames)
    finally:
        put_in_force(loop, {d.BUDGET_FRAMES: 0, d.BUDGET_EPOCH: epoch + 1} if _left(loop) else {})
    return {
        "ok": True,
        "frames": frames,
        "waiting": loop.waiting.mode if loop.waiting is not None else "",
        "unit": "us",
        "stages": {name: _figures(loop, stage) for name, stage in STAGES.items()},
    }


def _left(loop: RealTimeLoop) -> int:
    return int(loop.arrays.state.counters[d.BUDGET_LEFT])


def _wait(beam: Beam, loop: RealTimeLoop, control: JobControl, frames: int) -> None:
    last, since = frames, time.monotonic()
    while left := _left(loop):
        if left != last:
            last, since = left, time.monotonic()
        if beam.loop is not loop or time.monotonic() - since > SILENT_S:
            raise StateError(f"latency_budget: {frames - left} of {frames} frames timed; then no more came")
        control.progress(1.0 - left / frames, "timing frames")
        control.pause(_LOOK_S)


def _figures(loop: RealTimeLoop, stage: int) -> dict[str, Any] | None:
    """Figures of one stage [us]; None when nothing could be measured."""
    bins = loop.arrays.state.stage_bins[stage].copy()
    if not bins.any():
        return None
    longest = int(loop.arrays.state.stage_max[stage]) / 1000.0
    figures = {f"p{percent}": min(percentile_us(bins, percent), longest) for percent in (50, 99)}
    return {**{name: round(value, 3) for name, value in figures.items()}, "max": longest}
