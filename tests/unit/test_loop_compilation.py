"""The loop is compiled ahead for the types with which it runs later, not for others."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.jit import JIT_DISABLED
from baldr_tango.kernels.loop import run
from baldr_tango.rtc.arrays import LoopArrays, build_arrays
from baldr_tango.rtc.compilation import buffers, compile_ahead, compile_loop, smallest_parameters
from devices.cli.compile import is_compiled
from tests.problem import random_problem


def _arguments(arrays: LoopArrays) -> tuple[object, ...]:
    words = np.zeros(d.N_HANDLES, dtype=np.int64)
    return (
        arrays.control,
        arrays.parameters,
        arrays.state,
        buffers(arrays, words, words[:0]),
        arrays.ring_arrays,
    )


@pytest.mark.parametrize("sparse", [True, False])
def test_the_smallest_loop_has_the_types_of_any_other(sparse: bool) -> None:
    numba = pytest.importorskip("numba")
    smallest = build_arrays(smallest_parameters(), LoopSettings())
    usual = build_arrays(random_problem(sparse=sparse), LoopSettings())
    pairs = zip(_arguments(smallest), _arguments(usual), strict=True)
    assert [numba.typeof(one) == numba.typeof(other) for one, other in pairs] == [True] * 5


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_compiling_ahead_leaves_nothing_to_compile_and_serves_no_frame() -> None:
    compile_ahead()
    before = list(run.signatures)
    arrays = build_arrays(random_problem(), LoopSettings())
    compile_loop(arrays)
    assert run.signatures == before
    assert len(before) == 1
    assert arrays.state.counters[d.FRAMES] == 0
    assert is_compiled()


def test_asking_whether_the_loop_is_compiled_does_not_import_the_compiler() -> None:
    code = "import sys, devices.cli.compile as c; c.is_compiled(); print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
