"""The compiled loop of the virtual instrument means the same as its plain Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.harness import remove_streams, stream_directory
from tests.simulator_parity import SIDE, TICKS, main

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
        for plant in ("optical", "linear"):
            for found in (plain, compiled):
                assert found[f"{plant}_frame"].shape == (SIDE, SIDE)
                assert found[f"{plant}_count"].tolist() == [TICKS, TICKS]
                assert found[f"{plant}_posts"].tolist() == [TICKS] * 10
                assert found[f"{plant}_ticks"].tolist() == [TICKS, 0]
            # float32 sums in another order: the last digit of a rounded pixel may differ
            assert np.abs(plain[f"{plant}_frame"] - compiled[f"{plant}_frame"]).max() <= 1
            assert np.ptp(compiled[f"{plant}_frame"]) > 200
            assert compiled[f"{plant}_truth"] == pytest.approx(plain[f"{plant}_truth"], rel=1e-4, abs=1e-4)
            assert compiled[f"{plant}_truth"][1] > 50
            assert np.array_equal(plain[f"{plant}_combined"], compiled[f"{plant}_combined"])
