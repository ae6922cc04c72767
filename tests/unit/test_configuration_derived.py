"""Parameters of the loop, against formulas written out here, and the traps of calibration files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.configuration.bad_pixels import fold_repair
from baldr_tango.configuration.calibration_checks import parse_table
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import (
    BeamSettings,
    ControlSettings,
    LoopSettings,
    RuntimeConfig,
)
from baldr_tango.errors import ConfigError
from tests.unit.configuration_problem import (
    ACTUATORS,
    CORNERS,
    PIXELS,
    SIDE,
    SIGNALS,
    calibration_table,
)

FILE = Path("c.toml")


def settings_of(**changes: Any) -> BeamSettings:
    """Settings of beam 1, with changes of their tables."""
    return replace(RuntimeConfig(file=Path("/none/baldr.toml")).for_beam(1), **changes)


def parameters_of(
    table: dict[str, Any] | None = None, settings: BeamSettings | None = None, **measured: Any
) -> LoopParameters:
    calibration = parse_table(FILE, 1, "H3", table or calibration_table())
    return derive(calibration, settings or settings_of(), **measured)


def signal_of(p: LoopParameters, frame: np.ndarray) -> np.ndarray:
    """Steps 3 to 8 of the real-time loop, as the reference has them."""
    light = frame - p.dark
    if p.bad_pixel_rule == "median" and p.bad_pixels.size:
        light[p.bad_pixels] = np.median(light)
    flux = light @ p.flux_weights
    signal = np.zeros(p.reference.size)
    on = p.signal_mask
    signal[on] = (p.pixels_to_actuators @ light / flux - p.reference)[on] / p.clear_pupil[on]
    return signal


def only_warning(p: LoopParameters, *parts: str) -> None:
    """Check that there is one warning, and that it says `parts`."""
    assert len(p.warnings) == 1, p.warnings
    for part in parts:
        assert part in p.warnings[0]


def test_a_calibration_without_fault_passes_through_unchanged():
    table = calibration_table()
    p = parameters_of(table)
    assert p.warnings == ()
    np.testing.assert_array_equal(p.pixels_to_actuators, table["I2A"])
    np.testing.assert_array_equal(p.flux_weights, np.ones(PIXELS))
    np.testing.assert_allclose(p.reference, table["I2A"] @ table["I0"], rtol=1e-15)
    np.testing.assert_allclose(p.clear_pupil, table["I2A"] @ table["norm_pupil"], rtol=1e-15)
    np.testing.assert_array_equal(p.dark, table["dark"])
    np.testing.assert_array_equal(p.reconstructor_lo, table["I2M_LO"])
    np.testing.assert_array_equal(p.reconstructor_ho, table["I2M_HO"])
    np.testing.assert_array_equal(p.mode_shapes_lo, table["M2C_LO"])
    np.testing.assert_array_equal(p.mode_shapes_ho, table["M2C_HO"])
    np.testing.assert_array_equal(p.interaction_matrix, table["IM"])
    assert p.signal_mask.all()
    assert p.bad_pixels.size == 0
    assert p.frame_shape == (SIDE, SIDE)
    assert p.secondary_pixel == 27
    assert p.strehl_line == (2.5e-6, -0.05)
    assert (p.controller_type_lo, p.controller_type_ho) == ("PID", "PID")


def test_derived_values_do_not_share_memory_with_the_calibration():
    calibration = parse_table(FILE, 1, "H3", calibration_table())
    p = derive(calibration, settings_of())
    mine = [value for value in vars(p).values() if isinstance(value, np.ndarray)]
    theirs = [value for value in vars(calibration).values() if isinstance(value, np.ndarray)]
    assert len(mine) > 10
    assert not any(np.shares_memory(a, b) for a in mine for b in theirs)


@pytest.mark.parametrize(
    ("setting", "measured", "expected"), [(800.0, None, 800.0), (0.0, None, 1730.0), (800.0, 500.0, 500.0)]
)
def test_the_frame_rate_is_the_measured_else_the_setting_else_the_file(setting, measured, expected):
    settings = settings_of(loop=LoopSettings(frame_rate_hz=setting))
    assert parameters_of(None, settings, frame_rate_hz=measured).frame_rate_hz == expected


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_rate_or_gain_that_the_camera_cannot_have_is_an_error(value):
    with pytest.raises(ConfigError, match=f"frame rate of beam 1: found {value}"):
        parameters_of(frame_rate_hz=value)
    with pytest.raises(ConfigError, match=f"camera gain of beam 1: found {value}"):
        parameters_of(gain=value)


# --- references ---------------------------------------------------------------------------------------


def old_generation(table: dict[str, Any], scale: float = 5.0e6) -> dict[str, Any]:
    """The same calibration in ADU/s/gain."""
    n0 = np.asarray(table["N0"]).sum()
    return table | {
        "I0": table["I0"] * scale,
        "N0": table["N0"] * scale / n0,
        "norm_pupil": table["norm_pupil"] * scale,
    }


def test_references_do_not_depend_on_their_unit():
    table = calibration_table()
    now, old = parameters_of(table), parameters_of(old_generation(table))
    np.testing.assert_allclose(old.reference, now.reference, rtol=1e-12)
    np.testing.assert_allclose(old.clear_pupil, now.clear_pupil, rtol=1e-12)
    told = " | ".join(old.warnings)
    assert "ctrl_model.I0: not normalised, sum 5e+06" in told
    assert "ctrl_model.norm_pupil: not normalised" in told


def test_a_reference_that_is_a_little_off_is_normalised_but_its_dark_stays():
    table = calibration_table()
    p = parameters_of(table | {"I0": 1.2 * table["I0"]})
    only_warning(p, "I0: not normalised, sum 1.2")
    np.testing.assert_allclose(p.reference, table["I2A"] @ table["I0"], rtol=1e-12)
    np.testing.assert_array_equal(p.dark, table["dark"])


def test_negative_pixels_are_told_and_kept():
    table = calibration_table()
    table["I0"][[0, 1]] = -1e-5
    table["I0"] /= table["I0"].sum()
    p = parameters_of(table)
    only_warning(p, "I0: 2 pixels are negative")
    np.testing.assert_allclose(p.reference, table["I2A"] @ table["I0"], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"I0": -np.ones(PIXELS)}, "I0"),
        ({"I0": np.zeros(PIXELS)}, "I0"),
        ({"N0": np.zeros(PIXELS), "norm_pupil": np.full(PIXELS, 5.0)}, "N0"),
        ({"norm_pupil": np.zeros(PIXELS)}, "norm_pupil"),
        ({"norm_pupil": np.full(PIXELS, -0.01)}, "norm_pupil"),
    ],
)
def test_references_without_light_are_errors(change, key):
    with pytest.raises(ConfigError, match=rf"c\.toml: beam1\.H3\.ctrl_model\.{key}: found .* light"):
        parameters_of(calibration_table() | change)


def test_a_signal_without_light_is_masked():
    table = calibration_table()
    dark_signal = 4
    table["norm_pupil"][table["I2A"][dark_signal] != 0] = 0.0
    p = parameters_of(table)
    light = table["I2A"] @ table["norm_pupil"]
    np.testing.assert_array_equal(p.signal_mask, light > 0)
    assert not p.signal_mask[dark_signal]
    only_warning(p, "norm_pupil: no light at", f"of {SIGNALS} actuators")
    assert np.isfinite(signal_of(p, p.dark + 1000 * np.random.default_rng(0).uniform(size=PIXELS))).all()


# --- dark ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "gain"), [(1730.0, 10.0), (500.0, 1.0)])
def test_an_old_dark_is_a_rate(rate, gain):
    table = old_generation(calibration_table())
    rng = np.random.default_rng(1)
    table |= {"bias": rng.uniform(970, 1100, PIXELS), "dark": rng.normal(0, 1e4, PIXELS)}
    p = parameters_of(table, frame_rate_hz=rate, gain=gain)
    np.testing.assert_allclose(p.dark, table["bias"] + table["dark"] * gain / rate, rtol=1e-14)
    assert any("ctrl_model.dark: in ADU/s/gain" in warning for warning in p.warnings)


def test_an_old_dark_takes_the_gain_of_the_file_when_none_is_measured():
    table = old_generation(calibration_table()) | {"dark": np.full(PIXELS, 100.0)}
    p = parameters_of(table, settings_of(loop=LoopSettings(frame_rate_hz=0.0)))
    assert p.gain == 10.0
    np.testing.assert_allclose(p.dark, 100.0 * 10.0 / 1730.0)


@pytest.mark.parametrize("old", [False, True])
def test_a_dark_of_zeros_is_the_pedestal(old):
    table = calibration_table() | {"dark": np.zeros(PIXELS)}
    table = old_generation(table) if old else table
    p = parameters_of(table, settings_of(loop=LoopSettings(pedestal_adu=1234.0)))
    np.testing.assert_array_equal(p.dark, np.full(PIXELS, 1234.0))
    assert any("dark: all zero: taken as 1234 ADU" in warning for warning in p.warnings)


def test_a_present_dark_is_the_whole_dark_frame():
    table = calibration_table() | {"bias": np.full(PIXELS, 990.0)}
    p = parameters_of(table)
    np.testing.assert_array_equal(p.dark, table["dark"])
    only_warning(p, "bias: not used")
    p = parameters_of(table | {"dark": np.zeros(PIXELS)})
    np.testing.assert_array_equal(p.dark, table["bias"])
    only_warning(p, "dark: all zero: bias taken for it")


# --- bad pixels ---------------------------------------------------------------------------------------

BAD_SETS = [[9], [0, 7, 56, 63], [18, 19, 20, 26, 27, 28, 34, 35, 36], [0, 1, 8, 9, 30]]


def repaired_with_neighbours(frame: np.ndarray, bad: list[int]) -> np.ndarray:
    """Mean over the good pixels of the smallest square that has any, written as loops."""
    result = frame.copy()
    for pixel in bad:
        row, column = divmod(pixel, SIDE)
        for reach in range(1, SIDE):
            near = [
                r * SIDE + c
                for r in range(max(0, row - reach), min(SIDE, row + reach + 1))
                for c in range(max(0, column - reach), min(SIDE, column + reach + 1))
                if r * SIDE + c not in bad
            ]
            if near:
                result[pixel] = sum(frame[k] for k in near) / len(near)
                break
    return result


@pytest.mark.parametrize("bad", BAD_SETS)
def test_folded_weights_do_what_a_repaired_frame_would(bad):
    rng = np.random.default_rng(5)
    matrix, frame = rng.normal(size=(5, PIXELS)), rng.uniform(0, 1000, PIXELS)
    folded = fold_repair(matrix, np.array(bad), (SIDE, SIDE))
    np.testing.assert_allclose(folded @ frame, matrix @ repaired_with_neighbours(frame, bad), rtol=1e-12)
    assert not folded[:, bad].any()


def test_a_bad_pixel_on_a_slope_is_repaired_exactly():
    rows, columns = np.divmod(np.arange(PIXELS), SIDE)
    slope = 3.0 * rows + 5.0 * columns
    identity = fold_repair(np.eye(PIXELS), np.array([27]), (SIDE, SIDE))
    np.testing.assert_allclose(identity @ slope, slope, rtol=1e-13)


def test_repair_in_an_oblong_frame_stays_among_its_rows():
    weights = fold_repair(np.eye(32), np.array([15]), (2, 16))[15]
    np.testing.assert_array_equal(np.flatnonzero(weights), [14, 30, 31])


@pytest.mark.parametrize("rule", ["neighbours", "median"])
@pytest.mark.parametrize("bad", BAD_SETS)
@pytest.mark.parametrize("old", [False, True])
def test_bad_pixels_do_not_reach_the_signal(rule, bad, old):
    table = calibration_table()
    table |= {"bad_pixels": [*bad, bad[0]], "exterior_pixels": [*table["exterior_pixels"], bad[0]]}
    table = old_generation(table) if old else table
    p = parameters_of(table, settings_of(loop=LoopSettings(bad_pixels=rule)))
    np.testing.assert_array_equal(p.bad_pixels, bad)
    assert p.bad_pixel_rule == rule
    frame = p.dark + 3e4 * table["I0"] / table["I0"].sum()
    np.testing.assert_allclose(signal_of(p, frame), 0.0, atol=1e-9)
    hit = frame.copy()
    hit[bad] = 1e6
    if rule == "neighbours":
        np.testing.assert_allclose(signal_of(p, hit), 0.0, atol=1e-9)
        assert not set(bad) & set(p.exterior_pixels)
    else:
        np.testing.assert_array_equal(p.pixels_to_actuators, table["I2A"])
        np.testing.assert_array_equal(p.flux_weights, 1.0)


def test_the_clear_pupil_is_over_the_flux_of_the_repaired_frame():
    table = calibration_table() | {"bad_pixels": [27]}
    table["N0"][27] = 9000.0
    table["norm_pupil"] = table["norm_pupil"] * 1000.0 / table["N0"].sum()
    fluxes = [table["N0"].sum(), repaired_with_neighbours(table["N0"], [27]).sum()]
    clear = repaired_with_neighbours(table["norm_pupil"], [27]) * fluxes[0] / fluxes[1]
    np.testing.assert_allclose(parameters_of(table).clear_pupil, table["I2A"] @ clear, rtol=1e-12)


def test_a_list_of_all_pixels_names_none():
    p = parameters_of(calibration_table() | {"bad_pixels": list(range(PIXELS))})
    assert p.bad_pixels.size == 0
    only_warning(p, f"bad_pixels: names all {PIXELS} pixels: taken as none")
    np.testing.assert_array_equal(p.flux_weights, 1.0)


def test_a_long_list_of_bad_pixels_is_told():
    p = parameters_of(calibration_table() | {"bad_pixels": list(range(20))})
    only_warning(p, "bad_pixels: names 20 of 64 pixels")
    np.testing.assert_allclose(p.flux_weights.sum(), PIXELS)


def test_no_exterior_pixel_is_told():
    only_warning(
        parameters_of(calibration_table() | {"exterior_pixels": []}), "exterior_pixels: no good pixel"
    )


# --- modes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["M2C_LO", "M2C_HO"])
def test_corners_of_the_map_get_nothing(name):
    table = calibration_table()
    table[name] = table[name].copy()
    table[name][CORNERS, :2] = 1.3
    p = parameters_of(table)
    shapes = p.mode_shapes_lo if name == "M2C_LO" else p.mode_shapes_ho
    assert not shapes[CORNERS].any()
    np.testing.assert_array_equal(shapes[ACTUATORS], table[name][ACTUATORS])
    only_warning(p, f"{name}: 8 values at the corners")


def test_a_map_with_as_many_points_as_signals_has_no_corners():
    table = calibration_table()
    for name in ("M2C", "M2C_LO", "M2C_HO"):
        table[name] = table[name][ACTUATORS]
    p = parameters_of(table | {"sza": SIGNALS})
    np.testing.assert_array_equal(p.mode_shapes_lo, table["M2C_LO"])
    assert p.warnings == ()


def test_modes_without_reconstructor_are_counted():
    table = calibration_table()
    table["I2M_HO"][[2, 5, 7]] = 0.0
    only_warning(parameters_of(table), f"I2M_HO: 3 of {SIGNALS} rows are all zero")


def test_low_order_responses_that_fit_the_pokes_are_not_told():
    table = calibration_table()
    table["IM"][:2] *= 0.77  # large modes saturate, as in the files of the instrument
    assert parameters_of(table).warnings == ()


@pytest.mark.parametrize("fault", ["exchanged", "sign", "poke amplitude", "dead"])
def test_low_order_responses_that_do_not_fit_the_pokes_are_told(fault):
    table = calibration_table()
    low_order = table["IM"][:2].copy()
    table["IM"][:2] = {
        "exchanged": low_order[::-1],
        "sign": -low_order,
        "poke amplitude": low_order * 0.05,
        "dead": low_order * 0,
    }[fault]
    warnings = parameters_of(table).warnings
    assert len(warnings) == 2
    for mode, warning in enumerate(warnings):
        assert f"c.toml: beam1.H3.ctrl_model.IM: row {mode} (low-order mode) does not fit" in warning


def test_no_interaction_matrix_is_no_fault():
    p = parameters_of({name: value for name, value in calibration_table().items() if name != "IM"})
    assert p.interaction_matrix is None
    assert p.warnings == ()


# --- controllers --------------------------------------------------------------------------------------


def test_a_gain_is_one_number_for_all_modes_or_one_per_mode():
    gains = tuple(0.01 * k for k in range(SIGNALS))
    settings = settings_of(
        control_lo=ControlSettings(ki=(0.1, 0.2), lower=-1.0), control_ho=ControlSettings(kp=0.5, leak=gains)
    )
    p = parameters_of(None, settings)
    np.testing.assert_array_equal(p.control_lo.ki, [0.1, 0.2])
    np.testing.assert_array_equal(p.control_lo.lower, [-1.0, -1.0])
    np.testing.assert_array_equal(p.control_ho.kp, np.full(SIGNALS, 0.5))
    np.testing.assert_array_equal(p.control_ho.leak, gains)
    assert p.control_ho.upper.flags.writeable


@pytest.mark.parametrize(("table", "modes"), [("control_lo", 2), ("control_ho", SIGNALS)])
@pytest.mark.parametrize("name", ["kp", "ki", "kd", "leak", "lower", "upper"])
def test_a_list_of_gains_of_the_wrong_length_is_an_error(table, modes, name):
    low = {"lower": -1.0}.get(name, 0.5)
    settings = settings_of(**{table: ControlSettings(**{name: (low,) * 5})})
    with pytest.raises(ConfigError) as error:
        parameters_of(None, settings)
    assert f"/none/baldr.toml: {table}.{name}: found 5 items" in str(error.value)
    assert f"{modes} (one per mode)" in str(error.value)


def test_one_number_in_a_list_is_not_one_number_for_all():
    with pytest.raises(ConfigError, match=r"control_lo\.ki: found 1 items"):
        parameters_of(None, settings_of(control_lo=ControlSettings(ki=(0.3,))))


def test_the_controller_is_the_setting_else_the_one_of_the_file():
    settings = settings_of(control_ho=ControlSettings(type="LEAKY"))
    p = parameters_of(None, settings)
    assert (p.controller_type_lo, p.controller_type_ho) == ("PID", "LEAKY")
    kalman = parameters_of(calibration_table() | {"controller_type": "KALMAN"}, settings)
    assert (kalman.controller_type_lo, kalman.controller_type_ho) == ("KALMAN", "LEAKY")


def test_the_kalman_model_begins_with_the_gain_and_leak_of_the_settings():
    p = parameters_of(None, settings_of(control_lo=ControlSettings(ki=(0.2, 0.4), leak=0.98)))
    np.testing.assert_allclose(np.diag(p.kalman_lo.gain), [0.2, 0.4], rtol=1e-12)
    np.testing.assert_array_equal(p.kalman_lo.transition, 0.98 * np.eye(2))
    assert p.kalman_ho.gain.shape == (p.reconstructor_ho.shape[0],) * 2


def test_settings_reach_the_loop():
    settings = settings_of(
        loop=LoopSettings(boxcar=5, nm_per_dm_unit=6000.0, wavelength_nm=1600.0), mode="faint"
    )
    p = parameters_of(None, settings)
    assert (p.boxcar, p.nm_per_dm_unit, p.wavelength_nm, p.mode) == (5, 6000.0, 1600.0, "faint")
    assert p.limits == settings.limits
    assert (p.beam, p.mask, p.config_file) == (1, "H3", "c.toml")
