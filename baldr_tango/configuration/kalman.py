"""Model and steady-state gain of the Kalman regulator: one matrix equation, solved when the model changes.

Model of one loop, per frame n, with x the disturbance expressed as mode commands and u the command::

    x[n+1] = A x[n] + w          w white, covariance Q
    z[n]   = H x[n] - B u[n-1] + v    v white, covariance R

z is the measured mode error. The covariance P of the one-frame prediction of x obeys the discrete algebraic
Riccati equation ``P = A P A' - A P H' (H P H' + R)^-1 H P A' + Q``; the gain of the filter is
``K = P H' (H P H' + R)^-1`` (Anderson & Moore 1979, Optimal Filtering, ch. 4). A regulator that commands the
prediction leaves the residual variance P, the least that a command one frame late can leave
(Kulcsar et al. 2006, Opt. Express 14, 7464).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import RequestError

FloatArray = NDArray[np.float64]

DEFAULT_NOISE: Final = 1e-4
"""Variance of the measurement noise taken until somebody knows better [(DM units)^2]; the legacy value."""

HIGHEST_GAIN: Final = 0.95
"""Largest gain that a default model is made for."""

_MOST_DOUBLINGS: Final = 60
_TOLERANCE: Final = 1e-12
_STEADY: Final = 1e-4
_MARGIN: Final = 1e-9


@dataclass(frozen=True, eq=False)
class KalmanModel:
    """Model of the disturbance and the sensor of one loop (all (M, M)), and what follows from it."""

    transition: FloatArray
    """A: disturbance from frame to frame."""
    control: FloatArray
    """B: what the sensor sees of a command."""
    measurement: FloatArray
    """H: what the sensor sees of the disturbance."""
    process_noise: FloatArray
    """Q: covariance of the disturbance's innovation [(DM units)^2]."""
    measurement_noise: FloatArray
    """R: covariance of the measurement noise [(DM units)^2]."""
    covariance: FloatArray
    """P: covariance of the prediction error [(DM units)^2]."""
    gain: FloatArray
    """K: steady-state gain."""


def kalman_model(
    transition: FloatArray,
    control: FloatArray,
    measurement: FloatArray,
    process_noise: FloatArray,
    measurement_noise: FloatArray,
) -> KalmanModel:
    """Solve the Riccati equation of a model.

    transition, control, measurement, process_noise, measurement_noise : (M, M) A, B, H, Q, R

    Raises
    ------
    RequestError : a covariance is not one, the disturbance grows without bound, or no steady gain exists.
    """
    a, h, q, r = transition, measurement, process_noise, measurement_noise
    _check_covariance("Q", q, definite=False)
    _check_covariance("R", r, definite=True)
    if (radius := _spectral_radius(a)) > 1 + _MARGIN:
        raise RequestError(
            f"A: the disturbance grows without bound, spectral radius {radius:.6g}; at most 1 is allowed"
        )
    if all(_is_diagonal(matrix) for matrix in (a, h, q, r)):
        p = np.diag(_scalar_covariance(np.diag(a), np.diag(h), np.diag(q), np.diag(r)))
    else:
        p = _doubling(a, h, q, r)
    if not np.isfinite(p).all():
        raise RequestError("no steady gain: the sensor does not see a disturbance that does not fade (A, H)")
    gain = np.linalg.solve(h @ p @ h.T + r, h @ p).T
    # Rounding can end the iteration where an error that nobody sees still grows by Q per frame.
    growth = a @ (p - gain @ h @ p) @ a.T + q - p
    if np.abs(growth).max() > _STEADY * np.abs(q).max():
        raise RequestError("no steady gain: the sensor does not see a disturbance that does not fade (A, H)")
    return KalmanModel(a, control, h, q, r, p, gain)


def default_model(gain: FloatArray, leak: FloatArray) -> KalmanModel:
    """Return the model whose regulator is, mode by mode, a leaky integrator of this gain and leak.

    For ``A = leak``, ``H = B = 1`` the regulator is ``u <- leak (u + K z)``; Q over R is chosen so that K is
    `gain`, and R is `DEFAULT_NOISE`.

    gain : (M,) between 0 and `HIGHEST_GAIN`, other values are brought there; leak : (M,) between 0 and 1
    """
    k = np.clip(gain, 0.0, HIGHEST_GAIN)
    identity = np.eye(k.size)
    noise = np.full(k.size, DEFAULT_NOISE)
    process = noise * k * (1.0 / (1.0 - k) - leak**2)
    return kalman_model(np.diag(leak), identity, identity, np.diag(process), np.diag(noise))


def _scalar_covariance(a: FloatArray, h: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
    """Solve ``h^2 P^2 + (r - a^2 r - q h^2) P - q r = 0`` for P >= 0, element by element.

    Without measurement (h = 0) P is the variance of the disturbance itself, infinite for a random walk.
    """
    linear = r * (1.0 - a * a) - q * h * h
    root = np.sqrt(linear * linear + 4.0 * h * h * q * r)
    seen = h != 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of the two equal forms of the positive root, the one that does not subtract near numbers.
        p = np.where(linear > 0.0, 2.0 * q * r / (linear + root), (root - linear) / (2.0 * h * h))
        free = np.where(q > 0.0, q / (1.0 - a * a), 0.0)
    return np.where(seen, p, free)


def _doubling(a: FloatArray, h: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
    """Solve the Riccati equation by the structure-preserving doubling algorithm.

    Each step doubles the number of frames. Chu, Fan & Lin 2004, Int. J. Control 77, 767; for the filter, A
    and H enter transposed.
    """
    identity = np.eye(a.shape[0])
    forward, information, p = a.T, h.T @ np.linalg.solve(r, h), q
    for _ in range(_MOST_DOUBLINGS):
        inverse = np.linalg.solve(identity + information @ p, identity)
        change = forward.T @ p @ inverse @ forward
        information = information + forward @ inverse @ information @ forward.T
        forward = forward @ inverse @ forward
        p = p + (change + change.T) / 2.0
        if not np.isfinite(p).all():
            break
        if np.abs(change).max() <= _TOLERANCE * np.abs(p).max():
            return p
    raise RequestError("no steady gain: the Riccati equation of A, H, Q, R does not converge")


def _check_covariance(name: str, matrix: FloatArray, definite: bool) -> None:
    scale = np.abs(matrix).max(initial=0.0)
    if not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12 * scale):
        raise RequestError(f"{name}: a covariance is symmetric")
    least = float(np.linalg.eigvalsh(matrix)[0]) if matrix.size else 0.0
    if definite and not least > 0.0:
        raise RequestError(f"{name}: every variance must be above 0, smallest eigenvalue found {least:.3g}")
    if least < -1e-12 * scale:
        raise RequestError(f"{name}: no variance may be negative, smallest eigenvalue found {least:.3g}")


def _is_diagonal(matrix: FloatArray) -> bool:
    return not np.any(matrix - np.diag(np.diag(matrix)))


def _spectral_radius(matrix: FloatArray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max(initial=0.0))
