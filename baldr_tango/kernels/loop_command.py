"""The mirror command: composed, checked against the limits, written; and controllers brought to zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import (
    largest,
)
from baldr_tango.kernels.jit import part_of_kernel
from baldr_tango.kernels.loop_injection import disarm
from baldr_tango.kernels.loop_streams import write_command
from baldr_tango.kernels.loop_timing import stamp


@part_of_kernel
def reset_lo(state: Any) -> None:
    """Bring the tip/tilt controller to its zero state."""
    state.integral_lo[:] = 0.0
    state.previous_lo[:] = 0.0
    state.last_lo[:] = np.float32(0.0)
    state.predicted_lo[:] = np.float32(0.0)
    state.held_lo[:] = np.float32(0.0)


@part_of_kernel
def reset_ho(state: Any) -> None:
    """Bring the high-order controller to its zero state; muted modes speak again."""
    state.integral_ho[:] = 0.0
    state.previous_ho[:] = 0.0
    state.last_ho[:] = np.float32(0.0)
    state.predicted_ho[:] = np.float32(0.0)
    state.held_ho[:] = np.float32(0.0)
    state.violations[:] = 0
    state.muted[:] = 0
    state.counters[d.MUTED] = 0


@part_of_kernel
def compose(parameters: Any, state: Any, slot: int, out: Any) -> None:
    """Compute the DM command ``-(c_LO + c_HO) + c_inj`` plus the offsets of the open loops.

    out : (G,) float32 [DM units], overwritten
    """
    lo_open = state.counters[d.LO_CLOSED] == 0
    ho_open = state.counters[d.HO_CLOSED] == 0
    for i in range(out.size):
        value = state.injected[i] - (state.held_lo[i] + state.held_ho[i])
        if lo_open:
            value += parameters.offset_lo[slot, i]
        if ho_open:
            value += parameters.offset_ho[slot, i]
        out[i] = value


@part_of_kernel
def apply_command(parameters: Any, state: Any, io: Any, slot: int, out: Any) -> bool:
    """Compose the command, check it and write it; a bad one trips the loop and flattens the mirror.

    Returns True when `out` is what the mirror got. After a trip nothing is written until the fault is
    acknowledged.
    """
    counters = state.counters
    if counters[d.TRIP] != 0:
        out[:] = np.float32(0.0)
        return False
    compose(parameters, state, slot, out)
    peak = largest(out)
    if peak <= parameters.limits[slot, d.COMMAND_LIMIT]:
        stamp(state, d.STAGE_CONTROL)
        write_command(io, state, out)
        return True
    counters[d.TRIP] = d.TRIP_LIMIT if np.isfinite(peak) else d.TRIP_NOT_FINITE
    counters[d.LO_CLOSED] = 0
    counters[d.HO_CLOSED] = 0
    counters[d.LOOPS] = 0
    reset_lo(state)
    reset_ho(state)
    disarm(state)
    out[:] = np.float32(0.0)
    write_command(io, state, out)
    return False
