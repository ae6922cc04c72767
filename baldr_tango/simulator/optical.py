"""The optical plant: Zernike wavefront sensor, deformable mirror and turbulence, from the settings."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import OpticalPlant
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

DRIFT_CORNER_HZ = 5.0
"""Corner frequency of what varies slowly: tip/tilt jitter, disturbance of the linear plant."""


def pupil_of(settings: SimulatorSettings, side: int = FRAME_SIDE) -> Pupil:
    """Return the pupil that the settings describe."""
    return circular_pupil(settings.pupil_pixels, settings.secondary_ratio, side)


def beam_generator(settings: SimulatorSettings, beam: int) -> np.random.Generator:
    """Return the random generator of one beam; it depends on the seed and the beam's number alone."""
    return np.random.default_rng([settings.seed, beam])


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
    pixel_m = settings.telescope_diameter_m / settings.pupil_pixels
    spacing_m = pixel_m / OVERSAMPLING
    spectrum = von_karman_spectrum(
        np.hypot(*frequencies(samples, spacing_m)), fried_m=1.0, outer_scale_m=settings.outer_scale_m
    )
    left = first_stage(
        samples,
        spacing_m,
        settings.telescope_diameter_m,
        settings.first_stage_actuators,
        settings.first_stage_rejection,
    )
    screen = phase_screen(
        spectrum * (left * pixel_response(samples, spacing_m, pixel_m)) ** 2, spacing_m, rng
    )
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
) -> OpticalPlant:
    """Build the optical plant of some beams.

    Parameters
    ----------
    side : pixels along one side of a frame.
    samples : samples along one side of a turbulence screen.

    Raises
    ------
    ConfigError : the pupil does not fit the frame, or vibrations lack a frequency or an amplitude.
    """
    if len(settings.vibration_hz) != len(settings.vibration_nm):
        raise ConfigError(
            f"[simulator] vibration_nm: found {len(settings.vibration_nm)} amplitudes for "
            f"{len(settings.vibration_hz)} frequencies in vibration_hz, expected as many"
        )
    pupil = pupil_of(settings, side)
    wave = reference_wave(pupil, settings.mask_diameter_lambda_over_d)
    rows, columns, size = screen_window(pupil)
    padded = samples + size + 3
    spacing_m = settings.telescope_diameter_m / settings.pupil_pixels / OVERSAMPLING
    screens = np.empty((len(beams), padded, padded), dtype=np.float32)
    positions = np.empty((len(beams), 2))
    velocities = np.empty((len(beams), 2))
    lines = len(settings.vibration_hz)
    angles = np.empty((len(beams), lines))
    phases = np.empty((len(beams), lines))
    for k, beam in enumerate(beams):
        rng = beam_generator(settings, beam)
        screens[k] = np.pad(residual_screen(settings, pupil, rng, samples), (1, size + 2), mode="wrap")
        positions[k] = rng.uniform(0.0, samples, 2)
        direction = rng.uniform(0.0, 2.0 * math.pi)
        speed = settings.wind_speed_m_s / spacing_m
        velocities[k] = speed * math.sin(direction), speed * math.cos(direction)
        angles[k] = rng.uniform(0.0, math.pi, lines)
        phases[k] = rng.uniform(0.0, 1.0, lines)
    influence = influence_functions(pupil, settings.dm_pitch_pixels, settings.dm_coupling)
    mask = cmath.exp(1j * settings.mask_depth_rad) - 1.0
    return OpticalPlant(
        pixels=pupil.pixels.astype(np.int64),
        weights=pupil.weights.astype(np.float32),
        influence=(settings.nm_per_dm_unit * influence).astype(np.float32),
        tilts=pupil.tilts().astype(np.float32),
        project=wave.project,
        spread=wave.spread,
        wavenumber=2.0 * math.pi / settings.wavelength_nm,
        mask_real=mask.real,
        mask_imag=mask.imag,
        screens=screens,
        window=(rows * padded + columns).astype(np.int64),
        period=samples,
        positions=positions,
        velocities=velocities,
        jitter=np.zeros((len(beams), 2, 2)),
        jitter_nm=settings.tip_tilt_rms_nm / math.sqrt(2.0),
        corner_hz=DRIFT_CORNER_HZ,
        vibration_hz=np.array(settings.vibration_hz, dtype=np.float64),
        vibration_nm=np.array(settings.vibration_nm, dtype=np.float64),
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
        mask_real=0.0,
        mask_imag=0.0,
        screens=np.zeros((0, 0, 0), dtype=np.float32),
        window=index,
        period=1,
        positions=empty64,
        velocities=empty64,
        jitter=np.zeros((0, 0, 0)),
        jitter_nm=0.0,
        corner_hz=1.0,
        vibration_hz=np.zeros(0),
        vibration_nm=np.zeros(0),
        vibration_angle=empty64,
        vibration_phase=empty64,
    )
