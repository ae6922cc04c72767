"""The calibration files of the instrument, with the traps that they are known to hold."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.configuration.calibration import Calibration, load_calibration, write_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.names import ACTUATOR_INDEX, CORNERS
from tests.real_data import FILES, needs_real_data

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = needs_real_data

BEAMS = pytest.mark.parametrize("beam", [1, 2])


@cache
def calibration_of(beam: int) -> Calibration:
    """Load once per test run: a file takes a second."""
    return load_calibration(FILES[beam], beam, "H3")


@cache
def raw(beam: int) -> dict[str, np.ndarray]:
    """The arrays as the TOML parser alone gives them."""
    table = tomllib.loads(FILES[beam].read_text())[f"beam{beam}"]["H3"]["ctrl_model"]
    return {name: np.array(value) for name, value in table.items() if isinstance(value, list)}


@cache
def parameters(beam: int) -> LoopParameters:
    return derive(calibration_of(beam), RuntimeConfig(file=Path("baldr.toml")).for_beam(beam))


def told(beam: int, key: str) -> list[str]:
    name = f"{FILES[beam]}: beam{beam}.H3.ctrl_model.{key}: "
    return [warning.removeprefix(name) for warning in parameters(beam).warnings if warning.startswith(name)]


@BEAMS
def test_shapes_are_those_of_the_instrument(beam):
    p = parameters(beam)
    assert p.frame_shape == (32, 32)
    assert p.pixels_to_actuators.shape == (140, 1024)
    assert p.reconstructor_lo.shape == (2, 140)
    assert p.reconstructor_ho.shape == (140, 140)
    assert p.mode_shapes_lo.shape == (144, 2)
    assert p.mode_shapes_ho.shape == (144, 140)
    assert p.interaction_matrix.shape == (142, 140)
    assert {1: (1730.0, 10.0), 2: (200.0, 1.0)}[beam] == (
        calibration_of(beam).frame_rate_hz,
        calibration_of(beam).gain,
    )


@BEAMS
def test_bad_pixels_name_all_and_are_taken_as_none(beam):
    assert told(beam, "bad_pixels") == ["names all 1024 pixels: taken as none"]
    p = parameters(beam)
    assert p.bad_pixels.size == 0
    np.testing.assert_array_equal(p.pixels_to_actuators, raw(beam)["I2A"])


@BEAMS
def test_references_are_normalised(beam):
    p, data = parameters(beam), raw(beam)
    assert data["I0"].sum() > 1e6
    assert any("not normalised" in text for text in told(beam, "I0"))
    assert any("not normalised" in text for text in told(beam, "norm_pupil"))
    reference = data["I0"] / data["I0"].sum()
    np.testing.assert_allclose(p.reference, data["I2A"] @ reference, rtol=1e-12)
    np.testing.assert_allclose(
        p.clear_pupil, data["I2A"] @ (data["norm_pupil"] / data["N0"].sum()), rtol=1e-12
    )
    assert p.signal_mask.all()
    # about 120 pixels of 1024 are pupil: a pixel has about 1/120 of the light, and no more
    assert 1 / 300 < p.clear_pupil.min() < p.clear_pupil.max() < 1 / 60
    frame = p.dark + 40000.0 * reference
    signal = (p.pixels_to_actuators @ (frame - p.dark) / (frame - p.dark).sum() - p.reference) / p.clear_pupil
    np.testing.assert_allclose(signal, 0.0, atol=1e-9)


@BEAMS
def test_dark_is_a_frame_of_adu_at_the_rate_in_use(beam):
    data, calibration = raw(beam), calibration_of(beam)
    settings = RuntimeConfig(file=Path("baldr.toml")).for_beam(beam)
    for rate, gain in ((1000.0, 5.0), (calibration.frame_rate_hz, calibration.gain)):
        p = derive(calibration, settings, frame_rate_hz=rate, gain=gain)
        np.testing.assert_allclose(p.dark, data["bias"] + data["dark"] * gain / rate, rtol=1e-12)
    assert 800 < np.median(p.dark) < 1100
    assert len(told(beam, "dark")) == 1


@BEAMS
def test_interpolation_has_four_neighbours_per_actuator(beam):
    matrix = parameters(beam).pixels_to_actuators
    np.testing.assert_array_equal(np.count_nonzero(matrix, axis=1), 4)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-12)
    pixels = np.array([np.flatnonzero(row) for row in matrix])
    np.testing.assert_array_equal(pixels - pixels[:, :1], np.tile([0, 1, 32, 33], (140, 1)))


@pytest.mark.parametrize(("beam", "alive"), [(1, 57), (2, 56)])
def test_high_order_reconstructor_is_diagonal_with_dead_modes(beam, alive):
    matrix = parameters(beam).reconstructor_ho
    np.testing.assert_array_equal(matrix, np.diag(np.diag(matrix)))
    assert np.count_nonzero(matrix) == alive
    assert told(beam, "I2M_HO") == [f"{140 - alive} of 140 rows are all zero: these modes are not controlled"]


@pytest.mark.parametrize(("beam", "name", "values"), [(1, "M2C_HO", 79), (2, "M2C_LO", 8)])
def test_corners_of_the_map_are_cleared(beam, name, values):
    data, p = raw(beam)[name], parameters(beam)
    assert np.count_nonzero(data[list(CORNERS)]) == values
    assert told(beam, name) == [
        f"{values} values at the corners of the DM map, which have no actuator: set to 0"
    ]
    shapes = p.mode_shapes_lo if name == "M2C_LO" else p.mode_shapes_ho
    assert not shapes[list(CORNERS)].any()
    np.testing.assert_array_equal(shapes[ACTUATOR_INDEX], data[ACTUATOR_INDEX])


@BEAMS
def test_low_order_response_fits_the_pokes(beam):
    """Reconstructing the response predicted from the pokes gives tip for tip and tilt for tilt."""
    p = parameters(beam)
    predicted = p.mode_shapes_lo[ACTUATOR_INDEX].T @ p.interaction_matrix[2:]
    modes = p.reconstructor_lo @ predicted.T
    assert np.diag(modes) == pytest.approx([1.2, 1.2], abs=0.15)
    assert abs(modes[0, 1]) < 0.2
    assert abs(modes[1, 0]) < 0.2
    assert told(beam, "IM") == []


@BEAMS
def test_camera_settings_with_blanks_in_their_names_are_read(beam):
    assert calibration_of(beam).camera_config["cropping_columns"] == "1-10"
    assert len(told(beam, "camera_config.'cropping columns'")) == 1


def test_the_tables_of_another_beam_are_not_read():
    assert any("the file also has beam1, which is not read" in text for text in parameters(2).warnings)


@BEAMS
def test_a_copy_in_the_legacy_format_is_the_same_calibration(beam, tmp_path):
    original = calibration_of(beam)
    copy = load_calibration(write_calibration(tmp_path / "c.toml", original, beam, "H3"), beam, "H3")
    for name in ("I2A", "I0", "N0", "norm_pupil", "I2M_LO", "I2M_HO", "M2C", "M2C_HO", "IM", "bad_pixels"):
        assert getattr(copy, name).tobytes() == getattr(original, name).tobytes(), name
    assert copy.warnings == ()
