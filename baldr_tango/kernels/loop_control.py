"""One step of the closed loops: errors in, mode outputs and their mirror map out."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import (
    KALMAN,
    LEAKY,
    PID,
    are_within,
    carry_over,
    count_set,
    forget_silenced,
    kalman_step,
    leaky_step,
    limit_modes,
    pid_step,
)
from baldr_tango.kernels.jit import part_of_kernel
from baldr_tango.kernels.linear import copy, multiply
from baldr_tango.kernels.loop_command import reset_lo


@part_of_kernel
def carry_outputs_over(parameters: Any, state: Any, before: int, slot: int) -> None:
    """Keep the output of closed PID loops continuous when their proportional gains change.

    before, slot : the parameters until now and from now on
    """
    p = parameters
    if state.counters[d.LO_CLOSED] != 0 and p.switches[slot, d.TYPE_LO] == PID:
        carry_over(p.kp_lo[before], p.kp_lo[slot], p.ki_lo[slot], state.previous_lo, state.integral_lo)
    if state.counters[d.HO_CLOSED] != 0 and p.switches[slot, d.TYPE_HO] == PID:
        carry_over(p.kp_ho[before], p.kp_ho[slot], p.ki_ho[slot], state.previous_ho, state.integral_ho)


@part_of_kernel
def advance(
    kind: int,
    error: Any,
    target: Any,
    gains: Any,
    kalman: Any,
    memory: Any,
    output: Any,
) -> None:
    """Advance the controllers of one loop by one frame.

    kind : PID, LEAKY or KALMAN
    error, output : (M,) float32
    target : (M,) float64 set points of this frame
    gains : kp, ki, kd, leak, lower, upper, each (M,) float64
    kalman : A, B, H, K, each (M, M) float32
    memory : integral, previous (M,) float64; last output, Kalman's prediction and work space (M,) float32
    """
    kp, ki, kd, leak, lower, upper = gains
    integral, previous, last, predicted, scratch = memory
    if kind == KALMAN:
        copy(last, output)
        transition, control, measurement, gain = kalman
        kalman_step(
            error, target, transition, control, measurement, gain, lower, upper, predicted, scratch, output
        )
    elif kind == LEAKY:
        leaky_step(error, target, ki, leak, lower, upper, integral, previous, output)
    else:
        pid_step(error, target, kp, ki, kd, lower, upper, integral, previous, output)


@part_of_kernel
def control_lo(parameters: Any, state: Any, slot: int, error: Any, output: Any, shape: Any) -> bool:
    """One step of the closed tip/tilt loop; True when its map exceeded the limit and was reset.

    error, output : (L,) float32; shape : (G,) float32 map before the minus, overwritten
    """
    p = parameters
    advance(
        p.switches[slot, d.TYPE_LO],
        error,
        state.target_lo,
        (p.kp_lo[slot], p.ki_lo[slot], p.kd_lo[slot], p.leak_lo[slot], p.lower_lo[slot], p.upper_lo[slot]),
        (
            p.kalman_lo.transition[slot],
            p.kalman_lo.control[slot],
            p.kalman_lo.measurement[slot],
            p.kalman_lo.gain[slot],
        ),
        (state.integral_lo, state.previous_lo, state.last_lo, state.predicted_lo, state.scratch_lo),
        output,
    )
    copy(output, state.last_lo)
    multiply(p.shapes_lo, slot, output, shape)
    if are_within(shape, p.limits[slot, d.LO_LIMIT]):
        return False
    reset_lo(state)
    output[:] = np.float32(0.0)
    shape[:] = np.float32(0.0)
    state.counters[d.LIMITED] += 1
    state.counters[d.LO_LIMITED] += 1
    return True


@part_of_kernel
def control_ho(parameters: Any, state: Any, slot: int, error: Any, output: Any, shape: Any) -> bool:
    """One step of the closed high-order loop; True when a mode exceeded the limit and was reset.

    error, output : (H,) float32; shape : (G,) float32 map before the minus, overwritten
    """
    p = parameters
    advance(
        p.switches[slot, d.TYPE_HO],
        error,
        state.target_ho,
        (p.kp_ho[slot], p.ki_ho[slot], p.kd_ho[slot], p.leak_ho[slot], p.lower_ho[slot], p.upper_ho[slot]),
        (
            p.kalman_ho.transition[slot],
            p.kalman_ho.control[slot],
            p.kalman_ho.measurement[slot],
            p.kalman_ho.gain[slot],
        ),
        (state.integral_ho, state.previous_ho, state.last_ho, state.predicted_ho, state.scratch_ho),
        output,
    )
    limited = limit_modes(
        output,
        p.limits[slot, d.HO_LIMIT],
        p.switches[slot, d.HO_VIOLATIONS],
        state.integral_ho,
        state.previous_ho,
        state.violations,
        state.muted,
    )
    if p.switches[slot, d.TYPE_HO] == KALMAN:
        forget_silenced(output, state.predicted_ho)
    if limited > 0:
        state.counters[d.LIMITED] += limited
        state.counters[d.HO_LIMITED] += limited
        state.counters[d.MUTED] = count_set(state.muted)
    copy(output, state.last_ho)
    multiply(p.shapes_ho, slot, output, shape)
    return limited > 0
