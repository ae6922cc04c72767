"""Controllers against their difference equations and their theory."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.kernels.control import largest, leaky_step, limit_modes, pid_step, rms


class Pid:
    """A PID kernel with its state."""

    def __init__(self, n, kp=0.0, ki=0.0, kd=0.0, lower=-2.0, upper=2.0, set_point=0.0):
        self.constants = [np.full(n, value) for value in (set_point, kp, ki, kd, lower, upper)]
        self.integral, self.previous = np.zeros(n), np.zeros(n)
        self.output = np.zeros(n, dtype=np.float32)

    def __call__(self, error):
        pid_step(
            np.asarray(error, dtype=np.float32), *self.constants, self.integral, self.previous, self.output
        )
        return self.output.astype(float)


def test_integrator_ramps_by_its_gain():
    pid = Pid(1, ki=0.25)
    assert [pid([1.0])[0] for _ in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_proportional_and_derivative_parts():
    pid = Pid(1, kp=2.0, kd=0.5)
    outputs = [pid([e])[0] for e in (0.1, 0.3, 0.3)]
    assert outputs == pytest.approx([2 * 0.1 + 0.5 * 0.1, 2 * 0.3 + 0.5 * 0.2, 2 * 0.3], rel=1e-6)


def test_set_point_is_subtracted():
    assert Pid(1, kp=1.0, set_point=0.2)([0.5])[0] == pytest.approx(0.3)


def test_anti_windup_lets_go_at_once():
    pid = Pid(1, ki=1.0, upper=0.5)
    for _ in range(100):
        pid([1.0])
    assert pid([-0.1])[0] == pytest.approx(0.4)


def test_output_clamp_holds_with_a_large_proportional_part():
    assert Pid(1, kp=100.0, upper=0.5)([1.0])[0] == 0.5


def test_closed_loop_on_a_delayed_plant_follows_the_theoretical_pole():
    """y[n+1] = disturbance - u[n], u = integral: the error shrinks by (1 - ki) per frame."""
    pid, disturbance, ki = Pid(1, ki=0.3), 1.0, 0.3
    errors, u = [], 0.0
    for _ in range(10):
        error = disturbance - u
        errors.append(error)
        u = pid([error])[0]
    assert errors == pytest.approx([(1 - ki) ** n for n in range(10)], rel=1e-5)


def test_leaky_integrator_settles_at_its_dc_gain():
    """I = a (I + K e) has the fixed point a K e / (1 - a)."""
    alpha, gain = 0.9, 0.2
    constants = [np.array([value]) for value in (0.0, gain, alpha, -10.0, 10.0)]
    integral, previous, output = np.zeros(1), np.zeros(1), np.zeros(1, dtype=np.float32)
    for _ in range(500):
        leaky_step(np.array([0.5], dtype=np.float32), *constants, integral, previous, output)
    assert output[0] == pytest.approx(alpha * gain * 0.5 / (1 - alpha), rel=1e-5)


def test_limited_mode_restarts_and_is_muted_after_too_many_violations():
    integral, previous = np.ones(3), np.ones(3)
    violations, muted = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    for expected in (1, 1, 0):
        output = np.array([0.05, 0.2, -0.05], dtype=np.float32)
        assert limit_modes(output, 0.1, 2, integral, previous, violations, muted) == expected
        assert output.tolist() == pytest.approx([0.05, 0.0, -0.05])
    assert muted.tolist() == [0, 1, 0]
    assert violations.tolist() == [0, 2, 0]
    assert integral.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_a_violation(bad):
    output = np.array([bad], dtype=np.float32)
    zeros = np.zeros(1, dtype=np.int64)
    assert limit_modes(output, 0.1, 100, np.zeros(1), np.zeros(1), zeros, zeros.copy()) == 1
    assert output[0] == 0.0
    assert largest(np.array([0.1, bad], dtype=np.float32)) == np.inf


def test_rms_over_the_used_modes_only():
    values = np.array([3.0, 100.0, 4.0], dtype=np.float32)
    assert rms(values, np.array([1, 0, 1])) == pytest.approx(np.sqrt(12.5))
    assert rms(values, np.zeros(3, dtype=np.int64)) == 0.0
