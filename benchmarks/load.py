"""Rows: what clients that hammer do to the loops, and how long their requests take."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.clients import Clients, Seen
from benchmarks.deployed import commanders, counts, deployed, devices, lateness_us, recorded
from benchmarks.row import Row

RATE_HZ: Final = 1000.0
TANGO_CLIENTS: Final = 20
RUNS: Final = 5
RUN_S: Final = 5.0
GOAL_US: Final = 50.0
GOAL_MS: Final = 10.0
_SETTLE_S: Final = 0.5


@dataclass
class _Found:
    idle: list[tuple[int, int]]
    loaded: list[tuple[int, int]]
    hammering: Seen
    tango: Seen
    status: Seen
    lost: float
    overruns: float
    p99: dict[tuple[int, int], float]


def _spell() -> tuple[int, int]:
    """Let some seconds pass; return begin and end [ns]."""
    time.sleep(_SETTLE_S)
    begin = time.monotonic_ns()
    time.sleep(RUN_S)
    return begin, time.monotonic_ns()


def _measure() -> _Found:
    with ExitStack() as stack:
        deployment = stack.enter_context(deployed(RATE_HZ, record=True))
        targets, endpoints = devices(deployment), commanders(deployment)
        hammers = [
            stack.enter_context(Clients("tango", (targets * TANGO_CLIENTS)[:TANGO_CLIENTS], processes=4)),
            stack.enter_context(Clients("commander", endpoints)),
        ]
        probes = [
            stack.enter_context(Clients("tango-probe", targets)),
            stack.enter_context(Clients("commander-probe", endpoints)),
        ]
        before = counts(deployment, "lost_frames", "telemetry_overruns")
        idle, loaded = [], []
        for _ in range(RUNS):
            idle.append(_spell())
            for clients in hammers + probes:
                clients.go()
            loaded.append(_spell())
            for clients in hammers + probes:
                clients.pause()
        lost, overruns = (counts(deployment, "lost_frames", "telemetry_overruns") - before).sum(axis=0)
        tango_seen, status_seen = (clients.end() for clients in probes)
        hammering = hammers[0].end().add(hammers[1].end())
        for beam in deployment.beams:
            beam.run("telem_off")
        time.sleep(1.0)
        p99: dict[tuple[int, int], float] = dict.fromkeys(idle + loaded, 0.0)
        for beam_number in deployment.config.beams:
            records = recorded(deployment, beam_number, "frame", "time_ns", "latency_ns")
            late = lateness_us(records, RATE_HZ)
            for begin, end in p99:
                inside = (records["time_ns"] >= begin) & (records["time_ns"] < end)
                p99[begin, end] = max(p99[begin, end], float(np.percentile(late[inside], 99)))
    return _Found(idle, loaded, hammering, tango_seen, status_seen, lost, overruns, p99)


def rows() -> list[Row]:
    """Measure once."""
    found = _measure()
    rises = [found.p99[b] - found.p99[a] for a, b in zip(found.idle, found.loaded, strict=True)]
    requests = found.hammering.asked / (RUNS * (RUN_S + _SETTLE_S))
    lost = Row(
        f"frames lost meanwhile, 4 x {RATE_HZ:g} Hz",
        0.0,
        found.lost,
        "frames",
        {"telemetry overruns": found.overruns},
        "attribute lost_frames of all beams, idle and loaded spells together.",
        "a host that takes the CPU of a loop away for longer than a frame does that.",
    )
    late = Row(
        f"p99 of lateness, {TANGO_CLIENTS} Tango clients and 4 pollers over idle",
        GOAL_US,
        float(np.median(rises)),
        "us",
        {
            "idle us": float(np.median([found.p99[spell] for spell in found.idle])),
            "loaded us": float(np.median([found.p99[spell] for spell in found.loaded])),
            "requests per s": requests,
        },
        f"{RUNS} idle and loaded spells of {RUN_S:g} s in turn, whole deployment at 4 x {RATE_HZ:g} Hz with"
        " telemetry; lateness of the command against the camera's grid, from the telemetry's time stamps;"
        " worst beam of each spell; median of the differences.",
    )
    return [late, lost, *(_reply_row(*each) for each in _replies(found))]


def _replies(found: _Found) -> list[tuple[str, Seen, Seen]]:
    return [
        ("status over ZMQ", found.status, found.hammering),
        ("attribute over Tango", found.tango, found.hammering),
    ]


def _reply_row(what: str, seen: Seen, hammering: Seen) -> Row:
    p50, p99, worst = np.percentile(seen.times_ms, [50, 99, 100])
    missed = seen.missed + hammering.missed
    return Row(
        f"{what} under the same load, p99",
        GOAL_MS,
        float("inf") if missed else float(p99),
        "ms",
        {
            "p50 ms": float(p50),
            "p99 ms": float(p99),
            "worst ms": float(worst),
            "asked": float(seen.asked),
            "replies missed": float(missed),
            "p99 of the hammering clients ms": float(np.percentile(hammering.times_ms, 99)),
        },
        "one client per beam that asks every 20 ms beside those that hammer, before them by its priority as"
        " if it had a computer of its own; a reply missed by any client makes the row infinite.",
        "the clients ask as fast as they are answered, so that the server's CPU is always taken, as are those"
        " that they share with the loops; a host that takes one away for milliseconds is a part of it.",
    )
