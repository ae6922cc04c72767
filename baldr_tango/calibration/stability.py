"""Stability of a closed loop in discrete time: poles outside the unit circle, gain margin, weakest mode.

With outputs u, errors e and the loop matrix L, which says how much each output changes each error::

    u(z) = C(z) e(z)        controllers
    e(z) = -F(z) z^-d L u(z) + disturbance        boxcar F, delay of d frames

The poles are the zeros of ``f(z) = det(1 + F z^-d C L)``. Outside a circle just larger than the unit circle
f has no poles and tends to 1, so the number of its zeros there is the number of turns of f around 0 while
z goes once around the circle (argument principle; the multivariable Nyquist criterion of MacFarlane and
Postlethwaite 1977, Int. J. Control 25, 81). The effort does not grow with the boxcar, unlike that
of the eigenvalues of a companion matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.calibration.controllers import Controller

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]

GROWTH: Final = 1e-6
"""Growth per frame that counts as stable: by less than e within 1000 s at 1 kHz."""

MOST_GAIN: Final = 1000.0
"""Largest gain margin looked for; it means "at least this"."""

LEAST_GAIN: Final = 1.0 / 1024.0
"""Gains below this fraction are not tried: the gain margin is then 0."""

PRECISION: Final = 0.002
"""Relative precision of the gain margin."""

_MAX_STEP: Final = 0.8
_MOST_REFINEMENTS: Final = 40
_CHUNK: Final = 64
_MOST_CONDITION: Final = 1e7
_MOST_CANDIDATES: Final = 8


class ClosedLoop:
    """Some modes, their controllers and what they see of each other.

    Parameters
    ----------
    matrix : (M, M) loop matrix L: error of each mode per unit of output of each mode.
    controllers : of consecutive modes, M in all.
    delay_frames : frames from a measurement to the first one that its command has changed.
    weights : (b,) weights of the boxcar, oldest frame first.
    """

    def __init__(
        self,
        matrix: FloatArray,
        controllers: Sequence[Controller],
        delay_frames: int,
        weights: ArrayLike = (1.0,),
    ) -> None:
        sizes = [controller.n_modes for controller in controllers]
        if matrix.shape != (sum(sizes), sum(sizes)):
            raise ValueError(f"loop matrix: expected {sum(sizes)} rows and columns, found {matrix.shape}")
        if delay_frames < 1:
            raise ValueError(f"delay: found {delay_frames}, expected at least 1 frame")
        self.matrix = matrix
        self.controllers = tuple(controllers)
        self.delay_frames = delay_frames
        self.weights = np.asarray(weights, dtype=np.float64)

    def unstable_poles(self, gain: float = 1.0) -> int:
        """Number of poles outside the unit circle when every gain is multiplied by `gain`."""
        if not self.matrix.size:
            return 0
        angles = self._grid
        phase = np.angle(self._factors(angles, gain))
        for _ in range(_MOST_REFINEMENTS):
            turned = np.diff(phase, axis=0)
            steps = np.abs(turned - 2.0 * np.pi * np.round(turned / (2.0 * np.pi)))
            coarse = np.flatnonzero(steps.max(axis=1) > _MAX_STEP)
            if not coarse.size:
                break
            middle = 0.5 * (angles[coarse] + angles[coarse + 1])
            angles = np.insert(angles, coarse + 1, middle)
            phase = np.insert(phase, coarse + 1, np.angle(self._factors(middle, gain)), axis=0)
        turned = np.diff(phase, axis=0)
        turned -= 2.0 * np.pi * np.round(turned / (2.0 * np.pi))
        # Half the circle: f of the conjugate is the conjugate of f.
        return -round(float(turned.sum()) / np.pi)

    def is_stable(self, gain: float = 1.0) -> bool:
        """Say whether no pole lies outside the unit circle when every gain is multiplied by `gain`."""
        return self.unstable_poles(gain) == 0

    def gain_margin(self) -> float:
        """Largest factor on all gains, looked for from 1, that keeps the loop stable.

        At least 1 for a stable loop, at most `MOST_GAIN`; less than 1 for an unstable one, 0 when smaller
        gains do not help either. The gain of a LEAKY controller is multiplied, not its leak; with a KALMAN
        regulator it is the response of the sensor, which its model does not know of.
        """
        if self.is_stable():
            low, high = 1.0, 2.0
            while self.is_stable(high):
                low, high = high, 2.0 * high
                if low >= MOST_GAIN:
                    return MOST_GAIN
        else:
            low, high = 0.5, 1.0
            while not self.is_stable(low):
                low, high = 0.5 * low, low
                if low < LEAST_GAIN:
                    return 0.0
        while high > low * (1.0 + PRECISION):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if self.is_stable(middle) else (low, middle)
        return low

    def weakest(self, gain: float) -> tuple[int, float]:
        """Find what oscillates or drifts first when every gain is multiplied by `gain`.

        Returns
        -------
        mode that moves most, phase per frame [rad]: 0 is a drift, pi alternates every frame.
        """
        angles = self._grid
        size = np.log(np.abs(self._factors(angles, gain)) + 1e-300).sum(axis=1)
        padded = np.concatenate([[np.inf], size, [np.inf]])
        lows = np.flatnonzero((size <= padded[:-2]) & (size <= padded[2:]))
        depth = np.minimum(padded[lows], padded[lows + 2]) - size[lows]
        depth[~np.isfinite(depth)] = 0.0
        lows = lows[np.argsort(depth)[::-1][:_MOST_CANDIDATES]]
        ends = np.array([0, angles.size - 1])
        best, found = np.inf, (0, 0.0)
        for angle in angles[np.union1d(lows, ends)]:
            matrix = self._closed(np.array([np.exp(1j * angle) * (1.0 + GROWTH)]), gain)[0]
            _, singular, vectors = np.linalg.svd(matrix)
            if singular[-1] < best:
                best, found = float(singular[-1]), (int(np.argmax(np.abs(vectors[-1]))), float(angle))
        return found

    def drifting(self) -> int:
        """Find the mode that moves most in what drifts away even with the smallest gains.

        With little gain only what the controllers add up over many frames counts: outputs drift along the
        eigenvectors of ``C L`` near z = 1, away from 0 where the real part of the eigenvalue is negative.
        """
        matrix = self._closed(np.array([1.0 + GROWTH], dtype=np.complex128), 1.0)[0]
        values, vectors = np.linalg.eig(matrix)
        return int(np.argmax(np.abs(vectors[:, np.argmin(values.real)])))

    @cached_property
    def _grid(self) -> FloatArray:
        """Phases from 0 to pi, dense near 0, where slow modes are, and enough for the boxcar."""
        slow = np.geomspace(0.1 * GROWTH, np.pi, 500)
        even = np.linspace(0.0, np.pi, max(200, 4 * self.weights.size))
        return np.union1d(slow, even)

    def _open(self, z: ComplexArray, gain: float) -> ComplexArray:
        """Boxcar and delay, ``gain F(z) z^-d``."""
        powers = -(self.delay_frames + np.arange(self.weights.size)[::-1])
        if self.weights.size == 1:
            return np.asarray(gain * self.weights[0] * z ** powers[0])
        return np.asarray(gain * (z[:, None] ** powers @ self.weights))

    def _factors(self, angles: FloatArray, gain: float) -> ComplexArray:
        """Numbers (n, k) whose product is f, at the points of the circle given by their phases."""
        z = np.exp(1j * angles) * (1.0 + GROWTH)
        own = [controller.own_poles(z) for controller in self.controllers]
        main = self._determinant(z, gain) if self._modal is None else self._arrow(z, gain)
        return np.concatenate([main, *own], axis=1)

    def _closed(self, z: ComplexArray, gain: float) -> ComplexArray:
        """Matrices ``1 + F z^-d C L``, (n, M, M)."""
        rows, first = [], 0
        for controller in self.controllers:
            part = self.matrix[first : first + controller.n_modes]
            response = controller.response(z)
            rows.append(response[:, :, None] * part if response.ndim == 2 else response @ part)
            first += controller.n_modes
        product = np.concatenate(rows, axis=1) * self._open(z, gain)[:, None, None]
        return np.asarray(product + np.eye(self.matrix.shape[0]))

    def _determinant(self, z: ComplexArray, gain: float) -> ComplexArray:
        """Determinant of `_closed`, (n, 1), its size tempered so that it does not overflow."""
        parts = []
        for start in range(0, z.size, _CHUNK):
            sign, size = np.linalg.slogdet(self._closed(z[start : start + _CHUNK], gain))
            parts.append(sign * np.exp(np.clip(size, -600.0, 600.0)))
        return np.concatenate(parts)[:, None]

    @cached_property
    def _modal(self) -> tuple[Controller, ComplexArray, ComplexArray, ComplexArray] | None:
        """Last group of modes in its own eigenvectors, when it shares one transfer function.

        That transfer function, eigenvalues (m,), and what couples them to the head: (h, m) and (m, h).
        """
        shared = self.controllers[-1].common()
        if shared is None:
            return None
        controller, factors = shared
        head = self.matrix.shape[0] - factors.size
        values, vectors = np.linalg.eig(factors[:, None] * self.matrix[head:, head:])
        if not np.linalg.cond(vectors) < _MOST_CONDITION:
            return None
        seen = self.matrix[:head, head:] @ vectors
        driven = np.linalg.solve(vectors, factors[:, None] * self.matrix[head:, :head])
        return controller, values, seen, driven

    def _arrow(self, z: ComplexArray, gain: float) -> ComplexArray:
        """Determinant by blocks: one factor for each eigenvalue of the last group, one for the head."""
        assert self._modal is not None
        controller, values, seen, driven = self._modal
        q = self._open(z, gain)
        qc = (q * controller.response(z)[:, 0])[:, None]
        tail = 1.0 + qc * values
        head = self.matrix.shape[0] - values.size
        if not head:
            return tail
        inner = self.matrix[:head, :head] - (seen[None] * (qc / tail)[:, None, :]) @ driven
        rows, first = [], 0
        for block in self.controllers[:-1]:
            part = inner[:, first : first + block.n_modes]
            response = block.response(z)
            rows.append(response[:, :, None] * part if response.ndim == 2 else response @ part)
            first += block.n_modes
        small = np.eye(head) + q[:, None, None] * np.concatenate(rows, axis=1)
        return np.concatenate([tail, np.linalg.det(small)[:, None]], axis=1)
