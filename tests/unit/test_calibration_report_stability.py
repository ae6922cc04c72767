"""Predicted stability against textbook margins, eigenvalues of a companion matrix, and time itself."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.calibration.controllers import Controller
from baldr_tango.calibration.stability import MOST_GAIN, ClosedLoop
from baldr_tango.configuration.kalman import kalman_model
from baldr_tango.errors import ConfigError
from tests.closed_loop import grows, leaky, pid, response
from tests.problem import gains

ONE = np.ones(1)


def ramp(frames: int) -> np.ndarray:
    return np.arange(1.0, frames + 1) / (frames * (frames + 1) / 2)


def margin(matrix, controller, delay, weights=ONE) -> float:
    return ClosedLoop(np.atleast_2d(np.asarray(matrix, float)), (controller,), delay, weights).gain_margin()


@pytest.mark.parametrize("delay", [1, 2, 3, 5])
@pytest.mark.parametrize("sensitivity", [0.4, 1.0, 2.5])
def test_margin_of_an_integrator_is_the_textbooks(delay, sensitivity):
    """z^d - z^(d-1) + g k = 0 leaves the unit circle at g k = 2 sin(pi / (4d - 2))."""
    expected = 2 * np.sin(np.pi / (4 * delay - 2)) / (0.3 * sensitivity)
    assert margin([[sensitivity]], pid(1, ki=0.3), delay) == pytest.approx(expected, rel=0.003)


@pytest.mark.parametrize("leak", [0.5, 0.9, 0.99, 1.0])
def test_margin_of_a_leaky_integrator(leak):
    """Delay 1: the pole leak (1 - g k) reaches -1. Delay 2: the product of the poles, leak g k, reaches 1."""
    controller = leaky(1, ki=0.2, leak=leak)
    assert margin([[1.5]], controller, 1) == pytest.approx((1 + leak) / leak / 0.3, rel=0.003)
    assert margin([[1.5]], controller, 2) == pytest.approx(1 / leak / 0.3, rel=0.003)


def test_margin_of_a_proportional_controller():
    assert margin([[2.0]], pid(1, kp=0.25, ki=0.0), 1) == pytest.approx(2.0, rel=0.003)


def test_a_wrong_sign_cannot_be_helped_by_smaller_gains():
    loop = ClosedLoop(np.diag([1.0, -0.01]), (pid(2, ki=0.3),), 2)
    assert not loop.is_stable()
    assert loop.gain_margin() == 0.0
    assert loop.drifting() == 1


def test_a_leak_holds_a_weak_wrong_sign():
    """leak (1 + 0.01 g k) < 1 for g k < 1.01."""
    assert margin([[-0.01]], leaky(1, ki=0.5, leak=0.99), 1) == pytest.approx(2.02, rel=0.003)


def test_modes_that_nobody_sees_do_not_matter():
    singular = np.array([[1.0, 1.0], [1.0, 1.0]]) / 2
    assert margin(singular, pid(2, ki=0.5), 2) == pytest.approx(2.0, rel=0.003)
    assert margin(np.zeros((0, 0)), pid(0), 2) == MOST_GAIN
    assert margin(np.zeros((3, 3)), pid(3), 2) == MOST_GAIN


def test_the_weakest_mode_and_its_frequency_are_found():
    loop = ClosedLoop(np.diag([0.3, 1.8, 0.9]), (pid(3, ki=0.3),), 2)
    mode, phase = loop.weakest(loop.gain_margin())
    assert mode == 1
    assert phase == pytest.approx(np.pi / 3, abs=0.02), "z^2 - z + 1 = 0"
    alternating = ClosedLoop(np.diag([0.3, 1.8, 0.9]), (pid(3, ki=0.3),), 1)
    assert alternating.weakest(alternating.gain_margin())[1] == pytest.approx(np.pi, abs=0.05)


def random_controller(rng: np.random.Generator, kind: str, modes: int) -> Controller:
    if kind == "pid":
        return pid(
            modes, kp=rng.uniform(0, 0.2, modes), ki=rng.uniform(0.1, 0.7, modes), kd=rng.uniform(0, 0.2)
        )
    if kind == "integrator":
        return pid(modes, ki=rng.uniform(0.1, 0.7, modes))
    if kind == "leaky":
        return leaky(modes, ki=rng.uniform(0.1, 0.7, modes), leak=rng.uniform(0.8, 1.0))
    if kind == "leaks":
        return leaky(modes, ki=rng.uniform(0.1, 0.7, modes), leak=rng.uniform(0.8, 1.0, modes))
    identity = np.eye(modes)
    coupling = rng.normal(0, 0.02, (modes, modes)) if kind == "kalman" else 0.0
    model = kalman_model(
        0.9 * identity + coupling,
        rng.uniform(0.7, 1.2) * identity,
        identity,
        rng.uniform(0.05, 1.0) * identity,
        identity,
    )
    return Controller("KALMAN", gains(modes), model)


KINDS = ("pid", "integrator", "leaky", "leaks", "kalman", "kalman by mode")


def random_loop(seed: int, low: str, high: str, frames: int) -> ClosedLoop:
    rng = np.random.default_rng(seed)
    modes = int(rng.integers(2, 6))
    matrix = rng.uniform(0.4, 1.4) * np.eye(2 + modes) + rng.normal(0, 0.25, (2 + modes, 2 + modes))
    controllers = (random_controller(rng, low, 2), random_controller(rng, high, modes))
    return ClosedLoop(matrix, controllers, int(rng.integers(1, 4)), ramp(frames))


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize("high", KINDS)
@pytest.mark.parametrize("low", ["pid", "leaky", "kalman"])
def test_outputs_decay_below_the_margin_and_grow_above_it(low, high, frames):
    tried = 0
    for seed in range(3):
        loop = random_loop(seed, low, high, frames)
        limit = loop.gain_margin()
        if not 0.0 < limit < 100.0:
            continue
        tried += 1
        for factor, expected in ((0.93, False), (1.07, True)):
            outputs = response(
                loop.matrix, loop.controllers, loop.delay_frames, loop.weights, factor * limit, 1200
            )
            assert grows(outputs) == expected, f"seed {seed}, gain {factor} x {limit:.3f}"
    assert tried


def companion_poles(loop: ClosedLoop, gain: float) -> np.ndarray:
    """Eigenvalues of the difference equations written as one matrix: controller states, then past outputs."""
    states = []
    for controller in loop.controllers:
        s, one = controller.settings, np.eye(controller.n_modes)
        if controller.kalman is not None:
            k = controller.kalman
            feedback = k.transition @ (one - k.gain @ k.measurement + k.gain @ k.control)
            states.append((feedback, k.transition @ k.gain, feedback, k.transition @ k.gain))
        elif controller.kind == "LEAKY":
            a, b = np.diag(s.leak), np.diag(s.leak * s.ki)
            states.append((a, b, a, b))
        else:
            a = np.block([[one, 0 * one], [0 * one, 0 * one]])
            b = np.vstack([np.diag(s.ki), one])
            states.append((a, b, np.hstack([one, -np.diag(s.kd)]), np.diag(s.kp + s.ki + s.kd)))

    def stacked(index: int) -> np.ndarray:
        blocks = [state[index] for state in states]
        whole = np.zeros((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)))
        row = column = 0
        for block in blocks:
            whole[row : row + block.shape[0], column : column + block.shape[1]] = block
            row, column = row + block.shape[0], column + block.shape[1]
        return whole

    a, b, c, d = (stacked(index) for index in range(4))
    modes, past = loop.matrix.shape[0], loop.delay_frames + loop.weights.size - 1
    error = np.zeros((modes, past * modes))
    for age, weight in enumerate(loop.weights[::-1]):
        first = (loop.delay_frames + age - 1) * modes
        error[:, first : first + modes] = -gain * weight * loop.matrix
    matrix = np.zeros((len(a) + past * modes,) * 2)
    matrix[: len(a)] = np.hstack([a, b @ error])
    matrix[len(a) : len(a) + modes] = np.hstack([c, d @ error])
    matrix[len(a) + modes :, len(a) : -modes] = np.eye((past - 1) * modes)
    return np.linalg.eigvals(matrix)


@pytest.mark.parametrize("frames", [1, 2, 20])
@pytest.mark.parametrize("high", KINDS)
@pytest.mark.parametrize("low", ["integrator", "pid", "leaky", "kalman"])
def test_unstable_poles_are_counted_right(low, high, frames):
    for seed in range(2):
        loop = random_loop(seed, low, high, frames)
        for gain in (0.3, 1.0, 2.5):
            expected = int((np.abs(companion_poles(loop, gain)) > 1 + 1e-6).sum())
            assert loop.unstable_poles(gain) == expected, f"seed {seed}, gain {gain}"


def test_degenerate_modes_are_counted_one_by_one():
    """Mirrors have symmetries: several modes leave the unit circle at the same gain and frequency."""
    for size in (2, 3, 8):
        loop = ClosedLoop(np.eye(size), (pid(size, ki=0.3),), 2)
        assert loop.unstable_poles(1.01 / 0.3) == 2 * size
        assert loop.unstable_poles(0.99 / 0.3) == 0


def test_what_is_no_loop_is_refused():
    with pytest.raises(ValueError, match="expected 3 rows and columns"):
        ClosedLoop(np.eye(2), (pid(3),), 1)
    with pytest.raises(ValueError, match="found 0, expected at least 1"):
        ClosedLoop(np.eye(2), (pid(2),), 0)
    with pytest.raises(ConfigError, match=r"'BANG'.*PID, LEAKY or KALMAN"):
        Controller("BANG", gains(2))
    with pytest.raises(ConfigError, match="KALMAN"):
        Controller("KALMAN", gains(2))
