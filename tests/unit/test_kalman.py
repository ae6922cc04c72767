"""The Kalman regulator: its Riccati equation, its equations in numpy, and what it leaves as residual."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.configuration.kalman import HIGHEST_GAIN, default_model, kalman_model
from baldr_tango.errors import RequestError
from baldr_tango.kernels.control import forget_silenced, kalman_step, leaky_step


class Regulator:
    """The kernel with its state."""

    def __init__(self, model, bound=100.0, set_point=0.0):
        n = model.gain.shape[0]
        matrices = (model.transition, model.control, model.measurement, model.gain)
        self.matrices = [matrix.astype(np.float32) for matrix in matrices]
        self.bounds = [np.full(n, -bound), np.full(n, bound)]
        self.set_point = np.full(n, set_point)
        self.predicted, self.scratch, self.output = np.zeros((3, n), dtype=np.float32)

    def __call__(self, z):
        kalman_step(
            np.asarray(z, dtype=np.float32),
            self.set_point,
            *self.matrices,
            *self.bounds,
            self.predicted,
            self.scratch,
            self.output,
        )
        return self.output.astype(float)


def random_model(rng, n):
    """A stable model with full matrices."""
    a = rng.normal(size=(n, n))
    a *= 0.97 / np.abs(np.linalg.eigvals(a)).max()
    h = np.eye(n) + 0.2 * rng.normal(size=(n, n))
    q, r = (
        m @ m.T * scale for m, scale in ((rng.normal(size=(n, n)), 1e-3), (rng.normal(size=(n, n)), 1e-2))
    )
    return kalman_model(a, h + 0.1 * rng.normal(size=(n, n)), h, q, r + 1e-4 * np.eye(n))


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_the_covariance_is_where_the_filter_settles(n):
    """The prediction covariance, advanced frame by frame, ends at the solution of the Riccati equation."""
    m = random_model(np.random.default_rng(n), n)
    a, h, q, r = m.transition, m.measurement, m.process_noise, m.measurement_noise
    p = np.eye(n)
    for _ in range(3000):
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + r)
        p = a @ (p - gain @ h @ p) @ a.T + q
    np.testing.assert_allclose(m.covariance, p, rtol=1e-6, atol=1e-9 * np.abs(p).max())
    np.testing.assert_allclose(m.gain, gain, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("a", [0.0, 0.5, 0.99, 1.0, -0.9])
@pytest.mark.parametrize("h", [1.0, 0.4, -2.0])
def test_a_scalar_model_agrees_with_the_matrix_solution(a, h):
    """The closed form of diagonal models against doubling, forced by a coupling that is next to nothing."""
    q, r = np.diag([1e-5, 4e-4]), np.diag([1e-3, 2e-4])
    one = np.eye(2)
    coupled = a * one + np.array([[0.0, 1e-13], [0.0, 0.0]])
    scalar, matrix = kalman_model(a * one, one, h * one, q, r), kalman_model(coupled, one, h * one, q, r)
    np.testing.assert_allclose(scalar.covariance, matrix.covariance, rtol=1e-8, atol=1e-15)


def test_the_kernel_follows_the_equations_of_the_model():
    rng = np.random.default_rng(3)
    m = random_model(rng, 6)
    regulator = Regulator(m, bound=0.8, set_point=0.05)
    predicted, u, saturated = np.zeros(6), np.zeros(6), 0
    for _ in range(300):
        z = rng.normal(0.0, 0.3, 6)
        innovation = (z - 0.05) - (m.measurement @ predicted - m.control @ u)
        predicted = m.transition @ (predicted + m.gain @ innovation)
        u = np.clip(predicted, -0.8, 0.8)
        saturated += int(np.abs(u).max() == 0.8)
        np.testing.assert_allclose(regulator(z), u, atol=2e-5)
    assert saturated > 10


def test_the_residual_has_the_variance_that_the_model_promises():
    """An AR(1) disturbance, seen one frame late and with noise: the residual's variance is P, the least."""
    rng = np.random.default_rng(12)
    modes, frames = 6, 12000
    a = np.linspace(0.9, 0.995, modes)
    q, r = np.geomspace(1e-4, 1e-3, modes), np.geomspace(4e-3, 2e-4, modes)
    model = kalman_model(np.diag(a), np.eye(modes), np.eye(modes), np.diag(q), np.diag(r))
    regulator = Regulator(model)
    others = {gain: np.zeros(modes) for gain in (0.05, 0.2, 0.5, 0.9)}
    x, u = np.zeros(modes), np.zeros(modes)
    residuals, other_residuals = [], {gain: [] for gain in others}
    for _ in range(frames):
        noise = rng.normal(0.0, np.sqrt(r))
        residuals.append(x - u)
        u = regulator(x - u + noise)
        for gain, command in others.items():
            other_residuals[gain].append(x - command)
            others[gain] = command + gain * (x - command + noise)
        x = a * x + rng.normal(0.0, np.sqrt(q))
    found = np.mean(np.square(residuals[200:]), axis=0)
    np.testing.assert_allclose(found, np.diag(model.covariance), rtol=0.1)
    np.testing.assert_allclose(found.sum(), np.trace(model.covariance), rtol=0.04)
    for gain, values in other_residuals.items():
        assert np.mean(np.square(values[200:])) > found.mean(), f"integrator of gain {gain}"


def test_the_default_regulator_is_the_leaky_integrator_of_the_same_gain():
    rng = np.random.default_rng(4)
    gain, leak = np.array([0.05, 0.3, 0.9]), np.array([1.0, 0.99, 0.8])
    model = default_model(gain, leak)
    np.testing.assert_allclose(model.gain, np.diag(gain), rtol=1e-12)
    regulator = Regulator(model)
    integral, previous, output = np.zeros(3), np.zeros(3), np.zeros(3, dtype=np.float32)
    for _ in range(200):
        z = rng.normal(0.0, 0.1, 3).astype(np.float32)
        leaky_step(z, np.zeros(3), gain, leak, np.full(3, -9.0), np.full(3, 9.0), integral, previous, output)
        np.testing.assert_allclose(regulator(z), output, atol=1e-5)


def test_default_gains_out_of_range_are_brought_to_it():
    model = default_model(np.array([-0.2, 0.0, 3.0]), np.ones(3))
    np.testing.assert_allclose(np.diag(model.gain), [0.0, 0.0, HIGHEST_GAIN], atol=1e-12)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"transition": np.diag([1.01, 0.5])}, "A: the disturbance grows without bound"),
        ({"transition": np.array([[0.9, 5.0], [5.0, 0.9]])}, "A: the disturbance grows without bound"),
        ({"process_noise": np.array([[1.0, 0.5], [0.4, 1.0]])}, "Q: a covariance is symmetric"),
        ({"process_noise": np.array([[1.0, 2.0], [2.0, 1.0]])}, "Q: no variance may be negative"),
        ({"measurement_noise": np.diag([1.0, 0.0])}, "R: every variance must be above 0"),
        ({"measurement": np.diag([1.0, 0.0])}, "no steady gain"),
        ({"measurement": np.array([[1.0, 1.0], [1.0, 1.0]])}, "no steady gain"),
    ],
)
def test_a_model_without_a_steady_gain_is_refused(change, text):
    one = np.eye(2)
    good = {
        "transition": one,
        "control": one,
        "measurement": one,
        "process_noise": 0.1 * one,
        "measurement_noise": one,
    }
    assert np.isfinite(kalman_model(**good).gain).all()
    with pytest.raises(RequestError, match=text):
        kalman_model(**{**good, **change})


def test_what_was_silenced_does_not_come_back_with_the_prediction():
    output = np.array([0.0, 0.2], dtype=np.float32)
    predicted = np.array([0.7, 0.2], dtype=np.float32)
    forget_silenced(output, predicted)
    assert predicted.tolist() == [0.0, np.float32(0.2)]
