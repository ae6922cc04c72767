"""Controllers in the running loop: gains that change without a jump, the Kalman regulator on a plant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from baldr_tango.configuration.kalman import kalman_model
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.kernels import loop_data as d
from tests.harness import LoopBench
from tests.problem import gains, random_frame, random_problem

# Frames of a light so strong that their rounding does not matter, far beyond what a camera has.
WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0, saturation_adu=1e9)
MODES = 16


class Plant:
    """Frames in which the high-order errors are a disturbance plus the command of the frame before."""

    def __init__(self, **changes):
        side, pixels = 8, 64
        rng = np.random.default_rng(2)
        self.reference = rng.uniform(0.005, 0.01, MODES)
        self.clear = rng.uniform(0.01, 0.02, MODES)
        self.scale = rng.uniform(0.02, 0.05, MODES)
        own = np.eye(MODES, pixels)
        self.parameters = random_problem(
            side=side,
            dark=np.full(pixels, 1000.0),
            pixels_to_actuators=own,
            reference=self.reference,
            clear_pupil=self.clear,
            reconstructor_ho=np.diag(self.scale),
            mode_shapes_ho=np.eye(MODES),
            limits=WIDE,
            **changes,
        )

    def frame(self, errors, flux=2e8):
        """Frame (8, 8) with these errors of the 16 high-order modes; the other pixels make up the flux."""
        light = self.reference + self.clear * errors / self.scale
        rest = np.full(48, (1.0 - light.sum()) / 48)
        return np.round(1000.0 + flux * np.concatenate([light, rest])).astype(np.int32).reshape(8, 8)


def run(bench, plant, disturbances, noise):
    """Close the plant over the loop; return the residuals (n, 16)."""
    residuals = []
    command = bench.command()
    for x, v in zip(disturbances, noise, strict=True):
        residuals.append(x + command)
        command = bench.step(plant.frame(residuals[-1] + v))
    return np.array(residuals)


def test_the_kalman_regulator_leaves_the_residual_of_its_theory():
    rng = np.random.default_rng(9)
    frames = 1500
    a, q, r = np.full(MODES, 0.98), np.geomspace(2e-6, 4e-5, MODES), np.geomspace(2e-4, 1e-5, MODES)
    one = np.eye(MODES)
    model = kalman_model(np.diag(a), one, one, np.diag(q), np.diag(r))
    plant = Plant(controller_type_ho="KALMAN", kalman_ho=model)
    x = np.zeros((frames, MODES))
    for n in range(1, frames):
        x[n] = a * x[n - 1] + rng.normal(0.0, np.sqrt(q))
    noise = rng.normal(0.0, np.sqrt(r), (frames, MODES))
    with LoopBench(plant.parameters) as bench:
        bench.set_loops(False, True)
        residuals = run(bench, plant, x, noise)
        assert bench.counter(d.LIMITED) == 0
    found = np.mean(np.square(residuals[100:]), axis=0)
    assert found.sum() == pytest.approx(np.trace(model.covariance), rel=0.06)
    np.testing.assert_allclose(found, np.diag(model.covariance), rtol=0.3)
    assert found.sum() < 0.5 * np.mean(np.square(x[100:]), axis=0).sum()


def test_a_silenced_mode_of_the_kalman_regulator_starts_again_from_zero():
    plant = Plant(controller_type_ho="KALMAN")
    limits = replace(WIDE, ho_mode=0.05)
    one = np.eye(MODES)
    model = kalman_model(one, one, one, one, one)
    parameters = replace(plant.parameters, kalman_ho=model, limits=limits)
    gain = model.gain[0, 0]
    errors = np.zeros(MODES)
    errors[3] = 0.04
    with LoopBench(parameters) as bench:
        bench.set_loops(False, True)
        outputs = []
        for _ in range(6):
            bench.step(plant.frame(errors))
            outputs.append(float(bench.newest("u_HO")[3]))
    first = gain * 0.04
    assert 3 * first > 0.05
    assert outputs == pytest.approx([first, 2 * first, 0.0, first, 2 * first, 0.0], abs=1e-6)


@pytest.mark.parametrize("loop", ["lo", "ho"])
def test_a_new_proportional_gain_does_not_make_the_output_jump(loop):
    """The same frame again and again: per frame the output grows by ki e, whatever happens to kp and kd."""
    parameters = random_problem(
        limits=WIDE,
        control_lo=gains(2, kp=0.2, ki=0.1, kd=0.05),
        control_ho=gains(MODES, kp=0.2, ki=0.1, kd=0.05),
    )
    frame = random_frame(parameters, np.random.default_rng(3))
    name = f"u_{loop.upper()}"
    with LoopBench(parameters) as bench:
        bench.set_loops(True, True)
        for _ in range(3):
            bench.step(frame)
        error, before = bench.newest(f"e_{loop.upper()}").astype(float), bench.newest(name).astype(float)
        assert np.abs(error).max() > 0.01
        new = gains(error.size, kp=0.7, ki=0.1, kd=0.3)
        bench.loop.wait_adopted(bench.loop.update(replace(parameters, **{f"control_{loop}": new})), 10.0)
        bench.step(frame)
        np.testing.assert_allclose(bench.newest(name), before + 0.1 * error, atol=1e-6)
        bench.step(frame)
        np.testing.assert_allclose(bench.newest(name), before + 0.2 * error, atol=1e-6)
        # The new gain is at work on what is new.
        bench.step(random_frame(parameters, np.random.default_rng(4)))
        later = bench.newest(f"e_{loop.upper()}").astype(float)
        expected = before + 0.2 * error + 0.7 * (later - error) + 0.1 * later + 0.3 * (later - error)
        np.testing.assert_allclose(bench.newest(name), expected, atol=2e-6)


def test_a_new_integral_gain_keeps_the_integral():
    parameters = random_problem(limits=WIDE, control_lo=gains(2, ki=0.1))
    frame = random_frame(parameters, np.random.default_rng(3))
    with LoopBench(parameters) as bench:
        bench.set_loops(True, False)
        for _ in range(4):
            bench.step(frame)
        error = bench.newest("e_LO").astype(float)
        new = replace(parameters, control_lo=gains(2, ki=0.02))
        bench.loop.wait_adopted(bench.loop.update(new), 10.0)
        bench.step(frame)
        np.testing.assert_allclose(bench.newest("u_LO"), (0.4 + 0.02) * error, atol=1e-6)


def test_without_integral_action_a_new_proportional_gain_acts_at_once():
    """An offset in the integral would stay for ever."""
    parameters = random_problem(limits=WIDE, control_lo=gains(2, kp=0.2, ki=0.0))
    frame = random_frame(parameters, np.random.default_rng(3))
    with LoopBench(parameters) as bench:
        bench.set_loops(True, False)
        bench.step(frame)
        new = replace(parameters, control_lo=gains(2, kp=0.5, ki=0.0))
        bench.loop.wait_adopted(bench.loop.update(new), 10.0)
        bench.step(frame)
        np.testing.assert_allclose(bench.newest("u_LO"), 0.5 * bench.newest("e_LO"), atol=1e-6)
        np.testing.assert_array_equal(bench.loop.arrays.state.integral_lo, 0.0)


def test_gains_that_change_before_closing_leave_no_trace():
    parameters = random_problem(limits=WIDE, control_lo=gains(2, kp=0.2, ki=0.1))
    frame = random_frame(parameters, np.random.default_rng(3))
    with LoopBench(parameters) as bench:
        bench.set_loops(True, False)
        bench.step(frame)
        bench.set_loops(False, False)
        new = replace(parameters, control_lo=gains(2, kp=0.5, ki=0.1))
        bench.loop.wait_adopted(bench.loop.update(new), 10.0)
        bench.set_loops(True, False)
        bench.step(frame)
        np.testing.assert_allclose(bench.newest("u_LO"), 0.6 * bench.newest("e_LO"), atol=1e-6)
