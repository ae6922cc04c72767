"""Rows: a full iteration of the loop beside its computation alone, for a small and a large ring."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Final

from benchmarks.frame_bench import (
    frame_bench,
    frames_of,
    interleaved,
    time_clock,
    time_compute,
    time_iteration,
    time_recorded,
)
from benchmarks.problem import instrument_problem
from benchmarks.row import Row

GOAL: Final = 1.5
RINGS: Final = (100, 100_000)


def rows() -> list[Row]:
    """Measure once."""
    source, p = instrument_problem()
    frames = frames_of(p)
    timers = {}
    with ExitStack() as stack:
        for records in RINGS:
            groups = stack.enter_context(frame_bench(p, records)).groups
            timers[f"memory {records}"] = partial(time_recorded, groups, frames)
            timers[f"streams {records}"] = partial(time_iteration, groups)
            if records == RINGS[0]:
                timers["compute"] = partial(time_compute, groups, frames)
                timers["clock"] = partial(time_clock, groups)
        times = interleaved(timers)
    compute = times["compute"] - times["clock"]
    found = []
    for records in RINGS:
        whole = times[f"memory {records}"] - times["clock"]
        parts = {
            "compute us": compute,
            "iteration us": whole,
            "with its system calls us": times[f"streams {records}"] - times["clock"],
        }
        found.append(
            Row(
                f"full iteration over compute, ring of {records} frames",
                GOAL,
                whole / compute,
                "x",
                parts,
                f"{source}; every telemetry field, SNR and Strehl; frames come from memory and commands stay"
                " there in both, so that no system call blurs the ratio; medians of interleaved rounds.",
            )
        )
    return found
