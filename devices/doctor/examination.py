"""All that is looked at, in the order in which it is told."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

from baldr_tango.configuration.runtime import RuntimeConfig
from devices.doctor import leftovers, memory, permissions, place, processors, software
from devices.doctor.finding import Finding, advice, ok, problem
from devices.placement import refusal_of_priority

ROOT = Path("/")


def examine(config: RuntimeConfig, seconds: float) -> list[Finding]:
    """Look at everything; needs no running server and changes nothing.

    Parameters
    ----------
    seconds : how long stalls of the machine are looked for [s]; 0: not at all.
    """
    realtime = config.for_beam(config.beams[0]).realtime
    usable = sorted(os.sched_getaffinity(0))
    found = [
        permissions.priority(ROOT, realtime.priority, refusal_of_priority(realtime.priority)),
        permissions.locked_memory(ROOT, realtime.lock_memory),
        permissions.throttling(ROOT, realtime.waiting != "semaphore"),
        processors.count(ROOT, usable, realtime.cpus, len(config.beams)),
        processors.isolation(ROOT, usable, realtime.cpus, len(config.beams)),
        processors.governor(ROOT),
        processors.sleep_states(ROOT),
        processors.siblings(ROOT),
        processors.preemption(ROOT),
        processors.clock(ROOT, time.clock_getres(time.CLOCK_MONOTONIC)),
        memory.huge_pages(ROOT),
        memory.swap(ROOT),
        memory.numa(ROOT),
        *place.directories(config),
        place.commander_ports(ROOT, {b: config.for_beam(b).commander_endpoint for b in config.beams}),
        place.tango_database(
            os.environ.get("TANGO_HOST", ""), importlib.util.find_spec("databaseds") is not None
        ),
        software.versions(software.requirements()),
        software.kernels(),
        *leftovers.leftovers(config.streams.directory or None),
        processors.virtual(ROOT),
    ]
    return found + ([stalls(seconds, 1e3 / fastest_hz(config))] if seconds > 0 else [])


def fastest_hz(config: RuntimeConfig) -> float:
    """Highest frame rate that the configuration names; 1 kHz when it names none."""
    return max((config.for_beam(beam).loop.frame_rate_hz for beam in config.beams), default=0.0) or 1000.0


def stalls(seconds: float, period_ms: float) -> Finding:
    """Watch every CPU for a while and judge the times at which it stood still.

    Parameters
    ----------
    period_ms : of the frames; a longer stall loses some.
    """
    from baldr_tango.rtc.stalls import StallWatch, compile_probe

    name = "stalls"
    compile_probe()
    watch = StallWatch(seconds)
    watch.start()
    seen = watch.finish()
    text = f"none of 1 ms or more within {seen.seconds:.1f} s on {len(seen.cpus)} CPUs"
    if seen.stalls:
        text = (
            f"the machine stood still {len(seen.stalls)} times within {seen.seconds:.1f} s, up to"
            f" {seen.longest_ms:.1f} ms (the host has taken {1e3 * seen.steal_s:.0f} ms that it tells of)"
        )
    if not seen.is_certain:
        return advice(
            name,
            f"{text}; without real-time priority it cannot be told from other programs",
            "permit real-time priority, then look again",
        )
    if not seen.stalls:
        return ok(name, text)
    fix = "virtual: CPUs of the host for this machine alone; real: power saving and SMI off in the firmware"
    judge = problem if seen.longest_ms > period_ms else advice
    return judge(name, text, fix)
