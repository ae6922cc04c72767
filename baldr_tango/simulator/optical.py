"""The optical plant: Zernike wavefront sensor, deformable mirror and turbulence, from the settings."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import JITTER_NM, N_LIVE, TURBULENCE_NM, WIND, OpticalPlant
from baldr_tango.simulator.masks import REFERENCE_MASK, mask_optics
from baldr_tango.simulator.optics import (
    FRAME_SIDE,
    Pupil,
    circular_pupil,
    influence_functions,
    reference_wave,
)
from baldr_tango.simulator.turbulence import (
    first_stage,
    frequencies,
    phase_screen,
    pixel_response,
    pupil_rms,
    von_karman_spectrum,
)

SCREEN_SAMPLES = 1024
"""Samples along one side of a turbulence screen; it repeats after that."""

OVERSAMPLING = 2
"""Samples of a turbulence screen per camera pixel."""

VIBRATION_LINES = 8
"""Most tip/tilt vibrations."""

SEEING_WAVELENGTH_M = 500e-9
"""Wavelength at which the seeing is quoted."""

DRIFT_CORNER_HZ = 5.0
"""Corner frequency of what varies slowly: tip/tilt jitter, disturbance of the linear plant."""


def pupil_of(settings: SimulatorSettings, side: int = FRAME_SIDE) -> Pupil:
    """Return the pupil that the settings describe."""
    return circular_pupil(settings.pupil_pixels, settings.secondary_ratio, side)


def sample_spacing_m(settings: SimulatorSettings) -> float:
    """Return the distance of two samples of a turbulence screen, on the telescope's pupil [m]."""
    return settings.telescope_diameter_m / settings.pupil_pixels / OVERSAMPLING


def check_vibrations(hz: Sequence[float], nm: Sequence[float]) -> None:
    """Raise `ConfigError` unless there are as many amplitudes as frequencies, and not too many."""
    if len(hz) != len(nm):
        raise ConfigError(
            f"[simulator] vibration_nm: found {len(nm)} amplitudes for "
            f"{len(hz)} frequencies in vibration_hz, expected as many"
        )
    if len(hz) > VIBRATION_LINES:
        raise ConfigError(
            f"[simulator] vibration_hz: found {len(hz)} frequencies, allowed are at most {VIBRATION_LINES}"
        )


def beam_generator(settings: SimulatorSettings, beam: int) -> np.random.Generator:
    """Return the random generator of one beam; it depends on the seed and the beam's number alone."""
    return np.random.default_rng([settings.seed, beam])


def residual_of_seeing(settings: SimulatorSettings, pupil: Pupil, samples: int = SCREEN_SAMPLES) -> float:
    """Wavefront error behind the first stage in a seeing of 1 arcsec at 500 nm [nm rms over the pupil].

    Expectation of what `residual_screen` draws: the power spectrum, times what the first stage and the
    pixels let through, times the part that is not piston of the pupil, summed. It grows as the seeing to the
    power 5/6; r0 = 0.98 lambda / seeing (Roddier 1981).
    """
    spacing_m = sample_spacing_m(settings)
    fried_m = 0.98 * SEEING_WAVELENGTH_M / math.radians(1.0 / 3600.0)
    spectrum = residual_spectrum(settings, samples, fried_m)
    rows, columns, _ = screen_window(pupil)
    weights = np.zeros((samples, samples))
    weights[rows, columns] = pupil.weights / pupil.weights.sum()
    not_piston = 1.0 - np.abs(np.fft.rfft2(weights)) ** 2
    # Half a plane: each column but the first and the last stands for its mirror image too.
    twice = np.full(spectrum.shape[1], 2.0)
    twice[[0, -1]] = 1.0
    spectrum[0, 0] = 0.0
    variance = float(np.sum(spectrum * not_piston * twice)) / (samples * spacing_m) ** 2
    return math.sqrt(variance) * SEEING_WAVELENGTH_M * 1e9 / (2.0 * math.pi)


def residual_spectrum(settings: SimulatorSettings, samples: int, fried_m: float) -> NDArray[np.float64]:
    """Power spectrum of the turbulence behind the first stage, as the pixels see it [rad^2 m^2].

    fried_m : Fried parameter [m] at the wavelength of the phase.
    """
    spacing_m = sample_spacing_m(settings)
    spectrum = von_karman_spectrum(
        np.hypot(*frequencies(samples, spacing_m)), fried_m=fried_m, outer_scale_m=settings.outer_scale_m
    )
    left = first_stage(
        samples,
        spacing_m,
        settings.telescope_diameter_m,
        settings.first_stage_actuators,
        settings.first_stage_rejection,
    )
    pixel_m = settings.telescope_diameter_m / settings.pupil_pixels
    return np.asarray(spectrum * (left * pixel_response(samples, spacing_m, pixel_m)) ** 2)


def screen_window(pupil: Pupil) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Place the pupil on a turbulence screen.

    Returns
    -------
    rows, columns : (p,) of each pupil pixel, from the corner of the window [samples].
    size : samples along one side of the window.
    """
    rows, columns = np.divmod(pupil.pixels, pupil.side)
    rows = OVERSAMPLING * (rows - rows.min())
    columns = OVERSAMPLING * (columns - columns.min())
    return rows, columns, int(max(rows.max(), columns.max())) + 1


def residual_screen(
    settings: SimulatorSettings, pupil: Pupil, rng: np.random.Generator, samples: int = SCREEN_SAMPLES
) -> NDArray[np.float64]:
    """Draw the turbulence of one beam behind the first stage.

    The rms over the pupil (piston removed, averaged over the whole screen) is exactly ``residual_rms_nm``.

    Returns
    -------
    (samples, samples) OPD [nm], periodic, `OVERSAMPLING` samples per pixel.
    """
    screen = phase_screen(residual_spectrum(settings, samples, 1.0), sample_spacing_m(settings), rng)
    rows, columns, size = screen_window(pupil)
    if size > samples:
        raise ConfigError(
            f"pupil_pixels: found {settings.pupil_pixels}, too many for a screen of {samples} samples"
        )
    weights = np.zeros_like(screen)
    weights[rows, columns] = pupil.weights
    rms = pupil_rms(screen, weights)
    if rms > 0.0:
        return screen * (settings.residual_rms_nm / rms)
    return np.zeros_like(screen)  # full rejection at every frequency that the pixels see


def optical_plant(
    settings: SimulatorSettings,
    beams: Sequence[int],
    side: int = FRAME_SIDE,
    samples: int = SCREEN_SAMPLES,
    masks: Sequence[str] = (REFERENCE_MASK,),
) -> OpticalPlant:
    """Build the optical plant of some beams.

    Parameters
    ----------
    side : pixels along one side of a frame.
    samples : samples along one side of a turbulence screen.
    masks : names of the phase masks, the first one is number 1 of the plant.

    Raises
    ------
    ConfigError : the pupil does not fit the frame, or vibrations lack a frequency or an amplitude.
    """
    check_vibrations(settings.vibration_hz, settings.vibration_nm)
    pupil = pupil_of(settings, side)
    optics = [
        mask_optics(mask, settings.mask_diameter_lambda_over_d, settings.mask_depth_rad) for mask in masks
    ]
    waves = [reference_wave(pupil, one.diameter_lambda_over_d) for one in optics]
    shifts = np.array([cmath.exp(1j * one.depth_rad) - 1.0 for one in optics])
    rows, columns, size = screen_window(pupil)
    padded = samples + size + 3
    spacing_m = sample_spacing_m(settings)
    screens = np.empty((len(beams), padded, padded), dtype=np.float32)
    positions = np.empty((len(beams), 2))
    directions = np.empty((len(beams), 2))
    angles = np.empty((len(beams), VIBRATION_LINES))
    phases = np.empty((len(beams), VIBRATION_LINES))
    unit = replace(settings, residual_rms_nm=1.0)
    for k, beam in enumerate(beams):
        rng = beam_generator(settings, beam)
        screens[k] = np.pad(residual_screen(unit, pupil, rng, samples), (1, size + 2), mode="wrap")
        positions[k] = rng.uniform(0.0, samples, 2)
        direction = rng.uniform(0.0, 2.0 * math.pi)
        directions[k] = math.sin(direction), math.cos(direction)
        angles[k] = rng.uniform(0.0, math.pi, VIBRATION_LINES)
        phases[k] = rng.uniform(0.0, 1.0, VIBRATION_LINES)
    live = np.zeros(N_LIVE)
    live[TURBULENCE_NM] = settings.residual_rms_nm
    live[WIND] = settings.wind_speed_m_s / spacing_m
    live[JITTER_NM] = settings.tip_tilt_rms_nm / math.sqrt(2.0)
    vibrations = np.zeros((2, VIBRATION_LINES))
    vibrations[0, : len(settings.vibration_hz)] = settings.vibration_hz
    vibrations[1, : len(settings.vibration_nm)] = settings.vibration_nm
    influence = influence_functions(pupil, settings.dm_pitch_pixels, settings.dm_coupling)
    return OpticalPlant(
        pixels=pupil.pixels.astype(np.int64),
        weights=pupil.weights.astype(np.float32),
        influence=(settings.nm_per_dm_unit * influence).astype(np.float32),
        tilts=pupil.tilts().astype(np.float32),
        project=np.concatenate([wave.project for wave in waves]),
        spread=np.concatenate([wave.spread for wave in waves]),
        wavenumber=2.0 * math.pi / settings.wavelength_nm,
        terms=np.cumsum([0, *(wave.project.shape[0] for wave in waves)], dtype=np.int64),
        masks=np.stack([shifts.real, shifts.imag], axis=1),
        screens=screens,
        window=(rows * padded + columns).astype(np.int64),
        period=samples,
        positions=positions,
        directions=directions,
        live=live,
        jitter=np.zeros((len(beams), 2, 2)),
        corner_hz=DRIFT_CORNER_HZ,
        vibration_hz=vibrations[0],
        vibration_nm=vibrations[1],
        vibration_angle=angles,
        vibration_phase=phases,
    )


def no_optical_plant() -> OpticalPlant:
    """Return an empty plant of the same types, for a loop that runs the other one."""
    empty32 = np.zeros((0, 0), dtype=np.float32)
    empty64 = np.zeros((0, 0))
    index = np.zeros(0, dtype=np.int64)
    return OpticalPlant(
        pixels=index,
        weights=np.zeros(0, dtype=np.float32),
        influence=empty32,
        tilts=empty32,
        project=empty32,
        spread=empty32,
        wavenumber=1.0,
        terms=np.zeros(1, dtype=np.int64),
        masks=empty64,
        screens=np.zeros((0, 0, 0), dtype=np.float32),
        window=index,
        period=1,
        positions=empty64,
        directions=empty64,
        live=np.zeros(N_LIVE),
        jitter=np.zeros((0, 0, 0)),
        corner_hz=1.0,
        vibration_hz=np.zeros(0),
        vibration_nm=np.zeros(0),
        vibration_angle=empty64,
        vibration_phase=empty64,
    )
