"""The mirror command: composed, checked against the limits, written; and controllers brought to zero."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import are_within, largest, mean_square_of_sum
from baldr_tango.kernels.jit import kernel, part_of_kernel
from baldr_tango.kernels.linear import add_scaled
from baldr_tango.kernels.loop_injection import disarm
from baldr_tango.kernels.loop_streams import write_command
from baldr_tango.kernels.loop_timing import stamp

RESTART_WEIGHT: Final = 20
"""What a tip/tilt map beyond its limit adds to the level of `runs_away`."""
STROKE_WEIGHT: Final = 10
"""What a command of too large an rms adds to it."""


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


@kernel
def correct(injected: Any, lo: Any, ho: Any, out: Any) -> None:
    """``out = injected - (lo + ho)``, all (G,) float32."""
    for i in range(out.size):
        out[i] = injected[i] - (lo[i] + ho[i])


@part_of_kernel
def compose(parameters: Any, state: Any, slot: int, out: Any) -> None:
    """Compute the DM command ``-(c_LO + c_HO) + c_inj`` plus the offsets of the open loops.

    out : (G,) float32 [DM units], overwritten
    """
    correct(state.injected, state.held_lo, state.held_ho, out)
    if state.counters[d.LO_CLOSED] == 0:
        add_scaled(parameters.offset_lo[slot], np.float32(1.0), out)
    if state.counters[d.HO_CLOSED] == 0:
        add_scaled(parameters.offset_ho[slot], np.float32(1.0), out)


@part_of_kernel
def trip(state: Any, reason: int) -> None:
    """Open the loops until an operator acknowledges it; the next `apply_command` flattens the mirror.

    reason : one of `TRIP_*`
    """
    counters = state.counters
    counters[d.TRIP] = reason
    counters[d.TRIPS] += 1
    counters[d.LO_CLOSED] = 0
    counters[d.HO_CLOSED] = 0
    counters[d.LOOPS] = 0
    counters[d.RUNAWAY] = 0
    counters[d.FLAT_PENDING] = 1
    reset_lo(state)
    reset_ho(state)
    disarm(state)


@part_of_kernel
def runs_away(parameters: Any, state: Any, slot: int, restarts: int, resets: int) -> bool:
    """True when the controllers of closed loops keep running into their limits.

    A level rises with what happened in this frame and falls by one per frame: a lone event is forgotten, a
    loop that is driven away again and again is not, whatever the limits do about it each time.

    restarts, resets : tip/tilt maps and high-order modes beyond their limits in this frame
    """
    counters = state.counters
    level = counters[d.RUNAWAY] + RESTART_WEIGHT * restarts + resets
    most = parameters.limits[slot, d.COMMAND_RMS]
    if mean_square_of_sum(state.held_lo, state.held_ho) > most * most:
        level += STROKE_WEIGHT
    counters[d.RUNAWAY] = max(level - 1, 0) if counters[d.LOOPS] != 0 else 0
    return 0 < parameters.switches[slot, d.RUNAWAY_LEVEL] <= counters[d.RUNAWAY]


@kernel
def count_violations(values: Any, limit: float, violations: Any) -> None:
    """Add 1 to the violations of every value that exceeds a limit or is not finite."""
    for i in range(values.size):
        if not abs(np.float64(values[i])) <= limit:
            violations[i] += 1


@part_of_kernel
def settle_command(parameters: Any, state: Any, slot: int, out: Any, fault: int) -> bool:
    """Compose the command and check it; a bad one trips the loop and becomes a flat map.

    Returns True when `out` must be written. After a trip nothing but the flat is, until the fault is
    acknowledged; a flat that cannot be written is tried again.

    fault : one of `TRIP_*` that was found before, or 0
    """
    counters = state.counters
    if counters[d.TRIP] == 0:
        reason = fault
        if 0 < parameters.switches[slot, d.WRITE_FAILURES] <= counters[d.WRITE_RUN]:
            reason = d.TRIP_WRITE
        if reason == 0:
            compose(parameters, state, slot, out)
            limit = parameters.limits[slot, d.COMMAND_LIMIT]
            if not are_within(out, limit):
                counters[d.COMMAND_LIMITED] += 1
                count_violations(out, limit, state.actuator_violations)
                reason = d.TRIP_LIMIT if largest(out) < np.inf else d.TRIP_NOT_FINITE
        if reason != 0:
            trip(state, reason)
    if counters[d.TRIP] != 0:
        out[:] = np.float32(0.0)
        if counters[d.FLAT_PENDING] == 0:
            return False
    stamp(state, d.STAGE_CONTROL)
    return True


@part_of_kernel
def write_settled(io: Any, state: Any, out: Any) -> bool:
    """Write a command that is settled; True when the mirror got it."""
    written = write_command(io, state, out)
    if written:
        state.counters[d.FLAT_PENDING] = 0
    return written


@part_of_kernel
def apply_command(parameters: Any, state: Any, io: Any, slot: int, out: Any, fault: int) -> bool:
    """Compose the command, check it and write it; a bad one trips the loop and flattens the mirror.

    Returns True when `out` is what the mirror got. fault : as for `settle_command`
    """
    if not settle_command(parameters, state, slot, out, fault):
        return False
    return write_settled(io, state, out) and state.counters[d.TRIP] == 0
