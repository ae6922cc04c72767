"""Controllers: difference equations per mode, one step per frame. No time step appears anywhere."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.linear import copy

PID: Final = 0
LEAKY: Final = 1
KALMAN: Final = 2


@kernel
def pid_step(
    error: Any,
    set_point: Any,
    kp: Any,
    ki: Any,
    kd: Any,
    lower: Any,
    upper: Any,
    integral: Any,
    previous: Any,
    output: Any,
) -> None:
    """Advance a PID controller by one frame.

    ``I <- clamp(I + ki e)``, ``u = clamp(kp e + I + kd (e - e_previous))``: the clamp of the integral is
    the anti-windup.

    error : (M,) float32 measured mode errors; e = error - set_point
    set_point, kp, ki, kd, lower, upper : (M,) float64
    integral, previous : (M,) float64 state, changed in place
    output : (M,) float32, overwritten
    """
    for i in range(error.size):
        e = np.float64(error[i]) - set_point[i]
        accumulated = min(max(integral[i] + ki[i] * e, lower[i]), upper[i])
        u = kp[i] * e + accumulated + kd[i] * (e - previous[i])
        integral[i] = accumulated
        previous[i] = e
        output[i] = np.float32(min(max(u, lower[i]), upper[i]))


@kernel
def carry_over(old_kp: Any, new_kp: Any, ki: Any, previous: Any, integral: Any) -> None:
    """Move the integrals of a PID controller so that new proportional gains do not make its output jump.

    ``I += (kp_old - kp_new) e_previous``: at the error of the frame before, the output stays what it was
    (bumpless parameter changes; Astrom & Hagglund 1995, PID Controllers). Modes without integral action are
    left alone: nothing would ever remove the offset again.

    old_kp, new_kp, ki, previous : (M,) float64; integral : (M,) float64, changed in place
    """
    for i in range(integral.size):
        if ki[i] != 0.0:
            integral[i] += (old_kp[i] - new_kp[i]) * previous[i]


@kernel
def leaky_step(
    error: Any,
    set_point: Any,
    gain: Any,
    leak: Any,
    lower: Any,
    upper: Any,
    integral: Any,
    previous: Any,
    output: Any,
) -> None:
    """Advance a leaky integrator by one frame: ``u = I <- clamp(leak (I + gain e))``.

    The legacy equation leaks the new term too, and has no clamp; the clamp is ours.

    error : (M,) float32; set_point, gain, leak, lower, upper : (M,) float64
    integral, previous : (M,) float64 state, changed in place; output : (M,) float32, overwritten
    """
    for i in range(error.size):
        e = np.float64(error[i]) - set_point[i]
        accumulated = min(max(leak[i] * (integral[i] + gain[i] * e), lower[i]), upper[i])
        integral[i] = accumulated
        previous[i] = e
        output[i] = np.float32(accumulated)


@kernel
def _matvec_add(matrix: Any, x: Any, sign: Any, out: Any) -> None:
    """Add ``sign * matrix @ x`` to `out`. matrix : (M, M), x, out : (M,) float32."""
    for i in range(out.size):
        total = np.float32(0.0)
        for j in range(x.size):
            total += matrix[i, j] * x[j]
        out[i] += sign * total


@kernel
def kalman_step(
    error: Any,
    set_point: Any,
    transition: Any,
    control: Any,
    measurement: Any,
    gain: Any,
    lower: Any,
    upper: Any,
    predicted: Any,
    scratch: Any,
    output: Any,
) -> None:
    """Advance a Kalman regulator by one frame.

    Model: disturbance ``x[n+1] = A x[n] + w``; measured residual ``z[n] = H x[n] - B u[n-1] + v``, because
    the command of one frame acts during the next. The regulator estimates the disturbance,
    ``x = x_p + K (z - H x_p + B u)``, predicts it, ``x_p <- A x``, and commands the prediction,
    ``u = x_p`` (minimum-variance control; Kulcsar et al. 2006, Opt. Express 14, 7464). K is the
    steady-state gain of the Riccati equation.

    error : (M,) float32 measured mode errors; z = error - set_point
    transition, control, measurement, gain : (M, M) float32 A, B, H, K
    lower, upper, set_point : (M,) float64
    predicted, scratch : (M,) float32 state and work space, changed in place
    output : (M,) float32; on entry the command of the frame before, on return the new one
    """
    one = np.float32(1.0)
    for i in range(error.size):
        scratch[i] = np.float32(np.float64(error[i]) - set_point[i])
    _matvec_add(measurement, predicted, -one, scratch)
    _matvec_add(control, output, one, scratch)
    _matvec_add(gain, scratch, one, predicted)
    output[:] = np.float32(0.0)
    _matvec_add(transition, predicted, one, output)
    copy(output, predicted)
    for i in range(output.size):
        output[i] = np.float32(min(max(np.float64(output[i]), lower[i]), upper[i]))


@kernel
def forget_silenced(output: Any, predicted: Any) -> None:
    """Drop the prediction of every mode whose output is 0: what was reset must not come back with it.

    output, predicted : (M,) float32; predicted is changed in place
    """
    for i in range(output.size):
        if output[i] == 0.0:
            predicted[i] = np.float32(0.0)


@kernel
def limit_modes(
    output: Any, limit: float, most: int, integral: Any, previous: Any, violations: Any, muted: Any
) -> int:
    """Reset every mode whose output exceeds its limit or is not finite; return how many did.

    A mode that did so `most` times since the loop closed is muted until the loop is opened.

    output : (M,) float32, integral, previous : (M,) float64, changed in place
    violations, muted : (M,) int64, changed in place
    """
    # The usual case first, without a branch per mode: nothing to do. The comparison is false for NaN.
    bad = 0
    for i in range(output.size):
        bad += (muted[i] != 0) | (not abs(output[i]) <= limit)
    if bad == 0:
        return 0
    reset = 0
    for i in range(output.size):
        if muted[i] != 0:
            output[i] = np.float32(0.0)
            integral[i] = 0.0
            previous[i] = 0.0
        elif not abs(output[i]) <= limit:  # true for NaN as well
            output[i] = np.float32(0.0)
            integral[i] = 0.0
            previous[i] = 0.0
            reset += 1
            violations[i] += 1
            if violations[i] >= most:
                muted[i] = 1
    return reset


@kernel
def count_set(flags: Any) -> int:
    """Count the elements that are not 0."""
    total = 0
    for i in range(flags.size):
        if flags[i] != 0:
            total += 1
    return total


@kernel
def are_within(values: Any, limit: float) -> bool:
    """True when no absolute value exceeds a limit; a value that is not finite does."""
    outside = 0
    for i in range(values.size):
        outside += not abs(np.float64(values[i])) <= limit  # true for NaN as well
    return outside == 0


@kernel
def largest(values: Any) -> float:
    """Largest absolute value; infinity if any value is not finite."""
    peak = 0.0
    for i in range(values.size):
        size = abs(np.float64(values[i]))
        # A comparison, not isfinite(): that is computed as size - size and may be optimised away.
        if not size < np.inf:
            return np.inf
        peak = max(peak, size)
    return peak


@kernel
def are_finite(values: Any) -> bool:
    """True when every value is finite. values : (n,) float32"""
    wrong = 0
    for i in range(values.size):
        wrong += 0 if abs(values[i]) < np.float32(np.inf) else 1
    return wrong == 0


@kernel
def mean_square_of_sum(a: Any, b: Any) -> float:
    """Mean of the squares of ``a + b``. a, b : (n,)"""
    total = np.float32(0.0)
    for i in range(a.size):
        value = a[i] + b[i]
        total += value * value
    return np.float64(total) / a.size


@kernel
def rms(values: Any, used: Any) -> float:
    """Root mean square over the entries with ``used != 0``; 0 when there are none."""
    total = 0.0
    counted = 0
    for i in range(values.size):
        if used[i] != 0:
            total += np.float64(values[i]) * np.float64(values[i])
            counted += 1
    return np.sqrt(total / counted) if counted > 0 else 0.0
