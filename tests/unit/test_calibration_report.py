"""What the report of a calibration finds, and what it leaves alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldr_tango.calibration.prediction import loop_model
from baldr_tango.calibration.report import CalibrationReport, judge, render
from baldr_tango.configuration.calibration_checks import parse_table
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import BeamSettings, ControlSettings, LoopSettings, RuntimeConfig
from tests.closed_loop import grows, response
from tests.unit.configuration_problem import ACTUATORS, SIGNALS, calibration_table

CENTRE = 5
"""An actuator in the middle of the pupil."""


def settings_of(**changes: Any) -> BeamSettings:
    return replace(RuntimeConfig(file=Path("/none/baldr.toml")).for_beam(1), **changes)


def parameters_of(table: dict[str, Any], **changes: Any) -> LoopParameters:
    return derive(parse_table(Path("c.toml"), 1, "H3", table), settings_of(**changes))


def report_of(table: dict[str, Any] | None = None, **changes: Any) -> CalibrationReport:
    content = table or calibration_table()
    return judge(parse_table(Path("c.toml"), 1, "H3", content), parameters_of(content, **changes))


def only_warning(report: CalibrationReport, *parts: str) -> None:
    assert len(report.warnings) == 1, report.warnings
    for part in parts:
        assert part in report.warnings[0]


def test_a_calibration_without_fault_has_no_warnings():
    report = report_of()
    assert report.warnings == ()
    assert report.predicted_stable is True
    assert report.gain_margin > 1
    assert (report.actuators.dead, report.actuators.hot) == ((), ())
    assert report.actuators.in_pupil == report.actuators.controlled == SIGNALS
    for match in report.low_order:
        assert match.correlation == pytest.approx(1.0, abs=1e-12)
        assert match.ratio == pytest.approx(1.0, abs=1e-12)


def test_condition_numbers_are_those_of_the_responses():
    table = calibration_table()
    report = report_of(table)
    for found, rows in (
        (report.conditions.low_order, table["IM"][:2]),
        (report.conditions.high_order, table["IM"][2:]),
        (report.conditions.all, table["IM"]),
    ):
        assert found == pytest.approx(np.linalg.cond(rows), rel=1e-9)


def test_low_order_modes_that_cannot_be_told_apart_are_found():
    table = calibration_table()
    table["IM"][1] = table["IM"][0]
    report = report_of(table)
    assert report.conditions.low_order > 1e14
    assert report.as_dict()["conditions"]["low_order"] is None, "JSON has no infinity"
    assert any("condition number of the low-order responses is inf" in note for note in report.warnings)


def test_modes_that_are_not_controlled_do_not_count_in_condition_numbers():
    table = calibration_table()
    table["I2M_HO"][CENTRE, CENTRE] = 0.0
    table["IM"][2 + CENTRE] = 1e-9
    report = report_of(table)
    rows = np.delete(table["IM"][2:], CENTRE, axis=0)
    assert report.conditions.high_order == pytest.approx(np.linalg.cond(rows), rel=1e-9)


@pytest.mark.parametrize(("factor", "word"), [(0.02, "dead"), (8.0, "hot")])
def test_actuators_unlike_the_others_are_named(factor, word):
    table = calibration_table()
    table["IM"][2 + CENTRE] *= factor
    table["I2M_HO"][CENTRE, CENTRE] = 0.0
    report = report_of(table)
    assert getattr(report.actuators, word) == (CENTRE,)
    assert any(f"{word} actuators in the pupil: {CENTRE} (" in note for note in report.warnings)


def test_a_dead_actuator_outside_the_pupil_is_no_news():
    table = calibration_table()
    table["pupil"] = table["pupil"].copy()
    seen = np.flatnonzero(table["I2A"][0])
    table["pupil"][seen] = 0
    table["IM"][2] *= 0.01
    assert report_of(table).actuators.dead == ()


def test_bad_pixels_of_the_pupil_are_counted():
    table = calibration_table()
    pupil = table["pupil_pixels"]
    table["bad_pixels"] = [int(pupil[0]), int(pupil[5]), int(pupil[9]), 0]
    report = report_of(table)
    assert report.bad_pixels.count == 4
    assert report.bad_pixels.share == pytest.approx(4 / 64)
    assert report.bad_pixels.share_in_pupil == pytest.approx(3 / len(pupil))
    only_warning(report, "of the pixels in the pupil are bad")


def test_references_that_are_the_same_picture_are_found():
    table = calibration_table()
    table["I0"] = table["N0"] / table["N0"].sum()
    only_warning(report_of(table), "same picture", "phase mask")


def test_references_of_different_pupils_are_found():
    table = calibration_table()
    rng = np.random.default_rng(1)
    table["I0"] = rng.permutation(table["I0"])
    only_warning(report_of(table), "do not show the same pupil")


def test_fluxes_that_do_not_fit_are_found():
    table = calibration_table()
    table["intrn_flx_I0"] = 10 * table["N0"].sum()
    only_warning(report_of(table), "flux of I0 is 10 x that of N0")
    table["intrn_flx_I0"] = 1.0
    assert report_of(table).references.flux_ratio is None, "1 means that nobody measured it"


def test_negative_pixels_count_in_the_pupil_only():
    table = calibration_table()
    table["N0"] = table["N0"].copy()
    table["N0"][0] = -5.0
    assert report_of(table).warnings == ()
    table["N0"][table["pupil_pixels"][3]] = -5.0
    report = report_of(table)
    assert (report.references.negative_I0, report.references.negative_N0) == (0, 1)
    only_warning(report, "N0: 1 pixels in the pupil are negative")


def test_a_low_order_response_of_the_wrong_sign_is_told():
    table = calibration_table()
    table["IM"][1] *= -1
    report = report_of(table)
    assert report.low_order[1].correlation == pytest.approx(-1.0)
    only_warning(report, "low-order mode 1", "opposite sign")


def test_a_low_order_response_of_another_shape_is_told():
    table = calibration_table()
    table["IM"][[0, 1]] = table["IM"][[1, 0]]
    report = report_of(table)
    assert sum("does not fit" in note for note in report.warnings) == 2


def test_a_low_order_response_of_another_size_is_told():
    table = calibration_table()
    table["IM"][0] *= 3
    only_warning(report_of(table), "low-order mode 0", "ratio 3.00")


def test_a_reconstructor_of_the_wrong_sign_is_predicted_unstable():
    table = calibration_table()
    table["I2M_LO"] = -table["I2M_LO"]
    report = report_of(table)
    assert not report.predicted_stable
    low = report.weakest("LO")
    assert (low.is_stable, low.gain_margin, low.weakest_hz) == (False, 0.0, 0.0)
    assert low.weakest_mode in ("LO 0", "LO 1")
    assert report.weakest("HO").is_stable
    assert any("closed LO predicted unstable, gain margin 0" in note for note in report.warnings)


def test_without_an_interaction_matrix_nothing_is_predicted():
    table = calibration_table()
    del table["IM"]
    report = report_of(table)
    assert (report.predicted_stable, report.gain_margin, report.worst_mode) == (None, None, "")
    only_warning(report, "stability cannot be predicted")
    json.dumps(report.as_dict(), allow_nan=False)


def test_the_margin_is_the_factor_on_the_gains():
    table = calibration_table()
    control = ControlSettings(type="PID", ki=0.25)
    before = report_of(table, control_lo=control, control_ho=control)
    halved = replace(control, ki=0.125)
    after = report_of(table, control_lo=halved, control_ho=halved)
    assert after.gain_margin == pytest.approx(2 * before.gain_margin, rel=0.005)
    beyond = replace(control, ki=0.25 * 1.02 * before.gain_margin)
    report = report_of(table, control_lo=beyond, control_ho=beyond)
    assert report.predicted_stable is False
    assert 0.9 < report.gain_margin < 1
    assert any("closed LO+HO predicted unstable" in note for note in report.warnings)


def test_a_running_mean_costs_margin():
    assert report_of(loop=LoopSettings(boxcar=20)).gain_margin < 0.8 * report_of().gain_margin


@pytest.mark.parametrize(
    "kinds", [("PID", "LEAKY"), ("LEAKY", "LEAKY"), ("KALMAN", "PID"), ("LEAKY", "KALMAN")]
)
@pytest.mark.parametrize("delay", [1, 2])
def test_signals_of_the_whole_loop_grow_and_decay_as_predicted(kinds, delay):
    """Command, signal and errors one after the other, with the matrices of the file."""
    table = calibration_table()
    changes = {
        "control_lo": ControlSettings(type=kinds[0], ki=0.3),
        "control_ho": ControlSettings(type=kinds[1], ki=0.2, leak=0.95),
    }
    p = parameters_of(table, **changes)
    model = loop_model(p)
    prediction = model.predict("LO+HO", delay)
    assert prediction.is_stable
    reconstructor = np.vstack([p.reconstructor_lo, p.reconstructor_ho])
    shapes = np.hstack([p.mode_shapes_lo, p.mode_shapes_ho])[ACTUATORS]
    matrix = np.zeros((14, 14))
    for mode in range(14):
        signal = shapes[:, mode] @ table["IM"][2:]
        matrix[:, mode] = reconstructor @ signal
    for factor, expected in ((0.9, False), (1.1, True)):
        gain = factor * prediction.gain_margin
        outputs = response(matrix, (model.low, model.high), delay, np.ones(1), gain, 900)
        assert grows(outputs) == expected, factor


def test_signals_that_the_loop_ignores_are_ignored():
    table = calibration_table()
    p = parameters_of(table)
    blind = replace(p, signal_mask=np.arange(SIGNALS) != CENTRE)
    reconstructor = p.reconstructor_ho.copy()
    reconstructor[:, CENTRE] = 0.0
    low = p.reconstructor_lo.copy()
    low[:, CENTRE] = 0.0
    same = replace(p, reconstructor_lo=low, reconstructor_ho=reconstructor)
    np.testing.assert_array_equal(loop_model(blind).matrix, loop_model(same).matrix)
    assert len(loop_model(blind).names) == 2 + SIGNALS - 1, "its zonal mode sees nothing"


def test_the_report_is_json_and_text():
    table = calibration_table()
    table["IM"][2 + CENTRE] *= 0.01
    report = report_of(table)
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["predicted_stable"] is report.predicted_stable
    assert content["gain_margin"] == report.gain_margin
    assert content["actuators"]["dead"] == [CENTRE]
    assert content["warnings"] == list(report.warnings)
    assert [p["loops"] for p in content["stability"]] == ["LO", "LO", "HO", "HO", "LO+HO", "LO+HO"]
    assert [p["delay_frames"] for p in content["stability"]] == [1, 2] * 3
    text = render(report)
    assert "beam 1, mask H3" in text
    for note in report.warnings:
        assert note in text
    assert render(report_of()).splitlines()[-1].split() == ["warnings", "none"]
