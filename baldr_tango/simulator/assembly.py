"""From the settings to the arrays that the compiled loop of the virtual instrument works on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.calibration import Calibration, load_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.simulation import Detector
from baldr_tango.names import N_GRID
from baldr_tango.simulator.linear import frame_flux, linear_plant, no_linear_plant
from baldr_tango.simulator.masks import MASKS
from baldr_tango.simulator.optical import no_optical_plant, optical_plant
from baldr_tango.simulator.optics import FRAME_SIDE

DEFAULT_GAIN = 10.0
"""Camera gain at the start of the optical plant, as the camera server sets it."""

_NORMALS = 2**18
_PIXELS = FRAME_SIDE * FRAME_SIDE


class InstrumentModel:
    """Plant and detector of all beams.

    The frame rate and the gain at which ``flux_adu`` and ``electrons_per_adu`` hold are those at the start.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        """Build the plant that the settings ask for.

        Raises
        ------
        ConfigError : the settings contradict each other, or a calibration does not fit.
        """
        settings = config.simulator
        self._config = config
        self._calibrations: list[Calibration] = []
        self.is_linear = settings.plant == "linear"
        self.gain = DEFAULT_GAIN
        self.rate_hz = settings.rate_hz
        self.linear = no_linear_plant()
        self.optical = no_optical_plant()
        beams = config.beams
        flux = np.full(len(beams), settings.flux_adu)
        if self.is_linear:
            self._calibrations = [_calibration(config, beam) for beam in beams]
            self.gain = self._calibrations[0].gain
            self.rate_hz = settings.rate_hz or self._calibrations[0].frame_rate_hz
            parameters = self._parameters(self.rate_hz, self.gain)
            self.linear = linear_plant(settings, self._calibrations, parameters)
            pairs = zip(self._calibrations, parameters, strict=True)
            flux = np.array([frame_flux(c, p, settings.flux_adu) for c, p in pairs])
        else:
            if not settings.rate_hz > 0.0:
                raise ConfigError(
                    f"[simulator] rate_hz: found {settings.rate_hz}, expected above 0 (optical plant)"
                )
            self.optical = optical_plant(settings, beams, masks=MASKS)
        self.detector = Detector(
            dark=self.dark(self.rate_hz, self.gain),
            flux=flux,
            read_noise=np.full(len(beams), settings.read_noise_adu),
            electrons_per_adu=settings.electrons_per_adu,
            normals=np.random.default_rng(settings.seed).standard_normal(
                _NORMALS + max(_PIXELS, N_GRID), dtype=np.float32
            ),
            dice=np.array([(settings.seed * 8 + beam) & 0x7FFFFFFF for beam in beams], dtype=np.int64),
        )

    def dark(self, rate_hz: float, gain: float) -> NDArray[np.float32]:
        """Level of a frame without light [ADU], (B, P)."""
        if self.is_linear:
            return np.array([p.dark for p in self._parameters(rate_hz, gain)], dtype=np.float32)
        return np.full(
            (len(self._config.beams), _PIXELS), self._config.simulator.pedestal_adu, dtype=np.float32
        )

    def _parameters(self, rate_hz: float, gain: float) -> list[LoopParameters]:
        return [
            derive(calibration, self._config.for_beam(calibration.beam), frame_rate_hz=rate_hz, gain=gain)
            for calibration in self._calibrations
        ]


def _calibration(config: RuntimeConfig, beam: int) -> Calibration:
    settings = config.for_beam(beam)
    calibration = load_calibration(settings.calibration_file, beam, settings.mask, mode=settings.mode)
    if calibration.frame_shape != (FRAME_SIDE, FRAME_SIDE):
        raise ConfigError(
            f"{calibration.file}: found frames of {calibration.frame_shape} pixels, expected "
            f"{(FRAME_SIDE, FRAME_SIDE)} as the virtual instrument has them"
        )
    return calibration
