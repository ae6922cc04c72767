"""The optical plant without streams or threads, stepped by hand, and the loop's equations in numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.procedure import ProcedureSettings, StartFrames, respond
from baldr_tango.calibration.result import Measurement
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.kernels.plants import TRUTH, LinearPlant, linear_frame, optical_frame
from baldr_tango.kernels.simulation import Detector, expose, random_place
from baldr_tango.names import N_GRID, to_grid
from baldr_tango.simulator.optical import optical_plant
from baldr_tango.simulator.optics import FRAME_SIDE

PIXELS = FRAME_SIDE * FRAME_SIDE
FloatArray = NDArray[np.float64]


class OpticalBench:
    """One beam of the optical plant; also what `respond` asks of a `BeamBench`, without noise."""

    def __init__(self, settings: SimulatorSettings, samples: int = 256) -> None:
        self.settings = settings
        self.plant = optical_plant(settings, (1,), samples=samples)
        self.camera = SimpleNamespace(shape=(FRAME_SIDE, FRAME_SIDE))
        self.truth = np.zeros(len(TRUTH))
        self.normals = np.random.default_rng(1).standard_normal(50000).astype(np.float32)
        self._dice = np.array([settings.seed], dtype=np.int64)
        self._poke = np.zeros(N_GRID)
        inside = self.plant.pixels.size
        self._scratch = np.zeros((4, inside), dtype=np.float32)
        self._wave = np.zeros((2, PIXELS), dtype=np.float32)
        self._image = np.zeros(PIXELS, dtype=np.float32)

    def light(self, command: FloatArray, mask_in: bool = True, turbulent: bool = False) -> FloatArray:
        """Frame without dark and noise [ADU]; advances the turbulence by 1 ms."""
        place = random_place(self._dice, 0, 40000)
        optical_frame(
            self.plant, 0, command, 1e-3, turbulent, int(mask_in), self.normals, place,
            self._scratch, self._wave, self._image, self.truth,
        )  # fmt: skip
        return self.settings.flux_adu * self._image.astype(np.float64)

    def frame(self, command: FloatArray, turbulent: bool = True) -> NDArray[np.int32]:
        """Frame of the camera [ADU]."""
        self.light(command, True, turbulent)
        out = np.empty(PIXELS, dtype=np.int32)
        dark = np.full(PIXELS, self.settings.pedestal_adu, dtype=np.float32)
        expose(
            self._image, dark, self.settings.flux_adu, 1.0, self.settings.read_noise_adu,
            self.settings.electrons_per_adu, self.normals, random_place(self._dice, 0, 40000), out,
        )  # fmt: skip
        return out

    def poke(self, command: FloatArray) -> None:
        """Poke, as a `BeamBench`."""
        self._poke = to_grid(command)

    def average(self, frames: int, skip: int) -> FloatArray:
        """One noiseless frame stands for the average of many."""
        return self.settings.pedestal_adu + self.light(self._poke)

    def measure(self, settings: ProcedureSettings) -> Measurement:
        """Go through the procedure that a `BeamBench` goes through."""
        flat = np.zeros(N_GRID)
        start = StartFrames(
            dark=np.full(PIXELS, self.settings.pedestal_adu),
            clear=self.light(flat, mask_in=False),
            masked=self.light(flat),
        )
        return respond(self, start, settings)  # type: ignore[arg-type]


class LinearBench:
    """One beam of the linear plant."""

    def __init__(self, plant: LinearPlant, detector: Detector) -> None:
        self.plant, self.detector = plant, detector
        self.truth = np.zeros(len(TRUTH))
        self._change = np.zeros(plant.support.shape[1], dtype=np.float32)
        self._image = np.zeros(plant.reference.shape[1], dtype=np.float32)

    def light(self, command: FloatArray, mask_in: bool = True, turbulent: bool = False) -> FloatArray:
        """Frame without dark and noise [ADU]; advances the disturbance by 1 ms."""
        place = random_place(self.detector.dice, 0, 40000)
        linear_frame(
            self.plant, 0, command, 1e-3, turbulent, int(mask_in), self.detector.normals, place,
            np.zeros(N_GRID), self._change, self._image, self.truth,
        )  # fmt: skip
        return float(self.detector.flux[0]) * self._image.astype(np.float64)

    def frame(self, command: FloatArray, turbulent: bool = True) -> NDArray[np.int32]:
        """Frame of the camera [ADU]."""
        self.light(command, True, turbulent)
        out = np.empty(self._image.size, dtype=np.int32)
        d = self.detector
        expose(
            self._image, d.dark[0], float(d.flux[0]), 1.0, float(d.read_noise[0]), d.electrons_per_adu,
            d.normals, random_place(d.dice, 0, 40000), out,
        )  # fmt: skip
        return out


def signal_of(p: LoopParameters, frame: NDArray[Any]) -> FloatArray:
    """Wavefront-sensor signal of a raw frame: dark, flux, pixels to actuators, references."""
    light = frame - p.dark
    image = p.pixels_to_actuators @ light / (p.flux_weights @ light)
    return np.where(p.signal_mask, (image - p.reference) / np.where(p.signal_mask, p.clear_pupil, 1.0), 0.0)


def close_loops(
    bench: OpticalBench | LinearBench,
    p: LoopParameters,
    frames: int,
    *,
    ki: float = 0.3,
    leak: float = 0.99,
    lo: bool = True,
    ho: bool = True,
) -> tuple[FloatArray, FloatArray]:
    """Close leaky integrators; the command of a frame acts on the next one.

    Returns the truth vectors (frames, len(TRUTH)) and the low-order errors (frames, L).
    """
    low, high = np.zeros(p.reconstructor_lo.shape[0]), np.zeros(p.reconstructor_ho.shape[0])
    command = np.zeros(N_GRID)
    truths, errors = [], []
    for _ in range(frames):
        signal = signal_of(p, bench.frame(command))
        error = p.reconstructor_lo @ signal
        if lo:
            low = leak * (low + ki * error)
        if ho:
            high = leak * (high + ki * (p.reconstructor_ho @ signal))
        command = -(p.mode_shapes_lo @ low + p.mode_shapes_ho @ high)
        truths.append(bench.truth.copy())
        errors.append(error)
    return np.array(truths), np.array(errors)
