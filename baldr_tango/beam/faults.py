"""What can be wrong with frames, controllers and commands: one row per rule of the loop.

Alarms, reasons of a fault and the manual's table are made of these rows; the rules themselves are in the
compiled loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from baldr_tango.kernels import loop_data as d


@dataclass(frozen=True)
class FaultRule:
    """One rule."""

    value: str
    """Published value that counts it."""
    counter: int
    """Its place in the loop's counters."""
    cause: str
    effect: str
    """What the loop does about it."""
    keys: tuple[str, ...] = ()
    """Keys of the runtime file, table ``limits``."""
    flag: str = ""
    """Bit of the telemetry's flags: name of a member of `FrameFlag`."""
    alarm: str = ""
    """What an operator reads when it has happened within the last second, after the number."""
    alarm_counter: int = -1
    """Counter that the alarm looks at, if it is another one."""

    def happened(self, counted: Mapping[int, int]) -> int:
        """How often it deserved an alarm, of what was counted within a time."""
        return counted.get(self.alarm_counter if self.alarm_counter >= 0 else self.counter, 0)


_NOT_USED: Final = "the frame is not used, the mirror keeps its command"
_FAULT: Final = "loops open, mirror flat, FAULT"

RULES: Final[tuple[FaultRule, ...]] = (
    FaultRule(
        "lost_frames",
        d.LOST,
        "the camera counted frames that the loop did not see",
        "the loop goes on with the next frame",
        flag="MISSED_BEFORE",
        alarm="frames lost",
    ),
    FaultRule(
        "torn_frames",
        d.TORN,
        "the camera kept overwriting a frame, or never finished it",
        f"after 10 ms {_NOT_USED}",
        alarm="unfinished frames",
    ),
    FaultRule(
        "read_errors",
        d.READ_ERRORS,
        "the stream's file ended before the frame did",
        f"{_NOT_USED}; the streams are opened again",
        alarm="frames that could not be read",
    ),
    FaultRule(
        "wrong_format_frames",
        d.WRONG_FORMAT,
        "the camera stream changed its shape or type while it was open",
        f"{_NOT_USED}; the streams are opened again, which says what does not fit",
        alarm="frames of another shape or type",
    ),
    FaultRule(
        "no_flux_frames",
        d.NO_FLUX,
        "the flux is not above its limit, is negative or not finite",
        _NOT_USED,
        ("min_flux_adu",),
        "NO_FLUX",
        "frames without usable flux",
    ),
    FaultRule(
        "saturated_frames",
        d.SATURATED,
        "too many good pixels are saturated",
        _NOT_USED,
        ("saturation_adu", "wrong_pixels"),
        "SATURATED",
        "frames with too many saturated pixels",
    ),
    FaultRule(
        "negative_frames",
        d.NEGATIVES,
        "too many good pixels are far below the dark",
        _NOT_USED,
        ("negative_adu", "wrong_pixels"),
        "NEGATIVE",
        "frames with too many pixels below the dark",
    ),
    FaultRule(
        "frozen_frames",
        d.FROZEN,
        "the camera counts on, but the pixels are those of the frame before",
        f"counted; after a number in a row {_NOT_USED}",
        ("frozen_frames",),
        "FROZEN",
        "frames of a frozen picture",
        d.FROZEN_SKIPPED,
    ),
    FaultRule(
        "not_finite_frames",
        d.NOT_FINITE,
        "the signal or a mode error is not finite: a wrong reference, reconstructor or dark",
        _NOT_USED,
        flag="NOT_FINITE",
        alarm="frames whose signal was not finite",
    ),
    FaultRule(
        "lo_restarts",
        d.LO_LIMITED,
        "the tip/tilt map is beyond its limit, or not finite",
        "that controller restarts in the same frame",
        ("lo_command",),
        "LIMITED",
    ),
    FaultRule(
        "ho_resets",
        d.HO_LIMITED,
        "a high-order mode is beyond its limit, or not finite",
        "that mode restarts in the same frame; after a number of times it is muted until the loop opens,"
        " which is an alarm",
        ("ho_mode", "ho_violations"),
        "LIMITED",
    ),
    FaultRule(
        "runaway_level",
        d.RUNAWAY,
        "closed loops keep running into their limits, or ask for too large a command for long",
        _FAULT,
        ("runaway", "command_rms"),
        "TRIPPED",
    ),
    FaultRule(
        "command_violations",
        d.COMMAND_LIMITED,
        "the whole command is beyond its limit, or not finite",
        f"it is not written; {_FAULT}",
        ("command",),
        "TRIPPED",
    ),
    FaultRule(
        "write_errors",
        d.WRITE_ERRORS,
        "a command cannot be written to the DM channel, or only in part",
        f"the mirror keeps what it has; after a number in a row {_FAULT}, and the flat is tried again until"
        " it is written",
        ("write_failures",),
        "WRITE_FAILED",
        "mirror commands that could not be written",
    ),
)
"""In the order in which a frame meets them."""

TRIP_REASONS: Final[Mapping[int, str]] = {
    d.TRIP_LIMIT: "the DM command exceeded its limit",
    d.TRIP_NOT_FINITE: "the DM command was not finite",
    d.TRIP_RUNAWAY: "the controllers ran away: they kept running into their limits",
    d.TRIP_WRITE: "DM commands could not be written",
}
"""Why the loops were opened, by `loop_data.TRIP_*`."""


def trip_text(trip: int, *, flat: bool) -> str:
    """Say why a safety rule opened the loops, and what to do.

    trip : one of `loop_data.TRIP_*`; flat : the mirror has got its flat command
    """
    mirror = "mirror flat" if flat else "the mirror could not be flattened yet"
    return f"{TRIP_REASONS[trip]}; loops opened, {mirror}; reset_fault acknowledges"


def recent_alarms(counted: Mapping[int, int]) -> list[str]:
    """Say what deserves an alarm, of what was counted within the last second."""
    return [
        f"{rule.happened(counted)} {rule.alarm} within the last second"
        for rule in RULES
        if rule.alarm and rule.happened(counted)
    ]
