"""Controllers as transfer functions: output over error, as functions of z, one step per frame.

The difference equations are those of the real-time loop (`baldr_tango.kernels.control`), without their
clamps: a prediction holds for small signals.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import ControllerSettings
from baldr_tango.configuration.kalman import KalmanModel
from baldr_tango.errors import ConfigError

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Controller:
    """Controller of some modes."""

    kind: str
    """PID, LEAKY or KALMAN."""
    settings: ControllerSettings
    kalman: KalmanModel | None = None
    """Model of a KALMAN controller; others have none."""

    def __post_init__(self) -> None:
        """Refuse what has no transfer function: `ConfigError`."""
        if self.kind not in ("PID", "LEAKY", "KALMAN"):
            raise ConfigError(f"controller: found {self.kind!r}, expected PID, LEAKY or KALMAN")
        if (self.kind == "KALMAN") != (self.kalman is not None):
            raise ConfigError(f"controller {self.kind}: a Kalman model goes with KALMAN, and only with it")

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return int(self.settings.ki.size)

    @property
    def is_active(self) -> NDArray[np.bool_]:
        """(M,) True for modes that the controller may move."""
        if self.kalman is None:
            return np.any(self._gains() != 0.0, axis=0)
        if self._couples_modes():
            return np.ones(self.n_modes, dtype=bool)
        return np.diag(self.kalman.transition @ self.kalman.gain) != 0.0

    @property
    def can_be_split(self) -> bool:
        """True when no mode depends on the errors of others."""
        return self.kalman is None or not self._couples_modes()

    def select(self, modes: NDArray[np.int64]) -> Controller:
        """Return the controller of some of the modes; it must be one that can be split."""
        s, part = self.settings, np.ix_(modes, modes)
        settings = replace(s, **{f.name: getattr(s, f.name)[modes] for f in fields(s)})
        if self.kalman is None:
            return Controller(self.kind, settings)
        matrices = {f.name: getattr(self.kalman, f.name)[part] for f in fields(self.kalman)}
        return Controller(self.kind, settings, replace(self.kalman, **matrices))

    def response(self, z: ComplexArray) -> ComplexArray:
        """Transfer function at each z: (n, M) for independent modes, (n, M, M) for coupled ones.

        PID: ``kp + ki z / (z - 1) + kd (z - 1) / z``. LEAKY: ``alpha ki z / (z - alpha)``.
        KALMAN: ``(1 - Phi / z)^-1 A K`` with ``Phi = A (1 - K H + K B)``.
        """
        if self.kalman is not None:
            drive, feedback = self.kalman.transition @ self.kalman.gain, self._feedback(self.kalman)
            if not self._couples_modes():
                return np.asarray(np.diag(drive) / (1.0 - np.diag(feedback) / z[:, None]))
            matrix = np.eye(self.n_modes) - feedback / z[:, None, None]
            return np.asarray(np.linalg.solve(matrix, np.broadcast_to(drive, matrix.shape)))
        return self._basis(z, self.settings.leak) @ self._gains() if self._is_uniform() else self._each(z)

    def own_poles(self, z: ComplexArray) -> ComplexArray:
        """Factors (n, k) that vanish at poles of the controller itself that may be unstable; k may be 0."""
        if self.kalman is None:
            return np.ones((z.size, 0), dtype=np.complex128)
        return np.asarray(1.0 - np.linalg.eigvals(self._feedback(self.kalman)) / z[:, None])

    def common(self) -> tuple[Controller, FloatArray] | None:
        """Write the controller as one transfer function times a factor per mode, if it is one.

        Returns
        -------
        controller of one mode, factors (M,); None when the modes differ in more than a factor.
        """
        if self.kalman is not None or not self.n_modes or not self._is_uniform():
            return None
        gains = self._gains()
        largest = int(np.argmax(np.linalg.norm(gains, axis=0)))
        one = gains[:, largest]
        if not one.any():
            return None
        factors = one @ gains / (one @ one)
        if not np.allclose(np.outer(one, factors), gains, rtol=1e-12, atol=0.0):
            return None
        return self.select(np.array([largest])), factors

    @staticmethod
    def _feedback(model: KalmanModel) -> FloatArray:
        """Matrix that takes one output to the next when nothing is measured."""
        one = np.eye(model.gain.shape[0])
        return np.asarray(model.transition @ (one + model.gain @ (model.control - model.measurement)))

    def _couples_modes(self) -> bool:
        model = self.kalman
        if model is None:
            return False
        matrices = (model.transition, model.control, model.measurement, model.gain)
        return any(np.any(matrix - np.diag(np.diag(matrix))) for matrix in matrices)

    def _gains(self) -> FloatArray:
        """(k, M) factors of the transfer functions in `_basis`."""
        s = self.settings
        return s.ki[None, :] if self.kind == "LEAKY" else np.stack([s.kp, s.ki, s.kd])

    def _is_uniform(self) -> bool:
        return self.kind == "PID" or bool(np.all(self.settings.leak == self.settings.leak[:1]))

    def _basis(self, z: ComplexArray, leak: FloatArray) -> ComplexArray:
        """(n, k) transfer functions that the gains multiply."""
        if self.kind == "LEAKY":
            alpha = leak[0] if leak.size else 1.0
            return np.asarray(alpha * z / (z - alpha))[:, None]
        return np.stack([np.ones_like(z), z / (z - 1.0), (z - 1.0) / z], axis=-1)

    def _each(self, z: ComplexArray) -> ComplexArray:
        alpha = self.settings.leak
        return np.asarray(alpha * self.settings.ki * z[:, None] / (z[:, None] - alpha))
