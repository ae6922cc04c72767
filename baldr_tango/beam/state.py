"""States of a beam: what may happen when, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from baldr_tango.errors import StateError
from baldr_tango.names import LoopState, RtcState

TRANSITIONS: Final[dict[RtcState, dict[str, RtcState]]] = {
    RtcState.UNCONFIGURED: {
        "configure": RtcState.STARTING,
        "open": RtcState.UNCONFIGURED,
        "stop": RtcState.UNCONFIGURED,
    },
    RtcState.STARTING: {
        "configure": RtcState.STARTING,
        "ready": RtcState.RUNNING,
        "start": RtcState.STARTING,
        "open": RtcState.STARTING,
        "stop": RtcState.STOPPED,
    },
    RtcState.RUNNING: {
        "configure": RtcState.STARTING,
        "start": RtcState.RUNNING,
        "open": RtcState.RUNNING,
        "close": RtcState.RUNNING,
        "pause": RtcState.PAUSED,
        "resume": RtcState.RUNNING,
        "reset": RtcState.RUNNING,
        "stop": RtcState.STOPPED,
        "trip": RtcState.FAULT,
    },
    RtcState.PAUSED: {
        "configure": RtcState.STARTING,
        "start": RtcState.PAUSED,
        "open": RtcState.PAUSED,
        "close": RtcState.PAUSED,
        "pause": RtcState.PAUSED,
        "resume": RtcState.RUNNING,
        "reset": RtcState.PAUSED,
        "stop": RtcState.STOPPED,
        "trip": RtcState.FAULT,
    },
    RtcState.STOPPED: {
        "configure": RtcState.STARTING,
        "start": RtcState.STARTING,
        "open": RtcState.STOPPED,
        "stop": RtcState.STOPPED,
    },
    RtcState.FAULT: {
        "configure": RtcState.STARTING,
        "open": RtcState.FAULT,
        "reset": RtcState.RUNNING,
        "stop": RtcState.STOPPED,
    },
}
"""What each event leads to; an event that is not listed is refused."""

HINTS: Final = {
    RtcState.UNCONFIGURED: "load a configuration first: readBDRConfig",
    RtcState.STARTING: "wait until the beam is running",
    RtcState.STOPPED: "start_baldr starts it again",
    RtcState.FAULT: "acknowledge the fault first: reset_fault",
}
"""What an operator can do about a refusal."""


def after(state: RtcState, event: str) -> RtcState:
    """Return the state that `event` leads to; raise `StateError` when it is not possible now."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        hint = f"; {HINTS[state]}" if state in HINTS else ""
        raise StateError(f"cannot {event} while {state.name.lower()}{hint}") from None


@dataclass(frozen=True)
class BeamState:
    """What a beam is doing now."""

    rtc: RtcState
    lo: LoopState
    ho: LoopState
    alarm: tuple[str, ...] = ()
    """What is wrong although the beam works."""
    fault: str = ""
    """Why the beam does not work."""
    busy: str = ""
    """What the beam is waiting for or preparing."""
    notes: tuple[str, ...] = ()
    """What is worth knowing, and no alarm."""

    @property
    def message(self) -> str:
        """Several lines for people: state, loops, reasons."""
        lines = [f"RTC {self.rtc.name}, tip/tilt {self.lo.name}, high order {self.ho.name}"]
        lines += [f"fault: {self.fault}"] if self.fault else []
        lines += [self.busy] if self.busy else []
        lines += [f"alarm: {reason}" for reason in self.alarm]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True)
class StateChange:
    """A transition of a beam."""

    old: BeamState
    new: BeamState
