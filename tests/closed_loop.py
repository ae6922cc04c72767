"""Closed loops in the time domain, written from the difference equations alone, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.controllers import Controller
from tests.problem import gains


def pid(n: int, **values: object) -> Controller:
    """PID controller of `n` modes; scalars or vectors."""
    return Controller("PID", gains(n, **values))


def leaky(n: int, **values: object) -> Controller:
    """Leaky integrator of `n` modes; scalars or vectors."""
    return Controller("LEAKY", gains(n, **values))


class _Running:
    """State of one controller."""

    def __init__(self, controller: Controller) -> None:
        self.kind, self.g, self.model = controller.kind, controller.settings, controller.kalman
        self.integral = np.zeros(controller.n_modes)
        self.previous = np.zeros(controller.n_modes)
        self.output = np.zeros(controller.n_modes)

    def step(self, e: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.model is not None:
            m = self.model
            innovation = e - m.measurement @ self.previous + m.control @ self.output
            self.previous = m.transition @ (self.previous + m.gain @ innovation)
            self.output = self.previous
        elif self.kind == "LEAKY":
            self.integral = self.g.leak * (self.integral + self.g.ki * e)
            self.output = self.integral
        else:
            self.integral = self.integral + self.g.ki * e
            self.output = self.g.kp * e + self.integral + self.g.kd * (e - self.previous)
            self.previous = e
        return self.output


def response(
    matrix: NDArray[np.float64],
    controllers: Sequence[Controller],
    delay_frames: int,
    weights: NDArray[np.float64],
    gain: float,
    frames: int,
) -> NDArray[np.float64]:
    """Outputs (frames, M) after one frame with random errors; then nothing but the loop itself.

    weights : of the boxcar, oldest frame first; gain : multiplies the loop matrix
    """
    running = [_Running(controller) for controller in controllers]
    edges = np.cumsum([0, *(controller.n_modes for controller in controllers)])
    kick = np.random.default_rng(5).normal(size=matrix.shape[0])
    outputs = np.zeros((frames, matrix.shape[0]))
    errors = np.zeros((frames, matrix.shape[0]))
    for n in range(frames):
        if n >= delay_frames:
            errors[n] = -gain * matrix @ outputs[n - delay_frames]
        if n == 0:
            errors[n] += kick
        seen = sum(w * errors[n - age] for age, w in enumerate(weights[::-1]) if n >= age)
        outputs[n] = np.concatenate(
            [r.step(seen[a:b]) for r, a, b in zip(running, edges[:-1], edges[1:], strict=True)]
        )
    return outputs


def grows(outputs: NDArray[np.float64]) -> bool:
    """Tell whether the outputs change more and more."""
    change = np.linalg.norm(np.diff(outputs, axis=0), axis=1)
    third = change.size // 3
    return bool(np.linalg.norm(change[-third:]) > np.linalg.norm(change[third : 2 * third]))
