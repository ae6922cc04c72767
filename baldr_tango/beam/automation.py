"""Loops that close and open by themselves: the decision as a pure function, and what carries it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from baldr_tango.beam.jobs import RUNNING
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.settings import AutomationSettings
from baldr_tango.errors import BaldrError, RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import LoopState, RtcState
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

CLOSE: Final = "close"
OPEN: Final = "open"

THRESHOLDS: Final[Mapping[str, str]] = {
    "close_on_strehl": "close_on_strehl_limit",
    "open_on_strehl": "open_on_strehl_limit",
    "open_on_snr": "open_on_flux_limit",
    "open_on_dm": "open_on_dm_limit",
}
"""Thresholds that the calibration file has, and what it calls them."""

_SAME_TIME_S: Final = 1e-9
_RETRY_S: Final = 5.0


@dataclass(frozen=True)
class Rules:
    """What is in force; see `AutomationSettings` for the meaning."""

    auto_close: bool = False
    auto_open: bool = False
    loops: str = "both"
    close_on_strehl: float = 0.0
    open_on_strehl: float = 0.0
    close_on_snr: float = 0.0
    open_on_snr: float = 0.0
    open_on_dm: float = 0.0
    """[DM units]; 0: no such limit."""
    dwell_close_s: float = 0.0
    dwell_open_s: float = 0.0
    smooth_s: float = 0.0

    def check(self) -> None:
        """Raise `RequestError` when loops would open at once after they have closed."""
        for name in ("strehl", "snr"):
            close, open_ = getattr(self, f"close_on_{name}"), getattr(self, f"open_on_{name}")
            if close < open_:
                raise RequestError(
                    f"close_on_{name} {close:g} is below open_on_{name} {open_:g}: the loops would chatter"
                )


@dataclass(frozen=True)
class Reading:
    """How a beam does at one moment, smoothed."""

    is_closed: bool
    """One of the loops concerned is closed."""
    strehl: float
    snr: float
    stroke: float
    """Largest absolute DM command [DM units]."""


@dataclass(frozen=True)
class Memory:
    """Since when there has been reason to act, without a break."""

    since: float | None = None
    """[s]"""
    is_closed: bool = False
    """State of the loops that the reason was for."""


@dataclass(frozen=True)
class Decision:
    """What to do now, if anything."""

    memory: Memory
    action: str = ""
    """close, open or nothing."""
    reason: str = ""


def decide(rules: Rules, memory: Memory, reading: Reading | None, now: float) -> Decision:
    """Decide whether to close or open the loops.

    Closing needs Strehl *and* SNR above their thresholds, opening Strehl *or* SNR below theirs, or the stroke
    above its own, in every reading for the dwell time. Between the thresholds everything stays as it is.

    Parameters
    ----------
    reading : None while nothing is known, which ends every dwell time
    now : time of the reading [s]
    """
    if reading is None:
        return Decision(Memory())
    if memory.is_closed != reading.is_closed:
        memory = Memory(None, reading.is_closed)
    if reading.is_closed:
        reason, dwell_s = (_reason_to_open(rules, reading) if rules.auto_open else ""), rules.dwell_open_s
    else:
        reason, dwell_s = (_reason_to_close(rules, reading) if rules.auto_close else ""), rules.dwell_close_s
    if not reason:
        return Decision(replace(memory, since=None))
    since = now if memory.since is None else memory.since
    if now - since < dwell_s - _SAME_TIME_S:
        return Decision(replace(memory, since=since))
    return Decision(
        Memory(None, reading.is_closed), OPEN if reading.is_closed else CLOSE, f"{reason} for {dwell_s:g} s"
    )


def _reason_to_close(rules: Rules, reading: Reading) -> str:
    if reading.strehl > rules.close_on_strehl and reading.snr > rules.close_on_snr:
        return (
            f"Strehl {reading.strehl:.3f} above {rules.close_on_strehl:g}"
            f" and SNR {reading.snr:.2f} above {rules.close_on_snr:g}"
        )
    return ""


def _reason_to_open(rules: Rules, reading: Reading) -> str:
    if reading.strehl < rules.open_on_strehl:
        return f"Strehl {reading.strehl:.3f} below {rules.open_on_strehl:g}"
    if reading.snr < rules.open_on_snr:
        return f"SNR {reading.snr:.2f} below {rules.open_on_snr:g}"
    if rules.open_on_dm > 0 and reading.stroke > rules.open_on_dm:
        return f"DM stroke {reading.stroke:.3f} above {rules.open_on_dm:g} DM units"
    return ""


def limits_in_force(calibration: Calibration, settings: AutomationSettings) -> dict[str, float]:
    """Return the limits of a calibration by their names, with those that the runtime file sets itself."""
    limits = {name: float(getattr(calibration, name)) for name in THRESHOLDS.values()}
    for name, limit in THRESHOLDS.items():
        value = getattr(settings, name)
        if value >= 0:
            limits[limit] = float(value)
    return limits


class Smoother:
    """Exponential mean of readings; begins anew when the loops close or open."""

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._time = 0.0

    def add(self, reading: Reading | None, now: float, time_constant_s: float) -> Reading | None:
        """Return the reading smoothed with those before; None stays None and forgets them."""
        last, elapsed = self._last, now - self._time
        if reading is not None and last is not None and last.is_closed == reading.is_closed:
            gain = 1.0 - math.exp(-elapsed / time_constant_s) if time_constant_s > 0 else 1.0
            reading = Reading(
                reading.is_closed,
                *(
                    getattr(last, name) + gain * (getattr(reading, name) - getattr(last, name))
                    for name in ("strehl", "snr", "stroke")
                ),
            )
        self._last, self._time = reading, now
        return reading


class Automation:
    """Closes and opens the loops of a beam by themselves; off until somebody switches it on.

    Loops are closed only while all of those concerned are open, and never again after somebody else has
    opened them (an operator, a safety limit) until somebody closes them or calls `set`. While a long command
    runs they are not closed.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._own = {
            name: getattr(beam.settings.automation, name)
            for name in Rules.__dataclass_fields__
            if name not in THRESHOLDS
        }
        self._memory = Memory()
        self._smoother = Smoother()
        self._loop: RealTimeLoop | None = None
        self._next = 0
        self._was_closed = False
        self._not_before = 0.0
        self.is_suspended = False
        """Loops were opened by somebody else: they are not closed by themselves."""
        self.last_action = ""
        """What was done last, and why."""

    @property
    def rules(self) -> Rules:
        """What is in force."""
        limits = self._beam.calibration_limits
        thresholds: dict[str, Any] = {name: limits.get(limit, 0.0) for name, limit in THRESHOLDS.items()}
        return Rules(**self._own, **thresholds)

    @property
    def text(self) -> str:
        """State in a few words."""
        rules = self.rules
        if not (rules.auto_close or rules.auto_open):
            return "off"
        doing = " and ".join(
            word for word, on in (("closes", rules.auto_close), ("opens", rules.auto_open)) if on
        )
        return f"suspended: loops were opened by hand or by a fault; {doing}" if self.is_suspended else doing

    def set(self, **changes: Any) -> Rules:
        """Change rules, all at once; ends a suspension.

        Raises
        ------
        RequestError : the loops would chatter; nothing has changed.
        """
        with self._beam.exclusive:
            new = replace(self.rules, **changes)
            if new.auto_close or new.auto_open:
                new.check()
            self._own = {name: getattr(new, name) for name in self._own}
            limits = {limit: getattr(new, name) for name, limit in THRESHOLDS.items() if name in changes}
            self._beam.calibration_limits = {**self._beam.calibration_limits, **limits}
            self._memory = Memory()
            self.is_suspended = False
        if changes:
            self._beam.log.info(
                "automation: %s", ", ".join(f"{name} {value}" for name, value in changes.items())
            )
        return new

    def look(self, now: float) -> None:
        """Take a reading and act on it, if it is time to; called by housekeeping, never waits long.

        now : CLOCK_MONOTONIC [s].
        """
        rules = self.rules
        reading = self._smoother.add(self._read(rules), now, rules.smooth_s)
        self._notice_others(rules)
        decision = decide(rules, self._memory, reading, now)
        if decision.action == CLOSE and (self.is_suspended or self._beam.jobs.status.state == RUNNING):
            decision = Decision(Memory())
        if decision.action and (now < self._not_before or not self._act(rules, decision, now)):
            return  # the reason stays: it is tried again
        self._memory = decision.memory

    def _read(self, rules: Rules) -> Reading | None:
        """Average the frames since the last look; None without frames."""
        loop = self._beam.loop
        if loop is None or self._beam.state().rtc != RtcState.RUNNING:
            return None
        ring = loop.arrays.ring
        if loop is not self._loop:
            self._loop, self._next = loop, ring.write_index
        written = ring.write_index
        start = max(self._next, written - ring.capacity // 2)
        _, records = ring.read(start, written, ("strehl", "snr", "command", "flags"))
        self._next = written
        if not records["flags"].size:
            return None
        used = records["flags"] & d.FLAG_SKIPPED == 0
        return Reading(
            is_closed=self._is_closed(loop, rules),
            # Frames without usable flux have neither.
            strehl=float(records["strehl"][used].mean()) if used.any() else 0.0,
            snr=float(records["snr"][used].mean()) if used.any() else 0.0,
            stroke=float(np.abs(records["command"]).max(axis=1).mean()),
        )

    @staticmethod
    def _is_closed(loop: RealTimeLoop, rules: Rules) -> bool:
        concerned = {"both": 3, "lo": 1, "ho": 2}[rules.loops]
        return bool(int(loop.arrays.state.counters[d.LOOPS]) & concerned)

    def _notice_others(self, rules: Rules) -> None:
        """See whether somebody else has opened or closed the loops."""
        loop = self._beam.loop
        is_closed = loop is not None and self._is_closed(loop, rules)
        if is_closed:
            self.is_suspended = False
        elif self._was_closed:
            self.is_suspended = True
            if rules.auto_close:
                self._beam.log.info("automation: loops were opened; they are not closed by themselves now")
        self._was_closed = is_closed

    def _act(self, rules: Rules, decision: Decision, now: float) -> bool:
        """Close or open; False when that has to wait."""
        beam = self._beam
        if not beam.exclusive.acquire(blocking=False):
            return False
        try:
            state = LoopState.CLOSED if decision.action == CLOSE else LoopState.OPEN
            beam.set_loops(
                lo=state if rules.loops in ("both", "lo") else None,
                ho=state if rules.loops in ("both", "ho") else None,
            )
            # Who opens them again within the next moment is noticed, too.
            self._was_closed = decision.action == CLOSE
        except BaldrError as error:
            self._not_before = now + _RETRY_S
            beam.log.warning("automation: cannot %s the loops: %s", decision.action, error)
            return False
        finally:
            beam.exclusive.release()
        past = "closed" if decision.action == CLOSE else "opened"
        self.last_action = f"{past}: {decision.reason}"
        beam.log.warning("automation: loops %s (%s): %s", past, rules.loops, decision.reason)
        return True
