"""Stability of the loops as they are configured, from the measured interaction matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.controllers import Controller
from baldr_tango.calibration.quality import actuator_points
from baldr_tango.calibration.stability import ClosedLoop
from baldr_tango.configuration.derived import ControllerSettings, LoopParameters
from baldr_tango.configuration.kalman import KalmanModel
from baldr_tango.rtc.arrays import boxcar_weights

FloatArray = NDArray[np.float64]

Loops = Literal["LO", "HO", "LO+HO"]
"""Which loops are closed."""

DELAYS: Final = (1, 2)
"""Frames from a measurement to the first one that its command has changed.

A frame that is exposed, read out and processed within its period is corrected in the next but one; a mirror
that answers before the next exposure begins makes it one. Stable means with both.
"""


@dataclass(frozen=True)
class Prediction:
    """What becomes of some loops when they are closed, with a given delay."""

    loops: Loops
    delay_frames: int
    is_stable: bool
    gain_margin: float
    """Largest factor on all gains that keeps the loops stable, from 0 to 1000 (or more)."""
    weakest_mode: str
    """Mode that oscillates or drifts first, for instance "HO 57"; empty when there is none."""
    weakest_hz: float
    """Frequency of that; 0 is a drift."""

    def __str__(self) -> str:
        """Say it in a line."""
        verdict = "stable" if self.is_stable else "unstable"
        frames = "1 frame" if self.delay_frames == 1 else f"{self.delay_frames} frames"
        text = f"{verdict}, gain margin {self.gain_margin:.3g} with a delay of {frames}"
        if self.weakest_mode:
            text += f", weakest mode {self.weakest_mode} at {self.weakest_hz:.3g} Hz"
        return text


@dataclass(frozen=True, eq=False)
class LoopModel:
    """Modes that the reconstructors see, how they answer to each other, and their controllers."""

    matrix: FloatArray
    """(M, M) error of each mode per unit of output of each mode."""
    low: Controller
    high: Controller
    names: tuple[str, ...]
    """Of the modes, for instance "LO 0", "HO 57"."""
    frame_rate_hz: float
    weights: FloatArray
    """Of the boxcar, oldest frame first."""

    def closed(self, loops: Loops, delay_frames: int) -> ClosedLoop:
        """Close some of the loops."""
        head = self.low.n_modes
        if loops == "LO":
            return ClosedLoop(self.matrix[:head, :head], (self.low,), delay_frames, self.weights)
        if loops == "HO":
            return ClosedLoop(self.matrix[head:, head:], (self.high,), delay_frames, self.weights)
        return ClosedLoop(self.matrix, (self.low, self.high), delay_frames, self.weights)

    def predict(self, loops: Loops, delay_frames: int) -> Prediction:
        """Predict what closing some loops will do."""
        closed = self.closed(loops, delay_frames)
        margin = closed.gain_margin()
        name, frequency = "", 0.0
        if closed.matrix.size:
            mode, phase = closed.weakest(margin) if margin else (closed.drifting(), 0.0)
            name = self.names[mode + (self.low.n_modes if loops == "HO" else 0)]
            frequency = phase / (2.0 * np.pi) * self.frame_rate_hz
        return Prediction(loops, delay_frames, margin >= 1.0, margin, name, frequency)


def loop_model(parameters: LoopParameters) -> LoopModel | None:
    """Model the loops of a configuration; None when its interaction matrix does not allow it.

    The loop matrix is ``R IM_pokes^T M2C``: command of a unit output, signal of that command, errors of
    that signal. Modes without a reconstructor or without gain never move and are left out.
    """
    measured = parameters.interaction_matrix
    low, high = parameters.reconstructor_lo.shape[0], parameters.reconstructor_ho.shape[0]
    if measured is None:
        return None
    points = actuator_points(parameters.mode_shapes_lo.shape[0], measured.shape[0] - low)
    if points is None:
        return None
    reconstructor = np.vstack([parameters.reconstructor_lo, parameters.reconstructor_ho])
    reconstructor = reconstructor * parameters.signal_mask
    shapes = np.hstack([parameters.mode_shapes_lo, parameters.mode_shapes_ho])[points]
    controllers = [
        _controller(parameters.controller_type_lo, parameters.control_lo, parameters.kalman_lo),
        _controller(parameters.controller_type_ho, parameters.control_ho, parameters.kalman_ho),
    ]
    used = np.any(reconstructor != 0.0, axis=1)
    keep = []
    for controller, first in zip(controllers, (0, low), strict=True):
        seen = used[first : first + controller.n_modes] & controller.is_active
        keep.append(np.flatnonzero(seen | (not controller.can_be_split)))
    modes = np.concatenate([keep[0], keep[1] + low])
    matrix = reconstructor[modes] @ measured[low:].T @ shapes[:, modes]
    names = [f"LO {mode}" for mode in range(low)] + [f"HO {mode}" for mode in range(high)]
    return LoopModel(
        matrix=matrix,
        low=controllers[0].select(keep[0]) if controllers[0].can_be_split else controllers[0],
        high=controllers[1].select(keep[1]) if controllers[1].can_be_split else controllers[1],
        names=tuple(names[mode] for mode in modes),
        frame_rate_hz=parameters.frame_rate_hz,
        weights=boxcar_weights(parameters.boxcar).astype(np.float64),
    )


def _controller(kind: str, settings: ControllerSettings, model: KalmanModel | None) -> Controller:
    return Controller(kind, settings, model if kind == "KALMAN" else None)
