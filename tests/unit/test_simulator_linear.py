"""The linear plant: the loop's signal is the interaction matrix times the command."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.calibration.procedure import ProcedureSettings
from baldr_tango.calibration.result import calibration_of
from baldr_tango.configuration.calibration import Calibration, load_calibration, write_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import OPD_RMS, OPEN_RMS, STREHL
from baldr_tango.names import ACTUATOR_INDEX, CORNERS, N_ACTUATORS, N_GRID, to_grid
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.linear import linear_plant, pixels_from_signals, responding_pixels
from tests.optical_bench import LinearBench, OpticalBench, close_loops, signal_of
from tests.real_data import FILES, needs_files
from tests.simulated import simulator_config

QUIET = {"plant": "linear", "read_noise_adu": 0.0, "electrons_per_adu": 1e12, "disturbance_rms": 0.0}


@pytest.fixture(scope="module")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the optical plant."""
    measurement = OpticalBench(SimulatorSettings()).measure(ProcedureSettings())
    calibration = calibration_of(
        measurement,
        beam=1,
        mask="H3",
        frame_rate_hz=500.0,
        gain=5.0,
        poke=0.05,
        least_response=0.3,
        project_tip_tilt=True,
        controller_type="PID",
    )
    return write_calibration(tmp_path_factory.mktemp("linear") / "baldr_config_1.toml", calibration, 1, "H3")


def model_of(file: Path, beam: int = 1, **simulator: Any) -> tuple[LinearBench, LoopParameters, Calibration]:
    config = simulator_config(Path("unused"), beams=(beam,), calibration=file, **{**QUIET, **simulator})
    return assembled(config, file, beam)


def assembled(
    config: RuntimeConfig, file: Path, beam: int
) -> tuple[LinearBench, LoopParameters, Calibration]:
    model = InstrumentModel(config)
    calibration = load_calibration(file, beam, "H3")
    parameters = derive(calibration, config.for_beam(beam), frame_rate_hz=model.rate_hz, gain=model.gain)
    return LinearBench(model.linear, model.detector), parameters, calibration


def check_signal(bench: LinearBench, parameters: LoopParameters, calibration: Calibration) -> None:
    """Signal = IM^T c for random commands, zero for none, at constant flux."""
    assert calibration.IM is not None
    rng = np.random.default_rng(2)
    dark = parameters.dark
    assert np.abs(signal_of(parameters, dark + bench.light(np.zeros(N_GRID)))).max() < 1e-6
    flux = float(parameters.flux_weights @ bench.light(np.zeros(N_GRID)))
    for _ in range(3):
        command = rng.normal(0, 0.02, N_ACTUATORS)
        light = bench.light(to_grid(command))
        expected = calibration.IM[calibration.LO :].T @ command
        found = signal_of(parameters, dark + light)
        assert found[parameters.signal_mask] == pytest.approx(expected[parameters.signal_mask], abs=2e-5)
        assert parameters.flux_weights @ light == pytest.approx(flux, rel=1e-6)
        corners = np.zeros(N_GRID)
        corners[list(CORNERS)] = 1.0
        assert np.array_equal(bench.light(to_grid(command) + corners), light)


def test_signal_is_the_interaction_matrix_times_the_command(calibration_file: Path) -> None:
    check_signal(*model_of(calibration_file))


def test_bad_pixels_change_nothing(calibration_file: Path, tmp_path: Path) -> None:
    calibration = load_calibration(calibration_file, 1, "H3")
    bad = np.array([12 * 32 + 14, 12 * 32 + 15, 18 * 32 + 12, 3 * 32 + 3])
    file = write_calibration(tmp_path / "bad.toml", replace(calibration, bad_pixels=bad), 1, "H3")
    bench, parameters, changed = model_of(file)
    assert parameters.bad_pixels.tolist() == sorted(bad.tolist())
    check_signal(bench, parameters, changed)


def test_the_change_of_the_frame_is_the_faintest_possible(calibration_file: Path) -> None:
    """Any other image with the same signal and no flux is brighter: it differs by a null vector of both."""
    _, parameters, _ = model_of(calibration_file)
    pixels = responding_pixels(parameters)
    inverse = pixels_from_signals(parameters)
    forward = np.vstack([parameters.pixels_to_actuators[:, pixels], np.ones((1, pixels.size))])
    assert forward @ inverse == pytest.approx(
        np.vstack([np.diag(parameters.clear_pupil), np.zeros((1, 140))]), abs=1e-9
    )
    null = np.linalg.svd(forward)[2][np.linalg.matrix_rank(forward) :]
    assert null.shape[0] > 0
    assert np.abs(null @ inverse).max() < 1e-9


def test_detector_is_that_of_the_file(calibration_file: Path) -> None:
    bench, parameters, calibration = model_of(calibration_file, rate_hz=0.0, flux_adu=30000.0)
    assert (parameters.frame_rate_hz, parameters.gain) == (500.0, 5.0)
    assert np.array_equal(bench.detector.dark[0], parameters.dark.astype(np.float32))
    assert bench.detector.flux[0] == 30000.0
    clear = bench.light(np.full(N_GRID, 0.01), mask_in=False)
    assert clear == pytest.approx(30000 * calibration.N0 / calibration.N0.sum(), rel=1e-4, abs=0.01)


def test_files_in_old_units_bring_their_own_flux(calibration_file: Path, tmp_path: Path) -> None:
    """I0 in ADU/s/gain: a frame has I0 * gain / rate; dark likewise, on top of the bias."""
    calibration = load_calibration(calibration_file, 1, "H3")
    scale = 4.0e6
    old = replace(
        calibration,
        I0=scale * calibration.I0,
        N0=scale * calibration.N0 / calibration.N0.sum(),
        norm_pupil=scale * calibration.norm_pupil,
        bias=np.full(1024, 900.0),
        dark=np.full(1024, 50.0),
    )
    file = write_calibration(tmp_path / "old.toml", old, 1, "H3")
    bench, parameters, changed = model_of(file, rate_hz=1000.0)
    assert bench.detector.flux[0] == pytest.approx(scale * 5.0 / 1000.0)
    assert bench.detector.dark[0] == pytest.approx(np.full(1024, 900 + 50 * 5.0 / 1000.0))
    check_signal(bench, parameters, changed)


def test_a_static_disturbance_in_the_low_order_space_is_removed(calibration_file: Path) -> None:
    bench, parameters, _ = model_of(calibration_file, disturbance_lo=(0.02, -0.01))
    still = signal_of(parameters, parameters.dark + bench.light(np.zeros(N_GRID), turbulent=True))
    assert parameters.reconstructor_lo @ still == pytest.approx([0.02, -0.01], rel=0.1)
    truth, errors = close_loops(bench, parameters, 300, leak=1.0, ho=False)
    assert np.abs(errors[-50:]).max() < 0.05 * np.abs(errors[0]).max()
    assert truth[-1, OPD_RMS] < 0.1 * truth[-1, OPEN_RMS]
    assert truth[-1, STREHL] == pytest.approx(math.exp(-((2 * math.pi * truth[-1, OPD_RMS] / 1650) ** 2)))


def test_the_varying_disturbance_has_its_rms(calibration_file: Path) -> None:
    bench, _, _ = model_of(calibration_file, disturbance_rms=0.01, disturbance_lo=(0.0, 0.0))
    squares = []
    for k in range(8000):
        bench.light(np.zeros(N_GRID), turbulent=True)
        if k % 100 == 99:
            squares.append(float(np.mean(bench.plant.varying[0, 1, ACTUATOR_INDEX] ** 2)))
    assert math.sqrt(np.mean(squares)) == pytest.approx(0.01, rel=0.1)
    assert bench.truth[OPEN_RMS] == pytest.approx(70.0, rel=0.4)


def test_what_cannot_be_built_is_refused(calibration_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="disturbance_lo: found 3 values, expected 2"):
        model_of(calibration_file, disturbance_lo=(0.0, 0.0, 0.0))
    calibration = load_calibration(calibration_file, 1, "H3")
    file = write_calibration(tmp_path / "blind.toml", replace(calibration, IM=None), 1, "H3")
    with pytest.raises(ConfigError, match="IM: missing"):
        model_of(file)
    config = simulator_config(tmp_path, calibration=tmp_path / "absent.toml", **QUIET)
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        InstrumentModel(config)
    parameters = derive(calibration, config.for_beam(1), frame_rate_hz=1000.0)
    assert linear_plant(config.simulator, [calibration], [parameters]).support.shape[0] == 1


@pytest.mark.real_data
@needs_files
@pytest.mark.real_data
@pytest.mark.parametrize(("beam", "rate_hz"), [(1, 1000.0), (2, 0.0)])
def test_loops_close_on_the_calibrations_of_the_instrument(beam: int, rate_hz: float) -> None:
    """Both loops, at low noise: their responses are weak, and a noisy frame would drown them."""
    bench, parameters, calibration = model_of(
        FILES[beam],
        beam,
        rate_hz=rate_hz,
        disturbance_lo=(0.05, -0.03),
        disturbance_rms=0.005,
        electrons_per_adu=1000.0,
        read_noise_adu=0.1,
    )
    check_signal(bench, parameters, calibration)
    truth, errors = close_loops(bench, parameters, 3000)
    settled = np.abs(errors[-1000:].mean(axis=0))
    assert np.linalg.norm(settled) < 0.2 * np.linalg.norm([0.05, -0.03])
    assert truth[-1000:, OPD_RMS].mean() < 0.5 * truth[-1000:, OPEN_RMS].mean()
