"""Calibration files of the instrument, judged with the gains they are used with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from baldr_tango.calibration.report import CalibrationReport, judge
from baldr_tango.configuration.calibration import Calibration, load_calibration
from baldr_tango.configuration.derived import derive
from baldr_tango.configuration.runtime import BeamSettings, load_runtime
from baldr_tango.configuration.settings import ControlSettings
from tests.real_data import FILES, needs_real_data
from tests.unit.test_configuration_real_data import BEAMS

pytestmark = needs_real_data

RUNTIME = Path(__file__).parents[2] / "config" / "real_calibration.toml"
INTEGRATOR = ControlSettings(type="PID", ki=0.3)


@cache
def calibration_of(beam: int) -> Calibration:
    return load_calibration(FILES[beam], beam, "H3")


def settings_of(beam: int) -> BeamSettings:
    return load_runtime(RUNTIME).for_beam(beam)


def report_of(beam: int, settings: BeamSettings) -> CalibrationReport:
    return judge(calibration_of(beam), derive(calibration_of(beam), settings))


@BEAMS
def test_the_configured_gains_are_predicted_stable(beam):
    report = report_of(beam, settings_of(beam))
    assert report.predicted_stable
    for prediction in report.stability:
        assert prediction.gain_margin > 1, prediction
    assert report.warnings == ()


@BEAMS
def test_what_is_known_of_the_files_is_found(beam):
    report = report_of(beam, settings_of(beam))
    assert report.actuators.controlled == {1: 57, 2: 56}[beam]
    assert report.conditions.low_order < 1.1
    for match in report.low_order:
        assert match.correlation > 0.95
        assert 0.75 < match.ratio < 0.85


def test_an_integrator_on_both_loops_of_beam_2_is_too_much_with_two_frames():
    """The largest eigenvalue of the loop matrix is 3.48: 0.3 x 3.48 > 1, the limit with two frames."""
    settings = replace(settings_of(2), control_lo=INTEGRATOR, control_ho=INTEGRATOR)
    report = report_of(2, settings)
    both = {p.delay_frames: p for p in report.stability if p.loops == "LO+HO"}
    assert both[1].is_stable
    assert not both[2].is_stable
    assert both[2].gain_margin == pytest.approx(1 / (0.3 * 3.48), rel=0.06)
    assert report.weakest("LO").is_stable
    assert report.weakest("HO").is_stable
    assert not report.predicted_stable
    assert any("closed LO+HO predicted unstable" in note for note in report.warnings)


def test_an_integrator_on_the_high_orders_of_beam_1_drifts_away_without_tip_tilt():
    """One eigenvalue of its high-order block is negative; only together with tip/tilt all are positive."""
    settings = replace(settings_of(1), control_lo=INTEGRATOR, control_ho=INTEGRATOR)
    report = report_of(1, settings)
    alone = report.weakest("HO")
    assert (alone.is_stable, alone.gain_margin, alone.weakest_hz) == (False, 0.0, 0.0)
    assert report.weakest("LO+HO").is_stable
