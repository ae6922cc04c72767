"""What of the sky and of the detector may change while the virtual instrument runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError, RequestError, StateError
from baldr_tango.kernels.plants import JITTER_NM, TURBULENCE_NM, WIND
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.optical import check_vibrations, pupil_of, residual_of_seeing, sample_spacing_m
from baldr_tango.simulator.quirks import finite

MAX_RMS_NM = 10000.0
MAX_WIND_M_S = 100.0
MAX_FLUX_ADU = 1e9
MAX_NOISE_ADU = 1e5
MAX_VIBRATION_HZ = 5000.0
SEEING_EXPONENT = 5.0 / 6.0
"""Wavefront error grows as r0^(-5/6), hence as this power of the seeing."""


class Weather:
    """Turbulence, wind, vibrations, light and read noise, written where the compiled loop reads them.

    Every setter may be called at any time; the next frame obeys. Each raises `RequestError` for a value
    that is not allowed, `StateError` for something that the plant in use does not have.
    """

    def __init__(self, settings: SimulatorSettings, model: InstrumentModel) -> None:
        self._settings = settings
        self._model = model
        # Seeing of which the first stage leaves 1 nm; the spectrum is summed once.
        self._nm_at_one_arcsec = 0.0 if model.is_linear else residual_of_seeing(settings, pupil_of(settings))
        self._start_flux = model.detector.flux.copy()

    @property
    def residual_rms_nm(self) -> float:
        """Wavefront error that the first stage leaves [nm]; linear plant: of its varying disturbance."""
        if self._model.is_linear:
            return float(self._model.linear.varying_rms[0] * self._model.linear.nm_per_dm_unit)
        return float(self._model.optical.live[TURBULENCE_NM])

    def set_residual_rms(self, nm: float) -> None:
        """Change the strength of the turbulence [nm rms behind the first stage]."""
        nm = finite("residual", nm, 0.0, MAX_RMS_NM, "nm")
        if self._model.is_linear:
            self._model.linear.varying_rms[0] = nm / self._model.linear.nm_per_dm_unit
        else:
            self._model.optical.live[TURBULENCE_NM] = nm

    @property
    def seeing_arcsec(self) -> float:
        """Seeing at 500 nm of which the first stage leaves `residual_rms_nm` [arcsec]; NaN: no such thing."""
        if not self._nm_at_one_arcsec > 0.0:
            return math.nan
        return float((self.residual_rms_nm / self._nm_at_one_arcsec) ** (1.0 / SEEING_EXPONENT))

    def set_seeing(self, arcsec: float) -> None:
        """Change the strength of the turbulence by the seeing at 500 nm [arcsec]."""
        arcsec = finite("seeing", arcsec, 0.0, 10.0, "arcsec")
        if not self._nm_at_one_arcsec > 0.0:
            raise StateError("seeing: this plant has no turbulence that follows from the seeing")
        self.set_residual_rms(self._nm_at_one_arcsec * arcsec**SEEING_EXPONENT)

    @property
    def wind_speed_m_s(self) -> float:
        """Speed of the frozen turbulence [m/s]; NaN: none."""
        if self._model.is_linear:
            return math.nan
        return float(self._model.optical.live[WIND] * sample_spacing_m(self._settings))

    def set_wind_speed(self, m_s: float) -> None:
        """Change the wind [m/s]."""
        self._need_optics("wind")
        speed = finite("wind", m_s, 0.0, MAX_WIND_M_S, "m/s")
        self._model.optical.live[WIND] = speed / sample_spacing_m(self._settings)

    @property
    def tip_tilt_rms_nm(self) -> float:
        """Slow tip/tilt that the first stage leaves [nm]; NaN: none."""
        return (
            math.nan if self._model.is_linear else float(self._model.optical.live[JITTER_NM] * math.sqrt(2))
        )

    def set_tip_tilt_rms(self, nm: float) -> None:
        """Change the slow tip/tilt [nm rms]."""
        self._need_optics("tip/tilt")
        self._model.optical.live[JITTER_NM] = finite("tip/tilt", nm, 0.0, MAX_RMS_NM, "nm") / math.sqrt(2)

    @property
    def vibrations(self) -> tuple[list[float], list[float]]:
        """Frequencies [Hz] and amplitudes [nm rms] of the vibrations."""
        plant = self._model.optical
        lines = int(np.count_nonzero(plant.vibration_hz))
        return plant.vibration_hz[:lines].tolist(), plant.vibration_nm[:lines].tolist()

    def set_vibrations(self, hz: Sequence[float], nm: Sequence[float]) -> None:
        """Replace the tip/tilt vibrations: frequencies [Hz] and as many amplitudes [nm rms]."""
        self._need_optics("vibrations")
        try:
            check_vibrations(hz, nm)
        except ConfigError as error:
            raise RequestError(str(error).removeprefix("[simulator] ")) from None
        frequencies = [finite("vibration", each, 1e-3, MAX_VIBRATION_HZ, "Hz") for each in hz]
        amplitudes = [finite("vibration", each, 0.0, MAX_RMS_NM, "nm") for each in nm]
        plant = self._model.optical
        plant.vibration_nm[:] = 0.0
        plant.vibration_hz[:] = 0.0
        plant.vibration_hz[: len(frequencies)] = frequencies
        plant.vibration_nm[: len(amplitudes)] = amplitudes

    @property
    def flux_adu(self) -> float:
        """Light of a frame at the frame rate and gain of the start, mean of the beams [ADU]."""
        return float(self._model.detector.flux.mean())

    def set_flux(self, adu: float) -> None:
        """Change the light of a frame, for all beams [ADU at the frame rate and gain of the start]."""
        self._model.detector.flux[:] = finite("flux", adu, 0.0, MAX_FLUX_ADU, "ADU")

    @property
    def magnitude(self) -> float:
        """Magnitude of the star: that of the settings gives the flux of the start; infinite without light."""
        ratio = self.flux_adu / float(self._start_flux.mean()) if self._start_flux.any() else 0.0
        return self._settings.magnitude - 2.5 * math.log10(ratio) if ratio > 0.0 else math.inf

    def set_magnitude(self, magnitude: float) -> None:
        """Change the light to that of a star of another magnitude."""
        magnitude = finite("magnitude", magnitude, -10.0, 30.0, "mag")
        flux = self._start_flux * 10.0 ** (0.4 * (self._settings.magnitude - magnitude))
        finite("flux", float(flux.max()), 0.0, MAX_FLUX_ADU, "ADU")
        self._model.detector.flux[:] = flux

    @property
    def read_noise_adu(self) -> float:
        """Read noise of a pixel [ADU rms]."""
        return float(self._model.detector.read_noise[0])

    def set_read_noise(self, adu: float) -> None:
        """Change the read noise [ADU rms]."""
        self._model.detector.read_noise[:] = finite("read noise", adu, 0.0, MAX_NOISE_ADU, "ADU")

    def _need_optics(self, what: str) -> None:
        if self._model.is_linear:
            raise StateError(f'{what}: the linear plant has none; use plant = "optical"')
