"""Injected signals inside the loop: armed, advanced frame by frame, aimed at set points or the mirror."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.injection import (
    DEFAULT_SEED,
    OUTSIDE,
    PRBS,
    REGISTER_MASK,
    prbs_step,
    step_of,
    waveform,
)
from baldr_tango.kernels.jit import part_of_kernel
from baldr_tango.kernels.linear import add_scaled, copy, scale

_LONGEST_GAP = 1_000_000
"""Frames: a camera that counts on by more has begun a new count."""


@part_of_kernel
def disarm(state: Any) -> None:
    """End the signal injection: nothing is sent any more."""
    state.counters[d.INJECT_ARMED] = 0
    state.injected[:] = np.float32(0.0)


@part_of_kernel
def arm(state: Any, switches: Any) -> None:
    """Start the signal injection anew, or end it, as the switches say."""
    counters = state.counters
    disarm(state)
    counters[d.INJECT_ARMED] = 1 if switches[d.INJECT] != 0 and counters[d.TRIP] == 0 else 0
    counters[d.INJECT_START] = d.NO_FRAME
    counters[d.INJECT_INDEX] = -1
    counters[d.INJECT_STEPS] = 0
    seed = switches[d.INJECT_SEED] & REGISTER_MASK
    counters[d.INJECT_REGISTER] = seed if seed != 0 else DEFAULT_SEED


@part_of_kernel
def inject(parameters: Any, state: Any, slot: int) -> float:
    """Return the injected signal of this frame; 0 while injection is off.

    The signal is a function of the frame number alone: the sample of frame n acts in frame n + latency,
    whatever was lost between them.
    """
    counters = state.counters
    switches = parameters.switches[slot]
    if counters[d.INJECT_ARMED] == 0:
        return 0.0
    number = counters[d.LAST_NUMBER]
    index = number - counters[d.INJECT_START]
    if index <= counters[d.INJECT_INDEX] or index > counters[d.INJECT_INDEX] + _LONGEST_GAP:
        index = counters[d.INJECT_INDEX] + 1
        counters[d.INJECT_START] = number - index
    counters[d.INJECT_INDEX] = index
    period_s = np.float64(switches[d.PERIOD_NS]) * 1e-9
    values = parameters.injection[slot]
    step = step_of(index - switches[d.INJECT_LATENCY], switches[d.INJECT_HOLD], values, period_s)
    if step == OUTSIDE:
        return 0.0
    if switches[d.INJECT_WAVEFORM] == PRBS:
        for _ in range(step - counters[d.INJECT_STEPS] + 1):
            counters[d.INJECT_REGISTER] = prbs_step(counters[d.INJECT_REGISTER])
        counters[d.INJECT_STEPS] = max(step + 1, counters[d.INJECT_STEPS])
    time_s = np.float64(step * max(switches[d.INJECT_HOLD], 1)) * period_s
    return waveform(switches[d.INJECT_WAVEFORM], values, time_s, counters[d.INJECT_REGISTER])


@part_of_kernel
def prepare_targets(parameters: Any, state: Any, slot: int, signal: float, injected: Any) -> None:
    """Set this frame's set points and injected map from the injected signal.

    The set points are those in force plus the signal, anew in every frame: nothing accumulates.

    injected : (G,) float32, overwritten for the record: the map added to the command, or the equivalent
        of what was added to the set points
    """
    switches = parameters.switches[slot]
    branch = switches[d.INJECT_BRANCH]
    moves = switches[d.INJECT_SET_POINT] != 0
    share_lo = np.float32(0.0)
    share_ho = np.float32(0.0)
    copy(parameters.set_point_lo[slot], state.target_lo)
    copy(parameters.set_point_ho[slot], state.target_ho)
    if moves and branch != d.INJECT_HO and state.counters[d.LO_CLOSED] != 0:
        share_lo = np.float32(signal)
        for i in range(state.target_lo.size):
            state.target_lo[i] += signal * parameters.inject_lo[slot, i]
    if moves and branch != d.INJECT_LO and state.counters[d.HO_CLOSED] != 0:
        share_ho = np.float32(signal)
        for i in range(state.target_ho.size):
            state.target_ho[i] += signal * parameters.inject_ho[slot, i]
    share = np.float32(0.0) if moves else np.float32(signal)
    scale(parameters.inject_map[slot], share, state.injected)
    copy(state.injected, injected)
    if share_lo != 0.0:
        add_scaled(parameters.inject_shape_lo[slot], share_lo, injected)
    if share_ho != 0.0:
        add_scaled(parameters.inject_shape_ho[slot], share_ho, injected)
