"""The compiled loop of the virtual instrument means the same as its plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.kernels.simulation import WINDOW
from tests.harness import remove_streams, stream_directory
from tests.simulator_parity import KEPT, READS, SIDE, TICKS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    path = stream_directory("baldr_parity")
    yield path
    remove_streams(path)


def test_compiled_and_plain_loop_write_the_same(directory: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.simulator_parity", tmp_path / "plain.npz", directory],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    main(tmp_path / "compiled.npz", directory)
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "compiled.npz") as compiled:
        assert set(plain) == set(compiled)
        for plant in ("optical", "linear", "burst"):
            for found in (plain, compiled):
                assert found[f"{plant}_frame"].shape == (SIDE, SIDE)
                assert found[f"{plant}_count"].tolist() == [TICKS, TICKS]
                assert found[f"{plant}_posts"].tolist() == [TICKS] * 10
                assert found[f"{plant}_ticks"].tolist() == [TICKS, 0]
            # float32 sums in another order: the last digit of a rounded pixel may differ
            for name in ("window", "frame", "kept"):
                # a slope is the sum of 20 such pixels
                last_digit = 20 if plant == "burst" and name != "window" else 1
                assert np.abs(plain[f"{plant}_{name}"] - compiled[f"{plant}_{name}"]).max() <= last_digit
            assert np.ptp(compiled[f"{plant}_frame"]) > 200
            assert compiled[f"{plant}_truth"] == pytest.approx(plain[f"{plant}_truth"], rel=1e-4, abs=1e-4)
            assert compiled[f"{plant}_truth"][1] > 50
            assert np.array_equal(plain[f"{plant}_combined"], compiled[f"{plant}_combined"])
        assert compiled["optical_keeping"].tolist() == [0]
        assert compiled["burst_keeping"].tolist() == [TICKS]
        newest = compiled["burst_kept"][(TICKS - 1) % KEPT].reshape(SIDE, SIDE)
        assert np.array_equal(newest, compiled["burst_frame"])
        # Tick n of the loop reads frame n; the reset comes with every fourth one.
        reads = compiled["burst_window"][[n % WINDOW for n in range(TICKS - WINDOW, TICKS)]]
        light = reads.sum(axis=1) - 1000 * SIDE**2
        resets = np.flatnonzero(np.diff(light) < 0) + 1 + TICKS - WINDOW
        assert set(np.diff(resets)) == {READS}
        slopes = 1000 + sum(c * row for c, row in zip(range(-4, 5), reads, strict=True))
        assert np.array_equal(slopes.reshape(SIDE, SIDE), compiled["burst_frame"])
