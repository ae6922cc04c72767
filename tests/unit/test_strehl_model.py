"""Strehl estimates: from the high-order residual, and from the light behind the secondary obstruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.configuration.calibration import load_calibration, write_calibration
from baldr_tango.configuration.derived import derive
from baldr_tango.configuration.settings import LoopSettings
from tests.harness import LoopBench, beam_settings
from tests.problem import random_frame, random_problem
from tests.unit.configuration_problem import calibration_table


def marechal(rms_units: float) -> float:
    """Extended Marechal approximation for a residual in DM units of 7000 nm at 1650 nm."""
    return float(np.exp(-((2 * np.pi * 7000.0 * rms_units / 1650.0) ** 2)))


def test_residual_model_is_the_rms_over_controlled_actuators() -> None:
    p = random_problem()
    with LoopBench(p) as bench:
        bench.step(random_frame(p, np.random.default_rng(1), 1e6))
        error = bench.newest("e_HO").astype(float)
        used = np.any(p.reconstructor_ho != 0, axis=1)
        assert float(bench.newest("strehl")) == pytest.approx(
            marechal(float(np.sqrt(np.mean(error[used] ** 2)))), rel=1e-3
        )


def test_secondary_model_is_the_measured_line() -> None:
    line = (-2e-7, 0.03)
    p = replace(random_problem(), strehl_model="secondary", strehl_line=line, secondary_pixel=27, gain=5.0)
    with LoopBench(p) as bench:
        frame = random_frame(p, np.random.default_rng(1))
        for brightness in (0, 300):
            frame.flat[27] = round(p.dark[27]) + brightness
            bench.step(frame)
            light = frame.flat[27] - p.dark[27]
            # The line is for ADU/s/gain.
            rms = line[0] * light * p.frame_rate_hz / p.gain + line[1]
            assert float(bench.newest("strehl")) == pytest.approx(marechal(rms), rel=1e-3)
        frame.flat[27] = round(p.dark[27]) + 5000
        bench.step(frame)
        assert float(bench.newest("strehl")) == 1.0


def test_a_line_that_was_never_measured_is_not_used(tmp_path: Path) -> None:
    settings = beam_settings(tmp_path, loop=LoopSettings(strehl_model="secondary"))
    for matrix, model in ((np.eye(2), "residual"), (np.diag([2.5e-6, -0.05]), "secondary")):
        file = write_calibration(
            tmp_path / f"{model}.toml", {**calibration_table(), "I2rms_sec": matrix}, 1, "H3"
        )
        p = derive(load_calibration(file, 1, "H3"), settings)
        assert p.strehl_model == model
        assert any("I2rms_sec" in note for note in p.warnings) == (model == "residual")
