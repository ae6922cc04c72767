"""The Tango state of a beam, as a table: what must hold, and what the device then shows.

The rows are read from the top; the first that holds is the state. The manual prints the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tango import DevState

from baldr_tango.names import RtcState

ANY: Final = frozenset(RtcState)


@dataclass(frozen=True)
class Rule:
    """One row: all conditions must hold; None means "does not matter"."""

    state: DevState
    rtc: frozenset[RtcState]
    meaning: str
    """What an operator reads in the first line of Status."""
    alarm: bool | None = None
    """Something is wrong right now, although the beam works."""
    closed: bool | None = None
    """At least one of the two loops is closed."""

    def holds(self, rtc: RtcState, alarm: bool, closed: bool) -> bool:
        """Tell whether this row describes the beam."""
        return (
            rtc in self.rtc
            and (self.alarm is None or self.alarm == alarm)
            and (self.closed is None or self.closed == closed)
        )


def _rtc(*states: RtcState) -> frozenset[RtcState]:
    return frozenset(states)


STATE_TABLE: Final[tuple[Rule, ...]] = (
    Rule(
        DevState.FAULT,
        _rtc(RtcState.FAULT, RtcState.UNCONFIGURED),
        "the configuration is wrong or a safety limit opened the loops; see the reason",
    ),
    Rule(DevState.OFF, _rtc(RtcState.STOPPED), "the real-time thread is stopped; start_baldr starts it"),
    Rule(
        DevState.ALARM,
        _rtc(RtcState.STARTING, RtcState.RUNNING, RtcState.PAUSED),
        "the beam works, but something needs attention; see the reasons",
        alarm=True,
    ),
    Rule(DevState.INIT, _rtc(RtcState.STARTING), "starting: configuration, streams, compilation"),
    Rule(
        DevState.ON, _rtc(RtcState.PAUSED), "paused: frames are not processed, the mirror keeps its command"
    ),
    Rule(DevState.RUNNING, _rtc(RtcState.RUNNING), "at least one loop is closed", closed=True),
    Rule(DevState.STANDBY, _rtc(RtcState.RUNNING), "frames are processed, both loops are open", closed=False),
)
"""First matching row from the top."""


def rule_for(rtc: RtcState, *, alarm: bool, closed: bool) -> Rule:
    """Return the row of `STATE_TABLE` that describes a beam.

    Parameters
    ----------
    rtc : what the real-time thread is doing.
    alarm : True when something needs attention (silent camera, lost frames, telemetry error, ...).
    closed : True when at least one loop is closed.
    """
    return next(rule for rule in STATE_TABLE if rule.holds(rtc, alarm, closed))
