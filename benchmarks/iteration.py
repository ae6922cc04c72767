"""Rows: a full iteration of the loop beside its computation alone, for a small and a large ring."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Final

from benchmarks.frame_bench import (
    frame_bench,
    interleaved,
    time_clock,
    time_iteration,
    time_process,
    time_read,
    time_write,
)
from benchmarks.problem import instrument_problem
from benchmarks.row import Row

GOAL: Final = 1.5
RINGS: Final = (100, 100_000)


def rows() -> list[Row]:
    """Measure once."""
    source, p = instrument_problem()
    timers = {}
    with ExitStack() as stack:
        for frames in RINGS:
            groups = stack.enter_context(frame_bench(p, frames)).groups
            timers[f"iteration {frames}"] = partial(time_iteration, groups)
            if frames == RINGS[0]:
                timers["process"] = partial(time_process, groups)
                timers["write"] = partial(time_write, groups)
                timers["read"] = partial(time_read, groups)
                timers["clock"] = partial(time_clock, groups)
        times = interleaved(timers)
    compute = times["process"] - times["write"]
    streams = times["read"] + times["write"] - times["clock"]
    found = []
    for frames in RINGS:
        whole = times[f"iteration {frames}"]
        found.append(
            Row(
                f"full iteration over compute, ring of {frames} frames",
                GOAL,
                (whole - streams) / compute,
                "x",
                {
                    "compute us": compute,
                    "iteration without stream calls us": whole - streams,
                    "with them us": whole,
                },
                f"{source}; every telemetry field, SNR and Strehl; medians of interleaved rounds; the"
                " system calls that read the frame and write the command are timed alone and taken off.",
            )
        )
    return found
