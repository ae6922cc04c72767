"""Rows: processor time that the device server spends outside its loops, and that of the telemetry."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.clients import Clients
from benchmarks.deployed import counts, deployed, devices
from benchmarks.row import Row
from devices.cli.deployment import Deployment
from devices.processes import ChildProcess

RATE_HZ: Final = 1000.0
SECONDS: Final = 20.0
GOAL_CORES: Final = 1 / 3
_SETTLE_S: Final = 3.0
_REAL_TIME: Final = (os.SCHED_FIFO, os.SCHED_RR)


def thread_seconds(process: ChildProcess) -> dict[int, tuple[str, float]]:
    """Name and processor time [s] of the threads of a process that are not real-time ones, by number."""
    found = {}
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        number = int(task.name)
        try:
            if os.sched_getscheduler(number) in _REAL_TIME:
                continue
            used = int((task / "schedstat").read_text().split()[0]) * 1e-9
            found[number] = ((task / "comm").read_text().strip(), used)
        except (OSError, ProcessLookupError):
            continue  # ended meanwhile
    return found


def cores(processes: list[ChildProcess], seconds: float) -> Counter[str]:
    """Cores in use by kind of thread: names without what follows a space, a hyphen or a slash."""
    before = [thread_seconds(process) for process in processes]
    began = time.monotonic()
    time.sleep(seconds)
    after = [thread_seconds(process) for process in processes]
    passed = time.monotonic() - began
    used: Counter[str] = Counter()
    for first, last in zip(before, after, strict=True):
        for number, (name, total) in last.items():
            kind = name.split(" ")[0].split("-")[0].split("/")[0]
            used[kind] += (total - first.get(number, ("", 0.0))[1]) / passed
    return used


def servers(deployment: Deployment) -> list[ChildProcess]:
    """Processes that count: all but the virtual instrument."""
    return [child for child in deployment.children if child.name != "virtual instrument"]


def rows() -> list[Row]:
    """Measure once."""
    with ExitStack() as stack:
        deployment = stack.enter_context(deployed(RATE_HZ, record=True))
        events = stack.enter_context(Clients("events", devices(deployment)))
        time.sleep(_SETTLE_S)
        frames = counts(deployment, "telemetry_frames").sum()
        used = cores(servers(deployment), SECONDS)
        frames = counts(deployment, "telemetry_frames").sum() - frames
        seen = events.end().events
    kinds = {f"{kind} cores": value for kind, value in used.most_common(6)}
    per_s = {"events per s": seen / (SECONDS + _SETTLE_S), "frames written per s": frames / SECONDS}
    whole = Row(
        f"processor outside loops and virtual instrument, 4 x {RATE_HZ:g} Hz",
        GOAL_CORES,
        sum(used.values()),
        "cores",
        {**kinds, **per_s},
        "all threads of device server and database that have no real-time priority, from /proc; telemetry"
        " on, one client subscribed to the change events of all attributes.",
        "see the parts for who uses it.",
    )
    return [whole]
