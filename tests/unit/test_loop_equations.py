"""The loop on real streams against the same equations in float64 numpy, compiled and interpreted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.loop_scenario import FIELDS, NAMES, problem, run_scenario
from tests.problem import NumpyLoop

ROOT = Path(__file__).parents[2]
FLOAT32 = 2e-5
"""Tolerance of the float32 path relative to the largest element."""


def scale(values):
    return max(float(np.abs(values).max()), 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_equals_the_numpy_formulation(name):
    trace = run_scenario(name, NumpyLoop(problem(name)))
    closed = 0
    for record in trace:
        expected = record["expected"]
        if expected["skipped"]:
            np.testing.assert_allclose(record["channel"], expected["command"], atol=1e-5)
            continue
        closed += bool(np.any(expected["u_LO"])) + bool(np.any(expected["u_HO"]))
        for field in FIELDS:
            error = np.abs(record[field] - expected[field]).max()
            assert error <= FLOAT32 * scale(expected[field]) + 1e-6, f"{field} differs by {error}"
        np.testing.assert_allclose(record["channel"], expected["command"], atol=1e-5)
    assert closed > 20, "the scenario must exercise closed loops"


@pytest.mark.parametrize("name", ["pid", "dense and boxcar"])
def test_interpreted_and_compiled_code_agree(name, tmp_path):
    target = tmp_path / "interpreted.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.loop_scenario", name, str(target)],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
        timeout=120,
    )
    interpreted = np.load(target)
    trace = run_scenario(name)
    for field in (*FIELDS, "channel"):
        compiled = np.array([record[field] for record in trace])
        np.testing.assert_allclose(compiled, interpreted[field], rtol=0, atol=FLOAT32 * scale(compiled))
