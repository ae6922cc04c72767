"""Where a frame's time goes: histograms of times, and on request the stages of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.jit import exact_kernel, part_of_kernel
from baldr_tango.kernels.libc import monotonic_ns, realtime_ns

_NS = 1_000_000_000
_LONGEST_WAIT_NS = _NS
"""Frames do not wait longer: an older write time is not kept, or of another clock."""


@exact_kernel
def bin_of(ns: int) -> int:
    """Return the bin of a time [ns] in the histograms: linear at first, then `OCTAVE_BINS` per doubling."""
    value = max(ns, 0) >> d.BIN_SHIFT
    octave = 0
    while value >= 2 * d.OCTAVE_BINS:
        value >>= 1
        octave += 1
    return min(octave * d.OCTAVE_BINS + value, d.N_BINS - 1)


@part_of_kernel
def begin_budget(state: Any, switches: Any) -> None:
    """Time the stages of the next frames from zero, as many as the switches say."""
    state.counters[d.BUDGET_LEFT] = switches[d.BUDGET_FRAMES]
    state.stage_max[:] = 0
    for stage in range(d.N_STAGES):
        state.stage_bins[stage][:] = 0


@part_of_kernel
def stamp(state: Any, stage: int) -> None:
    """Note that a stage ends now, if stages are timed."""
    if state.counters[d.BUDGET_LEFT] > 0:
        state.stamps[stage] = monotonic_ns()


@part_of_kernel
def waited_ns(state: Any, io: Any, woken_ns: int) -> int:
    """Return the time from a frame's write time to the wake-up [ns]; -1 when its stream does not keep one.

    The header's write time is taken, else the acquisition time; both are UTC (ImageStreamIO).
    """
    words = io.frame_words
    written = words[d.WRITE_TIME_WORD] * _NS + words[d.WRITE_TIME_WORD + 1]
    if written == 0:
        written = words[d.ACQUISITION_TIME_WORD] * _NS + words[d.ACQUISITION_TIME_WORD + 1]
    is_kept = written != state.stamps[d.WRITE_TIME_SEEN]
    state.stamps[d.WRITE_TIME_SEEN] = written
    waited = realtime_ns() - written - (monotonic_ns() - woken_ns)
    return waited if is_kept and 0 <= waited < _LONGEST_WAIT_NS else np.int64(-1)


@part_of_kernel
def note_stages(state: Any, io: Any, woken_ns: int, written_ns: int) -> None:
    """Enter a frame's stages into the latency budget, after the last of them."""
    stamps = state.stamps
    stamps[0] = woken_ns
    stamps[d.STAGE_WRITE] = written_ns
    stamps[d.STAGE_RECORD] = monotonic_ns()
    state.counters[d.BUDGET_LEFT] -= 1
    for stage in range(d.N_STAGES):
        if stage == d.STAGE_WAIT:
            elapsed = waited_ns(state, io, woken_ns)
        elif stage == d.STAGE_LATENCY:
            elapsed = written_ns - woken_ns
        else:
            elapsed = stamps[stage] - stamps[stage - 1]
        if elapsed >= 0:
            state.stage_bins[stage, bin_of(elapsed)] += 1
            state.stage_max[stage] = max(state.stage_max[stage], elapsed)
