"""How a loop waits for its frames, and whether the machine can afford it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.rtc.scheduling import usable_cpus
from baldr_tango.rtc.throttling import LIFT_THROTTLING, Throttling, read_throttling

SEMAPHORE: Final = "semaphore"
SPIN: Final = "spin"
SPIN_THEN_WAIT: Final = "spin_then_wait"


@dataclass(frozen=True)
class Spinner:
    """A thread that never sleeps while it waits."""

    cpus: frozenset[int]
    """CPUs on which it may run."""
    is_fifo: bool
    """Nobody of normal scheduling gets a CPU from it."""


@dataclass(frozen=True)
class Plan:
    """How one loop waits."""

    mode: str
    """One of `SEMAPHORE`, `SPIN`, `SPIN_THEN_WAIT`."""
    spin_ns: int
    """Time for which the camera's counter is polled before the thread goes to sleep [ns]; 0: not at all."""
    notes: tuple[str, ...] = ()
    """What an operator should know about it."""


def plan_waiting(
    settings: RealtimeSettings,
    spinner: Spinner,
    others: tuple[Spinner, ...],
    machine: frozenset[int],
    throttling: Throttling,
    longest_ns: int,
    period_ns: int,
) -> Plan:
    """Choose how a loop waits: as configured, unless that would take the CPUs of other loops away.

    Parameters
    ----------
    spinner : the loop's thread.
    others : loops of this process that never sleep already.
    machine : CPUs that this process may use.
    longest_ns : longest wait for a frame [ns]; who polls for that long never sleeps.
    period_ns : expected time between two frames [ns]; 0: unknown.
    """
    if settings.waiting == SEMAPHORE:
        return Plan(SEMAPHORE, 0)
    spin_ns = longest_ns if settings.waiting == SPIN else min(round(settings.spin_us * 1000.0), longest_ns)
    plan = Plan(settings.waiting, spin_ns)
    if settings.waiting == SPIN_THEN_WAIT and not 0 < period_ns <= spin_ns:
        return plan
    what = f"waiting = {settings.waiting!r}"
    crowd = _crowd((*others, spinner), machine)
    if crowd and spinner.is_fifo:
        text = f"{what} with SCHED_FIFO: {crowd}, they would starve one another"
        return Plan(SEMAPHORE, 0, (f"{text}; waiting on the semaphore instead",))
    notes = []
    if crowd:
        notes.append(f"{what}: {crowd}; expect jitter of milliseconds")
    if spinner.is_fifo and throttling.pause_s > 0.0:
        notes.append(
            f"{what} with SCHED_FIFO: the kernel stops such threads for {1e3 * throttling.pause_s:g} ms"
            f" in each {1e-3 * throttling.period_us:g} ms (sched_rt_runtime_us {throttling.runtime_us});"
            f" the administrator lifts this with: {LIFT_THROTTLING}"
        )
    return replace(plan, notes=tuple(notes))


def _crowd(spinners: tuple[Spinner, ...], machine: frozenset[int]) -> str:
    """Say for which CPUs there are too many threads that never sleep; empty when there are enough.

    One CPU of the machine stays free for everything else. Threads fit onto their CPUs when no set of CPUs
    has more of them than members (Hall's theorem).
    """
    unions = {machine}
    for count in range(1, len(spinners) + 1):
        unions |= {
            frozenset().union(*(s.cpus for s in some)) for some in itertools.combinations(spinners, count)
        }
    for cpus in sorted(unions, key=lambda one: (len(one), sorted(one))):
        number = sum(s.cpus <= cpus for s in spinners)
        free = len(cpus) - 1 if cpus >= machine else len(cpus)
        if number > free:
            rest = ", less one for everything else" if cpus >= machine else ""
            return f"{number} spinning loops on {len(cpus)} CPUs ({', '.join(map(str, sorted(cpus)))}){rest}"
    return ""


class SpinningLoops:
    """The loops of a process that never sleep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spinners: list[Spinner] = []
        self._machine = frozenset(usable_cpus())
        self._warned: set[str] = set()

    @contextmanager
    def waiting(
        self, settings: RealtimeSettings, longest_ns: int, period_ns: int, log: logging.Logger
    ) -> Iterator[Plan]:
        """Plan how the calling thread waits, with the CPUs and the scheduling that it has now.

        What the plan has to say is logged when it is new.
        """
        spinner = Spinner(frozenset(os.sched_getaffinity(0)), os.sched_getscheduler(0) == os.SCHED_FIFO)
        with self._lock:
            plan = plan_waiting(
                settings,
                spinner,
                tuple(self._spinners),
                self._machine,
                read_throttling(),
                longest_ns,
                period_ns,
            )
            never_sleeps = plan.spin_ns > 0 and (plan.mode == SPIN or 0 < period_ns <= plan.spin_ns)
            if never_sleeps:
                self._spinners.append(spinner)
        for note in plan.notes:
            if f"{log.name} {note}" not in self._warned:
                self._warned.add(f"{log.name} {note}")
                log.warning("%s", note)
        try:
            yield plan
        finally:
            if never_sleeps:
                with self._lock:
                    self._spinners.remove(spinner)


spinning_loops = SpinningLoops()
"""Those of this process."""
