"""The slow thread of a beam: looks after streams, faults, statistics and the log, ten times a second."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from baldr_tango.beam.faults import RULES, recent_alarms
from baldr_tango.beam.garbage import collector
from baldr_tango.beam.state import BeamState, StateChange
from baldr_tango.beam.statistics import WINDOW_S, Figures, Statistics
from baldr_tango.errors import BaldrError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import RtcState
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.thread_names import show_thread_name

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

PERIOD_S: Final = 0.1
"""Time between two looks [s]."""

SETTLE_AFTER_S: Final = (0.0, 2.0, 10.0, 60.0)
"""When garbage is collected after a configuration [s]; once, unless the loop before it is still there."""


class Housekeeping:
    """Does for a beam what must not be done in the loop and need not be done at once."""

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: RealTimeLoop | None = None
        self._statistics: Statistics | None = None
        self._next_figures = 0.0
        self._frames = 0
        self._frame_time = 0.0
        self._settle_times: list[float] = []
        self._replaced: Callable[[], RealTimeLoop | None] = lambda: None
        self._has_tripped = False
        self._reported: BeamState | None = None
        self.alarms: tuple[str, ...] = ()
        """What is wrong right now although the beam works."""

    @property
    def figures(self) -> Figures:
        """Rates and averages of the last second."""
        return self._statistics.figures if self._statistics else Figures()

    def start(self) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._run, name=f"housekeeping-{self._beam.settings.beam}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread; bounded."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        self._thread = None

    def watch(self, loop: RealTimeLoop) -> None:
        """Look after another loop from now on."""
        if self._loop is not None:
            self._replaced = weakref.ref(self._loop)
        self._loop = loop
        self._statistics = Statistics(loop, self._beam.settings.realtime.window_s)
        self._frame_time = time.monotonic()
        self._frames = 0
        self._settle_times = [self._frame_time + after for after in SETTLE_AFTER_S]

    def _run(self) -> None:
        show_thread_name()
        # The first look comes at once: a beam can be told what to do before a period is over.
        while not self._stopping.is_set():
            try:
                self._look()
            except BaldrError as error:
                self._beam.log.error("housekeeping: %s", error)
            except Exception:
                self._beam.log.exception("housekeeping failed; trying again")
            self._stopping.wait(PERIOD_S)

    def _look(self) -> None:
        loop, now = self._loop, time.monotonic()
        if loop is not None and self._statistics is not None:
            loop.check_streams()
            self._handle_trip(loop)
            self._settle(loop, now)
            self._beam.judgement.look()
            if now >= self._next_figures:
                before = self._statistics.figures
                self._report(before, self._statistics.update())
                self._next_figures = now + WINDOW_S
            self.alarms = self._find_alarms(loop, now)
            self._beam.automation.look(now)
        self._tell_changes()
        self._beam.camera.look(now)
        self._beam.mask.look(now)

    def _settle(self, loop: RealTimeLoop, now: float) -> None:
        """Have garbage collected after a configuration; again when somebody still worked with the old one."""
        if self._settle_times and now >= self._settle_times[0] and loop.is_ready:
            collector.settle(self._beam.log)
            self._settle_times = self._settle_times[1:] if self._replaced() is not None else []

    def _handle_trip(self, loop: RealTimeLoop) -> None:
        tripped = bool(loop.arrays.state.counters[d.TRIP])
        if tripped and not self._has_tripped:
            self._beam.log.error("FAULT: %s", self._beam.state().fault)
            self._beam.open_after_trip()
            self._beam.save_telemetry()
        self._has_tripped = tripped

    def _find_alarms(self, loop: RealTimeLoop, now: float) -> tuple[str, ...]:
        """Collect what an operator should know now; the order is that of importance."""
        if not loop.is_ready or self._beam.state().rtc != RtcState.RUNNING:
            self._frame_time = now
            return ()
        counters = loop.counters
        found = []
        if counters[d.FRAMES] != self._frames:
            self._frames, self._frame_time = int(counters[d.FRAMES]), now
        silent = now - self._frame_time
        if loop.problem:
            found.append(f"streams: {loop.problem}")
        elif silent > self._beam.settings.streams.silent_after_s:
            found.append(f"no camera frame for {silent:.1f} s")
        found += recent_alarms(self.figures.counted)
        if counters[d.MUTED]:
            found.append(f"{counters[d.MUTED]} high-order modes muted; opening the loop frees them")
        error = self._beam.telemetry_status().error
        if error:
            found.append(f"telemetry: {error}")
        return tuple(found)

    def _report(self, before: Figures, now: Figures) -> None:
        """Log what the loop has counted, once a second at the most and only when it changes."""
        for rule in RULES:
            was, count = rule.happened(before.counted), rule.happened(now.counted)
            if rule.alarm and count and (not was or rule.counter == d.LOST):
                self._beam.log.warning("%d %s within the last second", count, rule.alarm)
            elif rule.alarm and was and not count:
                self._beam.log.info("no more %s", rule.alarm)

    def _tell_changes(self) -> None:
        state = self._beam.state()
        old = self._reported
        if old is None or _essence(old) != _essence(state):
            self._reported = state
            came_from = "" if old is None else f"{_summary(old)} -> "
            self._beam.log.info("state: %s%s", came_from, _summary(state))
            change = StateChange(old or state, state)
            for callback in list(self._beam.on_change):
                callback(change)


def _kinds(state: BeamState) -> tuple[str, ...]:
    """Alarms without their numbers, which change all the time."""
    return tuple("".join(c for c in reason if not c.isdigit()) for reason in state.alarm)


def _essence(state: BeamState) -> tuple[object, ...]:
    return (state.rtc, state.lo, state.ho, _kinds(state), state.fault, state.busy)


def _summary(state: BeamState) -> str:
    text = f"{state.rtc.name} LO {state.lo.name} HO {state.ho.name}"
    return f"{text} ({'; '.join(state.alarm)})" if state.alarm else text
