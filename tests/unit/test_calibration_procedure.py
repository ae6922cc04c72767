"""What a calibration measures, against the optics that it measures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.calibration.geometry import (
    REGISTRATION_POKES,
    bilinear_matrix,
    fit_spot,
    pixel_masks,
    register_actuators,
)
from baldr_tango.calibration.inversion import (
    tip_tilt_shapes,
    usable_actuators,
    without_tip_tilt,
    zonal_shapes,
)
from baldr_tango.calibration.procedure import ProcedureSettings
from baldr_tango.calibration.result import Measurement, calibration_of
from baldr_tango.configuration.calibration import Calibration, load_calibration, write_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import BackendError
from baldr_tango.kernels.plants import OPD_RMS, OPEN_RMS, OPEN_STREHL, STREHL
from baldr_tango.names import ACTUATOR_INDEX, CORNERS, N_ACTUATORS, N_GRID, to_grid
from baldr_tango.simulator.optical import pupil_of
from baldr_tango.simulator.optics import influence_functions, reference_wave_kernel
from tests.optical_bench import OpticalBench, close_loops, signal_of
from tests.simulated import simulator_config

SETTINGS = replace(SimulatorSettings(), residual_rms_nm=90.0, first_stage_rejection=0.7)
HOW = ProcedureSettings()


@pytest.fixture(scope="module")
def bench() -> OpticalBench:
    return OpticalBench(SETTINGS)


@pytest.fixture(scope="module")
def measurement(bench: OpticalBench) -> Measurement:
    return bench.measure(HOW)


def assembled(measurement: Measurement, project: bool = True) -> Calibration:
    return calibration_of(
        measurement,
        beam=1,
        mask="H3",
        frame_rate_hz=1000.0,
        gain=10.0,
        poke=HOW.poke,
        least_response=HOW.least_response,
        project_tip_tilt=project,
        controller_type="LEAKY",
    )


@pytest.fixture(scope="module")
def loaded(measurement: Measurement, tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    """Written to a file and loaded again."""
    file = tmp_path_factory.mktemp("calibration") / "baldr_config_1.toml"
    write_calibration(file, assembled(measurement), 1, "H3")
    return load_calibration(file, 1, "H3")


@pytest.fixture(scope="module")
def parameters(loaded: Calibration) -> LoopParameters:
    settings = simulator_config(Path("unused")).for_beam(1)
    return derive(loaded, settings, frame_rate_hz=1000.0, gain=10.0)


def true_places() -> np.ndarray:
    """(140, 2) where the mirror's actuators are on the detector."""
    rows, columns = np.divmod(ACTUATOR_INDEX, 12)
    return 15.5 + 1.2 * (np.stack([rows, columns], axis=-1) - 5.5)


def test_registration_finds_the_mirror(measurement: Measurement) -> None:
    """The centre of gravity of the interpolation is the place of the actuator."""
    rows, columns = np.divmod(np.arange(1024), 32)
    found = np.stack([measurement.interpolation @ rows, measurement.interpolation @ columns], axis=-1)
    distance = np.hypot(*(found - true_places()).T)
    assert distance.max() < 0.15
    assert np.allclose(measurement.interpolation.sum(axis=1), 1)
    assert np.all((measurement.interpolation != 0).sum(axis=1) <= 4)


def test_masks_are_where_the_optics_are(measurement: Measurement) -> None:
    pupil = pupil_of(SETTINGS)
    radius = np.hypot(*np.meshgrid(*(2 * [np.arange(32) - 15.5])))
    masks = measurement.masks
    assert masks.pupil[radius < 5.4].all()
    assert not masks.pupil[radius > 6.6].any()
    assert masks.interior.sum() > 40
    assert not (masks.interior & (masks.secondary | ~masks.pupil)).any()
    assert masks.interior[np.hypot(*np.meshgrid(*(2 * [np.arange(32) - 15.5]))) < 4.0].sum() > 30
    assert masks.secondary.sum() == 9
    centre = np.argwhere(masks.secondary).mean(axis=0)
    assert np.abs(centre - 15.5).max() <= 0.5
    assert masks.exterior.sum() > 100
    assert not (masks.exterior & masks.pupil).any()
    assert radius[masks.exterior].min() > 6.5
    assert pupil.amplitude.reshape(32, 32)[masks.interior].min() > 0.9


def test_interaction_matrix_is_the_derivative_of_the_optics(measurement: Measurement) -> None:
    """Against a derivative in closed form, in float64, of N'Diaye's intensity with the full reference wave.

    E_out = E + c K E with E = P exp(i phi); dE = i P exp(i phi) dphi; dI = 2 Re(conj(E_out) dE_out).
    """
    pupil = pupil_of(SETTINGS)
    kernel = reference_wave_kernel(pupil, SETTINGS.mask_diameter_lambda_over_d)
    c = np.exp(1j * SETTINGS.mask_depth_rad) - 1
    field = np.zeros(1024, dtype=complex)
    field[pupil.pixels] = pupil.weights
    field += c * (kernel @ pupil.weights)
    shapes = influence_functions(pupil, SETTINGS.dm_pitch_pixels, SETTINGS.dm_coupling)[ACTUATOR_INDEX]
    phase = 2 * math.pi / SETTINGS.wavelength_nm * SETTINGS.nm_per_dm_unit * shapes
    change = np.zeros((N_ACTUATORS, 1024), dtype=complex)
    change[:, pupil.pixels] = 1j * pupil.weights * phase
    change += c * ((1j * pupil.weights * phase) @ kernel.T)
    intensity = np.abs(field) ** 2
    slope = 2 * (field.conj() * change).real
    total = intensity.sum()
    slope = slope / total - np.outer(slope.sum(axis=1), intensity) / total**2
    clear = pupil.amplitude.reshape(-1) ** 2
    interior = measurement.masks.interior.reshape(-1)
    divisor = np.where(interior, clear, clear[interior].mean()) / clear.sum()
    expected = (slope @ measurement.interpolation.T) / (measurement.interpolation @ divisor)
    found = measurement.interaction_matrix()[2:]
    # A poke of +-0.025 DM units is +-0.67 rad at its top: its response is a few per cent below the slope.
    strong = np.diag(expected) > 0.5 * np.diag(expected).max()
    assert strong.sum() > 50
    assert (np.diag(found) / np.diag(expected))[strong] == pytest.approx(0.94, abs=0.06)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995


def test_pokes_add_up_to_tip_and_tilt(measurement: Measurement) -> None:
    matrix = measurement.interaction_matrix()
    predicted = measurement.mode_shapes[ACTUATOR_INDEX].T @ matrix[2:]
    for mode in range(2):
        assert np.corrcoef(matrix[mode], predicted[mode])[0, 1] > 0.99
        ratio = np.linalg.norm(matrix[mode]) / np.linalg.norm(predicted[mode])
        assert ratio == pytest.approx(1.0, abs=0.1)


def test_the_file_loads_and_derives_without_complaint(
    loaded: Calibration, parameters: LoopParameters
) -> None:
    assert loaded.I0.sum() == pytest.approx(1)
    assert parameters.flux_weights @ loaded.I0 == pytest.approx(1)
    assert parameters.reference == pytest.approx(loaded.I2A @ loaded.I0)
    assert parameters.clear_pupil == pytest.approx(loaded.I2A @ loaded.norm_pupil)
    assert parameters.signal_mask.all()
    assert np.all(parameters.dark == SETTINGS.pedestal_adu)
    assert (loaded.frame_rate_hz, loaded.gain) == (1000.0, 10.0)
    assert (loaded.szm, loaded.sza, loaded.szp) == (142, 144, 140)
    unexpected = [
        text for text in parameters.warnings if "rows are all zero" not in text and "negative" not in text
    ]
    assert not unexpected


def test_reconstructors_return_what_was_poked(bench: OpticalBench, parameters: LoopParameters) -> None:
    flat = SETTINGS.pedestal_adu + bench.light(np.zeros(N_GRID))
    assert np.abs(signal_of(parameters, flat)).max() < 1e-4
    for mode in range(2):
        command = 0.004 * parameters.mode_shapes_lo[:, mode]
        signal = signal_of(parameters, SETTINGS.pedestal_adu + bench.light(command))
        wanted = np.zeros(2)
        wanted[mode] = 0.004
        assert parameters.reconstructor_lo @ signal == pytest.approx(wanted, abs=0.0004)
    actuator = 40
    command = to_grid(0.01 * (np.arange(N_ACTUATORS) == actuator))
    # Both signs: the sensor's response to one is not linear, 13 % at 0.27 rad.
    signals = [signal_of(parameters, SETTINGS.pedestal_adu + bench.light(sign * command)) for sign in (1, -1)]
    error = parameters.reconstructor_ho @ (signals[0] - signals[1]) / 2
    assert error[actuator] == pytest.approx(0.01, rel=0.1)
    assert int(np.argmax(np.abs(error))) == actuator


def test_high_order_reconstructor_leaves_out_what_cannot_be_seen(measurement: Measurement) -> None:
    free = assembled(measurement, project=False)
    diagonal = np.diag(free.I2M_HO)
    assert np.array_equal(free.I2M_HO, np.diag(diagonal))
    distance = np.hypot(*(true_places() - 15.5).T)
    assert np.all(diagonal[distance > 6.6] == 0)
    assert np.all(diagonal[(distance < 5.0) & (distance > 1.5)] > 0)


def test_high_order_loop_leaves_tip_and_tilt_alone(loaded: Calibration, measurement: Measurement) -> None:
    free = assembled(measurement, project=False)
    used = np.diag(free.I2M_HO) > 0
    modes = loaded.M2C_LO[ACTUATOR_INDEX]
    shapes = loaded.M2C_HO[ACTUATOR_INDEX][:, used]
    assert np.abs(modes[used].T @ shapes[used]).max() < 1e-10
    assert not shapes[~used].any()
    assert not loaded.M2C_HO[list(CORNERS)].any()
    assert np.array_equal(free.M2C_HO[ACTUATOR_INDEX], np.eye(N_ACTUATORS))
    errors = loaded.I2M_HO
    assert np.abs(modes[used].T @ errors[used]).max() < 1e-8 * np.abs(errors).max()
    assert not errors[~used].any()
    # Only tip and tilt are gone: what is left of the zonal reconstructor has two dimensions less.
    assert np.linalg.matrix_rank(errors) == np.count_nonzero(used) - 2


def test_loops_closed_on_the_optics_reduce_the_residual(parameters: LoopParameters) -> None:
    truth, _ = close_loops(OpticalBench(SETTINGS), parameters, 900)
    settled = truth[300:]
    closed = math.sqrt(float(np.mean(settled[:, OPD_RMS] ** 2)))
    opened = math.sqrt(float(np.mean(settled[:, OPEN_RMS] ** 2)))
    assert opened > 60
    assert closed < opened / 3
    assert settled[:, STREHL].mean() > 0.97 > settled[:, OPEN_STREHL].mean()


def test_tip_tilt_loop_alone_removes_tip_and_tilt(parameters: LoopParameters) -> None:
    settings = replace(SETTINGS, residual_rms_nm=0.0, tip_tilt_rms_nm=80.0)
    truth, errors = close_loops(OpticalBench(settings), parameters, 900, ho=False)
    _, open_errors = close_loops(OpticalBench(settings), parameters, 900, lo=False, ho=False)
    assert math.sqrt(np.mean(truth[300:, OPD_RMS] ** 2)) < 0.3 * math.sqrt(
        np.mean(truth[300:, OPEN_RMS] ** 2)
    )
    assert errors[300:].std() < 0.3 * open_errors[300:].std()


def test_the_wrong_sign_makes_it_worse(parameters: LoopParameters) -> None:
    wrong = replace(parameters, reconstructor_lo=-parameters.reconstructor_lo)
    truth, _ = close_loops(OpticalBench(SETTINGS), wrong, 100, ho=False)
    assert truth[-1, OPD_RMS] > 3 * truth[-1, OPEN_RMS]


def test_spots_are_fitted_between_the_pixels() -> None:
    rows, columns = np.indices((32, 32))
    for place in ((14.3, 17.8), (10.5, 20.5), (16.0, 15.0)):
        for height in (1.0, -0.4):
            spot = height * np.exp(-((rows - place[0]) ** 2 + (columns - place[1]) ** 2) / 0.9) - 0.1 * height
            assert fit_spot(spot) == pytest.approx(place, abs=1e-4)


def test_noise_is_no_spot() -> None:
    noise = np.random.default_rng(3).normal(0, 1, (32, 32))
    for image in (np.ones((32, 32)), np.zeros((32, 32)), noise):
        with pytest.raises(BackendError, match="no actuator spot near pixel"):
            fit_spot(image)


def test_registration_survives_rotation_and_flip_and_refuses_nonsense() -> None:
    angle = math.radians(17)
    turn = 1.1 * np.array([[math.cos(angle), math.sin(angle)], [math.sin(angle), -math.cos(angle)]])
    rows, columns = np.divmod(ACTUATOR_INDEX, 12)
    expected = np.array([15.2, 16.1]) + (np.stack([rows, columns], axis=-1) - 5.5) @ turn.T
    found = register_actuators(expected[list(REGISTRATION_POKES)])
    assert found == pytest.approx(expected)
    with pytest.raises(BackendError, match="off an affine grid"):
        register_actuators([(10, 10), (10, 14), (14, 10), (17, 14)])
    with pytest.raises(BackendError, match="square pixels per actuator"):
        register_actuators([(10, 10), (10, 10), (10, 10), (10, 10)])


def test_bilinear_interpolation_is_exact_for_a_plane() -> None:
    rows, columns = np.divmod(np.arange(64), 8)
    places = np.array([[1.25, 3.5], [0.0, 0.0], [5.9, 6.1]])
    matrix = bilinear_matrix(places, (8, 8))
    assert matrix @ (3.0 + 2.0 * rows - columns) == pytest.approx(3 + 2 * places[:, 0] - places[:, 1])
    with pytest.raises(BackendError, match="beyond the frame of 8 x 8"):
        bilinear_matrix(np.array([[7.2, 1.0]]), (8, 8))


def test_a_dark_frame_has_no_pupil() -> None:
    noise = np.random.default_rng(0).normal(0, 2, (32, 32))
    with pytest.raises(BackendError, match="no pupil"):
        pixel_masks(noise, noise)
    with pytest.raises(BackendError, match="no pupil"):
        pixel_masks(np.zeros((32, 32)), noise)


def test_a_hot_pixel_does_not_move_the_pupil(measurement: Measurement) -> None:
    clear = measurement.clear.reshape(32, 32).copy()
    clear[1, 30] = 5 * clear.max()
    masks = pixel_masks(clear, measurement.masked.reshape(32, 32))
    assert np.array_equal(masks.pupil, measurement.masks.pupil)


def test_a_mirror_that_does_not_move_is_noticed() -> None:
    with pytest.raises(BackendError, match="do not respond"):
        usable_actuators(np.zeros(N_ACTUATORS), np.ones(N_ACTUATORS), 0.3)
    with pytest.raises(BackendError, match="do not respond"):
        usable_actuators(np.ones(N_ACTUATORS), np.zeros(N_ACTUATORS), 0.3)


def test_low_order_modes_have_unit_rms_and_are_tip_and_tilt() -> None:
    inside = np.hypot(*(true_places() - 15.5).T) < 6
    shapes = tip_tilt_shapes(inside)
    used = shapes[ACTUATOR_INDEX][inside]
    assert used.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert used.std(axis=0) == pytest.approx([1, 1])
    tip, tilt = (shapes[:, k].reshape(12, 12) for k in range(2))
    assert np.all(np.diff(tip[5]) > 0)
    assert np.ptp(tip[1:11, 5]) == pytest.approx(0)
    assert np.array_equal(tip, tilt.T)
    assert not shapes[list(CORNERS)].any()
    assert zonal_shapes(without_tip_tilt(inside, shapes)).shape == (N_GRID, N_ACTUATORS)
