"""The Tango state of the whole instrument, as a table over the states of its beams.

The rows are read from the top; the first that holds is the state. The manual prints the same table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tango import DevState


@dataclass(frozen=True)
class GroupRule:
    """One row: the state of the instrument when a beam, or every beam, is in one of some states."""

    state: DevState
    beams: frozenset[DevState]
    meaning: str
    """What an operator reads in the first line of Status."""
    every: bool = False
    """True when the row asks for every beam, not for one."""

    def holds(self, states: Iterable[DevState]) -> bool:
        """Tell whether this row describes the instrument."""
        found = [state in self.beams for state in states]
        return all(found) if self.every else any(found)


def _of(*states: DevState) -> frozenset[DevState]:
    return frozenset(states)


GROUP_STATE_TABLE: Final[tuple[GroupRule, ...]] = (
    GroupRule(DevState.UNKNOWN, _of(DevState.UNKNOWN), "no beam answers", every=True),
    GroupRule(DevState.FAULT, _of(DevState.FAULT), "a beam is in FAULT; see its reason"),
    GroupRule(
        DevState.ALARM,
        _of(DevState.ALARM, DevState.UNKNOWN),
        "a beam needs attention or does not answer; the others work",
    ),
    GroupRule(DevState.INIT, _of(DevState.INIT), "a beam is starting"),
    GroupRule(DevState.RUNNING, _of(DevState.RUNNING), "at least one loop of a beam is closed"),
    GroupRule(DevState.STANDBY, _of(DevState.STANDBY), "all loops are open, a beam processes frames"),
    GroupRule(DevState.ON, _of(DevState.ON), "no beam processes frames, at least one is paused"),
    GroupRule(DevState.OFF, _of(DevState.OFF), "the real-time threads of all beams are stopped", every=True),
)
"""First matching row from the top."""

BEAM_STATES: Final = frozenset().union(*(rule.beams for rule in GROUP_STATE_TABLE))
"""States that a beam can have; any other is taken for UNKNOWN."""


def rule_for_beams(states: Iterable[DevState]) -> GroupRule:
    """Return the row of `GROUP_STATE_TABLE` that describes an instrument of beams in these states."""
    known = [state if state in BEAM_STATES else DevState.UNKNOWN for state in states]
    return next(rule for rule in GROUP_STATE_TABLE if rule.holds(known))
