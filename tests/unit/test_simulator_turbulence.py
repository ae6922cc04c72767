"""Turbulence, slow drifts and noise of the virtual instrument against their statistics."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import (
    TURBULENCE_NM,
    WIND,
    advance_noise,
    cubic_weights,
    sample_screen,
    turbulence_opd,
    weighted_rms,
)
from baldr_tango.kernels.simulation import expose, random_place
from baldr_tango.simulator.optical import OVERSAMPLING, optical_plant, pupil_of, residual_screen
from baldr_tango.simulator.turbulence import (
    first_stage,
    frequencies,
    phase_screen,
    pixel_response,
    von_karman_spectrum,
)

STILL = replace(SimulatorSettings(), tip_tilt_rms_nm=0.0, wind_speed_m_s=0.0)


def bessel_k(order: float, x: float) -> float:
    """Modified Bessel function of the second kind; Abramowitz & Stegun 9.6.24."""
    t = np.linspace(0, 12, 4001)
    values = np.exp(-x * np.cosh(t)) * np.cosh(order * t)
    return float(((values[1:] + values[:-1]) / 2).sum() * (t[1] - t[0]))


def structure_function(r: float, fried: float, outer: float) -> float:
    """Phase structure function [rad^2]: the transform of von Karman's spectrum in closed form."""
    scale = (outer / fried) ** (5 / 3) * 2 ** (1 / 6) * math.gamma(11 / 6) / math.pi ** (8 / 3)
    scale *= (24 / 5 * math.gamma(6 / 5)) ** (5 / 6)
    u = 2 * math.pi * r / outer
    return scale * (math.gamma(5 / 6) / 2 ** (1 / 6) - u ** (5 / 6) * bessel_k(5 / 6, u))


@pytest.fixture(scope="module")
def screens() -> NDArray[np.float64]:
    """Screens of 51 m with r0 = 0.5 m, L0 = 8 m, before any first stage."""
    spectrum = von_karman_spectrum(np.hypot(*frequencies(512, 0.1)), 0.5, 8.0)
    rng = np.random.default_rng(20)
    return np.array([phase_screen(spectrum, 0.1, rng) for _ in range(8)])


@pytest.mark.parametrize("step", [2, 5, 10, 30, 80])
def test_screens_have_the_structure_function_of_von_karman(screens: NDArray[np.float64], step: int) -> None:
    along_rows = np.roll(screens, step, axis=1) - screens
    along_columns = np.roll(screens, step, axis=2) - screens
    found = float(np.mean(along_rows**2) + np.mean(along_columns**2)) / 2
    # 8 screens of 6 x 6 outer scales: 3 % of statistics; at 2 samples the grid cuts off the finest scales.
    assert found == pytest.approx(structure_function(0.1 * step, 0.5, 8.0), rel=0.12 if step == 2 else 0.08)


def test_screens_have_the_variance_of_von_karman(screens: NDArray[np.float64]) -> None:
    # 0.0863 (L0 / r0)^(5/3): half the structure function at infinite distance.
    assert float(screens.var()) == pytest.approx(0.0863 * (8.0 / 0.5) ** (5 / 3), rel=0.1)
    assert structure_function(200.0, 0.5, 8.0) / 2 == pytest.approx(0.0863 * 16 ** (5 / 3), rel=0.01)
    assert abs(float(screens.mean())) < 1e-10


def test_the_first_stage_works_inside_its_band_only() -> None:
    left = first_stage(64, 0.1, diameter_m=1.8, actuators=9, rejection=0.9)
    fy, fx = frequencies(64, 0.1)
    inside = (np.abs(fy) < 2.5) & (np.abs(fx) < 2.5)
    assert np.all(left[inside] == pytest.approx(0.1))
    assert np.all(left[~inside] == 1.0)


def test_nothing_is_left_that_pixels_cannot_sample() -> None:
    response = pixel_response(64, 0.075, pixel_m=0.15)
    frequency = np.hypot(*frequencies(64, 0.075))
    assert np.all(response[frequency > 1 / 0.3] == 0)
    assert response[0, 0] == 1
    assert response[3, 0] == pytest.approx(float(np.sinc(3 / (64 * 0.075) * 0.15)))


def test_residual_has_the_asked_rms_over_the_pupil() -> None:
    """Average over places on the screen, through the kernel that reads it."""
    settings = replace(STILL, residual_rms_nm=80.0)
    plant = optical_plant(settings, (1,), samples=256)
    out = np.empty(plant.pixels.size, dtype=np.float32)
    squares = [
        (plant.live[TURBULENCE_NM] * weighted_rms(out, plant.weights)) ** 2
        for row in range(0, 256, 4)
        for column in range(0, 256, 4)
        if sample_screen(plant.screens[0], plant.window, row + 1.0, column + 1.0, out) is None
    ]
    assert math.sqrt(np.mean(squares)) == pytest.approx(80.0, rel=0.02)


def test_a_first_stage_that_removes_everything_leaves_nothing() -> None:
    settings = replace(STILL, first_stage_actuators=100, first_stage_rejection=1.0)
    assert not residual_screen(settings, pupil_of(settings), np.random.default_rng(1), 64).any()


def test_turbulence_is_frozen_and_moves_with_the_wind() -> None:
    settings = replace(STILL, wind_speed_m_s=12.0)
    plant = optical_plant(settings, (3,), samples=128)
    start = plant.positions[0].copy()
    out = np.empty(plant.pixels.size, dtype=np.float32)
    normals = np.zeros(4, dtype=np.float32)
    for _ in range(10):
        turbulence_opd(plant, 0, 2e-3, normals, 0, out)
    moved = (plant.positions[0] - start + 64) % 128 - 64
    spacing = settings.telescope_diameter_m / settings.pupil_pixels / OVERSAMPLING
    assert math.hypot(*moved) * spacing == pytest.approx(12.0 * 20e-3)
    expected = np.empty_like(out)
    place = (start + 0.02 * plant.live[WIND] * plant.directions[0]) % 128 + 1.0
    sample_screen(plant.screens[0], plant.window, place[0], place[1], expected)
    assert out == pytest.approx(settings.residual_rms_nm * expected, abs=0.05)


def test_the_screen_repeats_without_a_seam() -> None:
    plant = optical_plant(STILL, (1,), samples=64)
    here, there = np.empty((2, plant.pixels.size), dtype=np.float32)
    sample_screen(plant.screens[0], plant.window, 64.9999 + 1, 30.0 + 1, here)
    sample_screen(plant.screens[0], plant.window, 0.9999 + 1, 30.0 + 1, there)
    assert here == pytest.approx(there, abs=0.05)


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.99])
def test_interpolation_is_exact_for_parabolas(fraction: float) -> None:
    weights = np.array(cubic_weights(fraction))
    samples = np.array([-1.0, 0.0, 1.0, 2.0])
    assert weights.sum() == pytest.approx(1)
    assert weights @ samples == pytest.approx(fraction)
    assert weights @ samples**2 == pytest.approx(fraction**2)


def test_drifts_have_their_rms_and_their_corner_frequency() -> None:
    """Two equal low-pass filters: the spectrum is down to a quarter (in power) at the corner."""
    rate, corner = 200.0, 5.0
    pole = math.exp(-2 * math.pi * corner / rate)
    normals = np.random.default_rng(8).standard_normal(60000).astype(np.float32)
    state = np.zeros((2, 3))
    track = np.empty((20000, 3))
    for k in range(track.shape[0]):
        advance_noise(state, pole, 7.0, normals, 3 * k)
        track[k] = state[1]
    assert track[200:].std() == pytest.approx(7.0, rel=0.07)
    power = (np.abs(np.fft.rfft(track.reshape(20, 1000, 3), axis=1)) ** 2).mean(axis=(0, 2))
    slow, at_corner = power[1:6].mean(), power[22:29].mean()  # 0.2 to 1 Hz; 4.4 to 5.6 Hz
    assert at_corner / slow == pytest.approx(0.25, rel=0.3)


def test_tip_tilt_jitter_and_vibrations_have_their_rms() -> None:
    settings = replace(
        STILL, residual_rms_nm=0.0, tip_tilt_rms_nm=40.0, vibration_hz=(12.0, 31.0), vibration_nm=(20.0, 10.0)
    )
    plant = optical_plant(settings, (2,), samples=64)
    normals = np.random.default_rng(4).standard_normal(40000).astype(np.float32)
    out = np.empty(plant.pixels.size, dtype=np.float32)
    squares = []
    for k in range(20000):
        turbulence_opd(plant, 0, 5e-3, normals, 2 * k, out)
        squares.append(weighted_rms(out, plant.weights) ** 2)
    assert math.sqrt(np.mean(squares[200:])) == pytest.approx(math.sqrt(40**2 + 20**2 + 10**2), rel=0.06)


def test_vibrations_without_amplitude_are_refused() -> None:
    with pytest.raises(ConfigError, match="vibration_nm: found 1 amplitudes for 2 frequencies"):
        optical_plant(replace(STILL, vibration_hz=(10.0, 20.0), vibration_nm=(5.0,)), (1,), samples=64)


def test_the_seed_and_the_beam_make_the_turbulence() -> None:
    def screen(seed: int, beam: int) -> NDArray[np.float32]:
        return optical_plant(replace(STILL, seed=seed), (beam,), samples=64).screens[0]

    assert np.array_equal(screen(1, 2), screen(1, 2))
    for other in (screen(2, 2), screen(1, 3)):
        assert abs(float(np.corrcoef(screen(1, 2).ravel(), other.ravel())[0, 1])) < 0.3
    both = optical_plant(STILL, (2, 1), samples=64)
    assert np.array_equal(both.screens[0], screen(1, 2))


def test_photon_noise_grows_with_the_light_and_read_noise_does_not() -> None:
    """Photon transfer: variance = read noise^2 + gain * signal / electrons per ADU, and 1/12 of rounding."""
    rng = np.random.default_rng(6)
    normals = rng.standard_normal(200000).astype(np.float32)
    levels = np.array([0.0, 0.1, 0.4, 1.0], dtype=np.float32)
    image = np.repeat(levels, 30000)
    frame = np.empty(image.size, dtype=np.int32)
    dark = np.full(image.size, 1000.0, dtype=np.float32)
    expose(image, dark, 2000.0, 4.0, 3.0, 2.0, normals, 17, frame)
    for part, level in zip(frame.reshape(4, -1), 2000.0 * levels, strict=True):
        variance = 9 + 4 * level / 2 + 1 / 12
        assert part.mean() == pytest.approx(1000 + level, abs=5 * math.sqrt(variance / part.size))
        assert part.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / part.size))


def test_absurd_light_stays_inside_the_pixel_type() -> None:
    frame = np.empty(2, dtype=np.int32)
    image = np.array([1e30, -1e30], dtype=np.float32)
    expose(image, np.zeros(2, np.float32), 1.0, 1.0, 0.0, 1.0, np.zeros(2, np.float32), 0, frame)
    assert frame.tolist() == [2_000_000_000, -2_000_000_000]


def test_places_in_the_noise_table_are_spread_evenly() -> None:
    dice = np.array([9], dtype=np.int64)
    places = np.array([random_place(dice, 0, 1000) for _ in range(50000)])
    assert places.min() >= 0
    assert places.max() < 1000
    assert np.bincount(places // 100, minlength=10) == pytest.approx(np.full(10, 5000), rel=0.06)
    assert abs(float(np.corrcoef(places[1:], places[:-1])[0, 1])) < 0.03
