"""What changes while the virtual instrument runs, against what the optics make of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import RequestError
from baldr_tango.kernels.plants import OPEN_RMS, STREHL
from baldr_tango.simulator.instrument import VirtualInstrument
from baldr_tango.simulator.optical import optical_plant, pupil_of, residual_of_seeing
from baldr_tango.simulator.optics import bessel_j1
from baldr_tango.simulator.quirks import Quirks
from baldr_tango.simulator.weather import Weather
from tests.optical_bench import OpticalBench
from tests.simulated import simulator_config

STEADY = replace(SimulatorSettings(), tip_tilt_rms_nm=0.0)


def weather_of(bench: OpticalBench, settings: SimulatorSettings) -> Weather:
    detector = SimpleNamespace(flux=np.array([settings.flux_adu]), read_noise=np.array([2.0]))
    model = SimpleNamespace(is_linear=False, optical=bench.plant, detector=detector)
    return Weather(settings, model)  # type: ignore[arg-type]


def variance_without_piston(diameter: float, fried: float, outer: float) -> float:
    """Von Karman phase over a full disc without its mean [rad^2], by integration over the modulus of f."""
    f = np.logspace(-11, 3, 40001)
    x = np.pi * diameter * f
    left = np.where(x > 1e-2, 1 - (2 * bessel_j1(x) / x) ** 2, x**2 / 4)
    values = 2 * np.pi * f**2 * 0.0229 * fried ** (-5 / 3) * (f**2 + outer**-2) ** (-11 / 6) * left
    return float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(np.log(f))))


def test_uncorrected_seeing_leaves_what_theory_says() -> None:
    # Noll (1976), J. Opt. Soc. Am. 66, 207: 1.030 (D/r0)^(5/3) without an outer scale.
    assert variance_without_piston(1.8, 0.1, 1e10) == pytest.approx(1.030 * 18 ** (5 / 3), rel=0.02)
    settings = replace(STEADY, outer_scale_m=20.0, first_stage_rejection=0.0, secondary_ratio=0.0)
    found = residual_of_seeing(settings, pupil_of(settings), samples=2048)
    fried = 0.98 * 500e-9 / math.radians(1 / 3600)
    expected = math.sqrt(variance_without_piston(1.8, fried, 20.0)) * 500 / (2 * math.pi)
    assert found == pytest.approx(expected, rel=0.03)


def test_the_strength_holds_from_the_next_frame_on_and_the_shape_stays() -> None:
    one, other = OpticalBench(STEADY), OpticalBench(STEADY)
    weather = weather_of(one, STEADY)
    for _ in range(5):
        one.light(np.zeros(144), turbulent=True)
        other.light(np.zeros(144), turbulent=True)
    weather.set_residual_rms(2.0 * weather.residual_rms_nm)
    one.light(np.zeros(144), turbulent=True)
    other.light(np.zeros(144), turbulent=True)
    assert one.truth[OPEN_RMS] == pytest.approx(2.0 * other.truth[OPEN_RMS], rel=1e-4)


def test_strehl_falls_with_the_wavefront_error_as_marechal_says() -> None:
    bench = OpticalBench(STEADY)
    weather = weather_of(bench, STEADY)
    for rms in (15.0, 40.0, 80.0):
        weather.set_residual_rms(rms)
        errors, strehls = [], []
        for _ in range(200):
            bench.light(np.zeros(144), turbulent=True)
            errors.append(bench.truth[OPEN_RMS])
            strehls.append(bench.truth[STREHL])
        sigma = 2 * math.pi * np.array(errors) / STEADY.wavelength_nm
        assert np.array(strehls) == pytest.approx(
            np.exp(-(sigma**2)), abs=0.5 * float(sigma.max()) ** 4 + 1e-5
        )


def test_the_wind_moves_the_screen_by_speed_times_time() -> None:
    bench = OpticalBench(STEADY)
    weather = weather_of(bench, STEADY)
    weather.set_wind_speed(37.5)
    assert weather.wind_speed_m_s == pytest.approx(37.5)
    before = bench.plant.positions[0].copy()
    for _ in range(20):
        bench.light(np.zeros(144), turbulent=True)
    moved = (bench.plant.positions[0] - before + 128) % 256 - 128
    assert math.hypot(*moved) * 0.075 == pytest.approx(37.5 * 20e-3)


def test_a_vibration_can_begin_and_end() -> None:
    bench = OpticalBench(replace(STEADY, residual_rms_nm=0.0))
    weather = weather_of(bench, STEADY)
    weather.set_vibrations([20.0, 50.0], [30.0, 40.0])
    assert weather.vibrations == ([20.0, 50.0], [30.0, 40.0])
    squares = []
    for _ in range(100):
        bench.light(np.zeros(144), turbulent=True)
        squares.append(bench.truth[OPEN_RMS] ** 2)
    # The directions differ and 100 ms are whole periods: the squares add up.
    assert math.sqrt(np.mean(squares)) == pytest.approx(50.0, rel=0.02)
    weather.set_vibrations([], [])
    bench.light(np.zeros(144), turbulent=True)
    assert bench.truth[OPEN_RMS] == pytest.approx(0.0, abs=1e-3)
    for hz, nm in (([1.0], []), ([1.0] * 9, [1.0] * 9), ([-1.0], [1.0]), ([1.0], [math.nan])):
        with pytest.raises(RequestError, match="vibration"):
            weather.set_vibrations(hz, nm)


def test_five_magnitudes_are_a_hundredth_of_the_light() -> None:
    weather = weather_of(OpticalBench(STEADY), STEADY)
    assert weather.magnitude == pytest.approx(STEADY.magnitude)
    weather.set_magnitude(STEADY.magnitude + 5.0)
    assert weather.flux_adu == pytest.approx(STEADY.flux_adu / 100.0)
    weather.set_flux(0.0)
    assert weather.magnitude == math.inf


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, 1e12])
def test_values_that_cannot_be_are_refused(bad: float) -> None:
    weather = weather_of(OpticalBench(STEADY), STEADY)
    for change in (
        weather.set_residual_rms,
        weather.set_seeing,
        weather.set_wind_speed,
        weather.set_tip_tilt_rms,
        weather.set_flux,
        weather.set_read_noise,
    ):
        with pytest.raises(RequestError, match="allowed is"):
            change(bad)


def test_too_many_vibrations_are_refused() -> None:
    with pytest.raises(Exception, match="at most 8"):
        optical_plant(replace(STEADY, vibration_hz=(1.0,) * 9, vibration_nm=(1.0,) * 9), (1,), samples=64)


def test_a_silent_start_and_other_habits_come_from_the_settings(tmp_path: Path) -> None:
    config = simulator_config(
        tmp_path, quirk_silent_start=True, quirk_post_first=True, quirk_recreate="camera_server"
    )
    instrument = VirtualInstrument(config)
    assert instrument.silent
    assert instrument.post_first
    assert instrument.quirks.in_place((1, 2, 4)) == [False, True, True]
    plain = VirtualInstrument(simulator_config(tmp_path))
    assert plain.quirks == Quirks()
    assert not plain.silent
    assert plain.quirks.in_place((1, 2)) is None
