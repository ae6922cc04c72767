"""Closed loop on a synthetic linear plant: what theory says of it, and what telemetry shows."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import ControllerSettings, LoopParameters
from baldr_tango.telemetry.ring import TelemetryRing
from tests.mirror_bench import mirror_problem

Complex = NDArray[np.complex128]
Float = NDArray[np.float64]

FLUX_ADU = 1e7


def linear_problem(**changes: Any) -> LoopParameters:
    """A problem whose signal is the mirror's shape, actuator by actuator: modes are measured at gain 1."""
    p = mirror_problem(**changes)
    points, pixels = p.mode_shapes_lo.shape[0], p.dark.size
    interpolation = np.zeros((points, pixels))
    interpolation[:, :points] = np.eye(points)
    even = np.full(points, 1.0 / pixels)
    return replace(
        p,
        dark=np.full(pixels, 1000.0),
        pixels_to_actuators=interpolation,
        reference=even,
        clear_pupil=even,
        reconstructor_lo=np.linalg.pinv(p.mode_shapes_lo),
        reconstructor_ho=np.eye(points),
        exterior_pixels=np.arange(points, pixels),
    )


class LinearPlant:
    """Frames of `linear_problem`: reference, plus the response to the command of some frames ago, plus noise.

    Parameters
    ----------
    delay : frames from a command to the frame that shows it; 1: the next one
    noise : rms of the signal's noise per actuator
    """

    def __init__(self, parameters: LoopParameters, delay: int = 1, noise: float = 0.0, seed: int = 3) -> None:
        self._p = parameters
        self._noise = noise
        self._rng = np.random.default_rng(seed)
        points = parameters.mode_shapes_lo.shape[0]
        self._commands: deque[Float] = deque([np.zeros(points)] * delay, maxlen=delay)

    def frame(self) -> NDArray[np.int32]:
        """The next frame."""
        p, shape = self._p, self._commands[0]
        signal = shape + self._rng.normal(0.0, self._noise, shape.size)
        light = np.full(p.dark.size, 1.0 / p.dark.size)
        light[: shape.size] += p.clear_pupil * signal
        # Light that the signal takes or gives goes to the pixels outside the pupil.
        light[shape.size :] -= (light.sum() - 1.0) / (light.size - shape.size)
        return np.round(p.dark + FLUX_ADU * light).astype(np.int32).reshape(p.frame_shape)

    def command(self, shape: Float) -> None:
        """Take the command that followed the frame."""
        self._commands.append(shape.copy())


def controller_response(kind: str, gains: ControllerSettings, mode: int, z: Complex) -> Complex:
    """Transfer function of a controller, from its difference equation.

    PID: ``u = kp e + ki sum(e) + kd (e - e_before)``; LEAKY: ``u = a (u_before + K e)``.
    """
    kp, ki, kd, leak = (float(getattr(gains, name)[mode]) for name in ("kp", "ki", "kd", "leak"))
    if kind == "LEAKY":
        return leak * ki / (1.0 - leak / z)
    return kp + ki / (1.0 - 1.0 / z) + kd * (1.0 - 1.0 / z)


def rejection(controller: Complex, delay: int, z: Complex) -> Complex:
    """From a disturbance of the mirror's shape to what is left of it: ``1 / (1 + C z^-delay)``."""
    return 1.0 / (1.0 + controller * z**-delay)


class Spectra:
    """Cross-spectra of two records by Welch's method (1967): Hann windows that overlap by half."""

    def __init__(self, cause: Float, effect: Float, segment: int) -> None:
        window = np.hanning(segment + 1)[:-1]
        starts = range(0, cause.size - segment + 1, segment // 2)
        x, y = (
            np.array([np.fft.rfft(window * (r[i : i + segment] - r.mean())) for i in starts])
            for r in (cause, effect)
        )
        xx, yy, xy = (np.abs(x) ** 2).sum(0), (np.abs(y) ** 2).sum(0), (np.conj(x) * y).sum(0)
        self.frequency = np.fft.rfftfreq(segment)
        """Cycles per frame."""
        self.response: Complex = xy / xx
        self.coherence: Float = np.abs(xy) ** 2 / (xx * yy)


def modal_records(ring: TelemetryRing, parameters: LoopParameters, mode: int) -> dict[str, Float]:
    """Injected signal, mirror command and measured error of one low-order mode, from telemetry."""
    _, records = ring.read(0, ring.write_index)
    project = np.linalg.pinv(parameters.mode_shapes_lo)[mode]
    return {
        "injected": records["c_inj"].astype(float) @ project,
        "command": records["command"].astype(float) @ project,
        "error": records["e_LO"][:, mode].astype(float),
    }


def decibels(values: Complex) -> Float:
    """Modulus in dB."""
    return 20.0 * np.log10(np.abs(values))
