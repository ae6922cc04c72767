"""Times at which the machine itself stands still, seen by short sleeps on every CPU at high priority.

The host of a virtual machine can take its CPUs away for milliseconds; steal time need not tell. A thread
of the highest priority that only sleeps is late for no other reason: nothing of this machine goes before it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.pacing import watch_sleeps
from baldr_tango.rtc.scheduling import usable_cpus

STALL_NS: Final = 1_000_000
"""A sleep at high priority that ends this much too late is a stall: a hundred times what a kernel takes."""

PROBE_PERIOD_NS: Final = 500_000
"""Time between two looks [ns]: a stall of `STALL_NS` cannot hide between them."""

_HIGHEST: Final = 99
_STEAL_FIELD: Final = 8
_JOIN_S: Final = 5.0


@dataclass(frozen=True)
class Stall:
    """A CPU that stood still."""

    cpu: int
    begin_ns: int
    """CLOCK_MONOTONIC [ns]."""
    length_ns: int

    @property
    def end_ns(self) -> int:
        """CLOCK_MONOTONIC [ns]."""
        return self.begin_ns + self.length_ns


@dataclass
class _Probe:
    cpu: int
    due_ns: NDArray[np.int64]
    late_ns: NDArray[np.int64]
    count: int = 0
    is_certain: bool = False
    thread: threading.Thread | None = None


@dataclass(frozen=True)
class StallReport:
    """What a watch has seen."""

    seconds: float
    cpus: tuple[int, ...]
    """CPUs that were watched."""
    is_certain: bool
    """The probes had real-time priority. Otherwise other programs may have been in their way."""
    stalls: tuple[Stall, ...] = field(default=())
    steal_s: float = 0.0
    """Time that the kernel knows to have been taken by the host, all CPUs together."""

    @property
    def longest_ms(self) -> float:
        """Longest stall [ms]; 0 without any."""
        return max((stall.length_ns for stall in self.stalls), default=0) * 1e-6

    def touches(self, begin_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of the times from `begin_ns` to `end_ns`, (n,) each, saw a stall of some CPU."""
        hit = np.zeros(begin_ns.shape, dtype=bool)
        for stall in self.stalls:
            hit |= (begin_ns <= stall.end_ns) & (end_ns >= stall.begin_ns)
        return hit


class StallWatch:
    """Watches CPUs from `start` to `finish`, with a thread per CPU.

    Parameters
    ----------
    seconds : longest time that it watches [s]
    cpus : CPUs to watch; by default all that this process may use
    """

    def __init__(self, seconds: float, cpus: Iterable[int] | None = None) -> None:
        size = int(seconds * 1e9) // PROBE_PERIOD_NS + 1
        self._seconds = seconds
        self._control = np.zeros(1, dtype=np.int64)
        chosen = sorted(usable_cpus() if cpus is None else cpus)
        self._probes = [_Probe(cpu, np.full(size, 0), np.full(size, 0)) for cpu in chosen]
        self._begin_ns = 0
        self._steal_s = 0.0

    def start(self) -> None:
        """Begin to watch; returns when every probe has its CPU and its priority."""
        ready = threading.Barrier(len(self._probes) + 1)
        self._steal_s = steal_seconds()
        self._begin_ns = time.monotonic_ns()
        for probe in self._probes:
            probe.thread = threading.Thread(
                target=self._watch, args=(probe, ready), name=f"stall-probe-{probe.cpu}", daemon=True
            )
            probe.thread.start()
        ready.wait(_JOIN_S)

    def finish(self) -> StallReport:
        """Wait for the end of the time, and tell what was seen."""
        for probe in self._probes:
            if probe.thread is not None:
                probe.thread.join(self._seconds + _JOIN_S)
        seconds = (time.monotonic_ns() - self._begin_ns) * 1e-9
        return StallReport(
            seconds=seconds,
            cpus=tuple(probe.cpu for probe in self._probes),
            is_certain=all(probe.is_certain for probe in self._probes),
            stalls=find_stalls(
                (probe.cpu, probe.due_ns[: probe.count], probe.late_ns[: probe.count])
                for probe in self._probes
            ),
            steal_s=max(0.0, steal_seconds() - self._steal_s),
        )

    def stop(self) -> None:
        """End before the time."""
        self._control[0] = 1

    def _watch(self, probe: _Probe, ready: threading.Barrier) -> None:
        try:
            os.sched_setaffinity(0, {probe.cpu})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_highest_allowed()))
            probe.is_certain = True
        except OSError:
            probe.is_certain = False  # it still watches, but knows less
        ready.wait(_JOIN_S)
        begin = time.monotonic_ns()
        until = begin + int(self._seconds * 1e9)
        probe.count = int(
            watch_sleeps(self._control, begin, PROBE_PERIOD_NS, until, probe.due_ns, probe.late_ns)
        )


def compile_probe() -> None:
    """Compile the probe, or load it from the cache, so that a watch is not late for that."""
    nothing = np.zeros(0, dtype=np.int64)
    watch_sleeps(np.ones(1, dtype=np.int64), 0, 1, 0, nothing, nothing)


def find_stalls(
    watched: Iterable[tuple[int, Sequence[int] | NDArray[np.int64], Sequence[int] | NDArray[np.int64]]],
) -> tuple[Stall, ...]:
    """Find the stalls among sleeps, in the order of time.

    watched : CPU, when its sleeps were due and how late they ended [ns]
    """
    found = [
        Stall(cpu, int(due), int(late))
        for cpu, dues, lates in watched
        for due, late in zip(dues, lates, strict=True)
        if late >= STALL_NS
    ]
    return tuple(sorted(found, key=lambda stall: stall.begin_ns))


def steal_seconds(root: Path = Path("/")) -> float:
    """Time that the host took from all CPUs since the start, as far as the kernel knows [s].

    Parameters
    ----------
    root : directory in which ``proc`` is.
    """
    try:
        first = (root / "proc/stat").read_text().split("\n", 1)[0].split()
        return int(first[_STEAL_FIELD]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _highest_allowed() -> int:
    """Highest real-time priority that the user's limit allows; with the capability there is no limit."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    return _HIGHEST if os.geteuid() == 0 or soft <= 0 else min(int(soft), _HIGHEST)
