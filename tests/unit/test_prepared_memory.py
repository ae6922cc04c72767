"""Memory of the loop: its pages are there before the loop needs them, also after a ring was resized."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.linear import Matrix
from baldr_tango.rtc.arrays import build_arrays, build_state
from baldr_tango.rtc.loop import buffers
from tests.harness import LoopBench
from tests.problem import random_frame, random_problem

PAGE = resource.getpagesize()
LARGE = 1 << 20


def arrays_of(group):
    """All arrays of a group and of the groups in it."""
    for member in group:
        if isinstance(member, np.ndarray):
            yield member
        elif isinstance(member, tuple) and not isinstance(member, str):
            yield from arrays_of(member)


def faults_of_writing(group):
    """Page faults of this thread while it writes one byte of each page."""
    views = [array.reshape(-1).view(np.uint8)[::PAGE] for array in arrays_of(group)]
    before = resource.getrusage(resource.RUSAGE_THREAD)
    for view in views:
        view |= 0
    after = resource.getrusage(resource.RUSAGE_THREAD)
    return after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt


def pages(group):
    """Pages that a group has at least."""
    return sum(array.nbytes // PAGE for array in arrays_of(group))


def test_pages_of_numpys_zeros_are_not_there():
    """What the other tests rely on."""
    group = (np.zeros(16 * LARGE),)
    assert faults_of_writing(group) > 10  # huge pages: one fault for 2 MB


def test_the_loops_own_memory_is_there():
    state = build_state(LARGE, LARGE, 2, LARGE, LARGE)
    assert pages(state) > 10_000
    assert faults_of_writing(state) < 10


@pytest.mark.parametrize("sparse", [True, False])
def test_everything_of_a_configuration_is_there(sparse):
    arrays = build_arrays(random_problem(side=48, grid=16, sparse=sparse), LoopSettings(ring_frames=500))
    io = buffers(arrays, np.zeros(d.N_HANDLES, dtype=np.int64), np.zeros(0, dtype=np.int64))
    for group in (arrays.parameters, arrays.state, arrays.ring_arrays, io):
        assert faults_of_writing(group) < 10
    assert pages(arrays.ring_arrays) > 1000
    assert isinstance(arrays.parameters.to_actuators, Matrix)


def test_a_ring_of_another_size_is_there_before_the_loop_gets_it():
    with LoopBench(random_problem(side=32, grid=12)) as bench:
        rng = np.random.default_rng(1)
        bench.step(random_frame(bench.parameters, rng))
        bench.loop.resize_ring(3000, timeout_s=60.0)
        assert pages(bench.loop.arrays.ring_arrays) > 1000
        assert faults_of_writing(bench.loop.arrays.ring_arrays) < 10
