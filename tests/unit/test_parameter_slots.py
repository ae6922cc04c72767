"""Changes of the loop's parameters while it runs: whole, at a frame boundary, in the layout they need."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from baldr_tango.configuration.settings import LimitSettings, LoopSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.linear import TAPS
from baldr_tango.kernels.structure import unpack
from baldr_tango.rtc.arrays import build_arrays, compare
from baldr_tango.rtc.slots import ParameterSlots
from tests.harness import LoopBench
from tests.problem import NumpyLoop, gains, random_frame, random_problem

WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0)
SETTINGS = LoopSettings(ring_frames=64)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def slots_of(parameters):
    arrays = build_arrays(parameters, SETTINGS)
    return ParameterSlots(arrays.parameters, arrays.control, lambda: False)


def dense(slots, name, columns):
    """A packed matrix in force, written out."""
    matrix = getattr(slots._parameters, name)
    return unpack(matrix, columns, slots.version & 1)


@pytest.mark.parametrize("taps", [1, 4, 8])
def test_a_sparse_matrix_is_changed_in_place_or_packed_anew(rng, taps):
    parameters = random_problem()
    slots = slots_of(parameters)
    before = slots._parameters
    assert before.to_actuators.layout == TAPS
    matrix = np.zeros_like(parameters.pixels_to_actuators)
    for row in matrix:
        row[rng.choice(row.size, taps, replace=False)] = rng.uniform(0.1, 1.0, taps)
    slots.change(to_actuators=matrix)
    np.testing.assert_allclose(dense(slots, "to_actuators", matrix.shape[1]), matrix, rtol=1e-6)
    assert (slots._parameters is before) == (taps <= 4)


def test_a_dense_matrix_in_the_place_of_a_sparse_one_keeps_everything_else(rng):
    parameters = random_problem()
    slots = slots_of(parameters)
    slots.change(set_point_lo=[0.1, 0.2], switches={d.BOXCAR: 3})
    matrix = rng.normal(size=parameters.reconstructor_ho.shape)
    slots.change(reconstructor_ho=matrix, kp_lo=[0.3, 0.4], limits={d.LO_LIMIT: 0.2})
    np.testing.assert_allclose(dense(slots, "reconstructor_ho", matrix.shape[1]), matrix, rtol=1e-6)
    assert slots.current("set_point_lo").tolist() == [0.1, 0.2]
    assert slots.current("kp_lo").tolist() == [0.3, 0.4]
    assert slots.switch(d.BOXCAR) == 3
    assert slots.current("limits")[d.LO_LIMIT] == 0.2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"to_actuators": np.zeros((2, 2))}, r"to_actuators: expected shape \(16, 64\), found \(2, 2\)"),
        ({"reconstructor_ho": np.full((16, 16), np.nan)}, "reconstructor_ho: every value must be finite"),
        ({"dark": np.full(64, 1e300)}, "dark: every value must be finite"),
        ({"bad_pixels": [64]}, "bad_pixels: expected flat indices of pixels, below 64"),
        ({"kp_lo": ["a", "b"]}, "kp_lo: expected numbers"),
        ({"switches_": 1}, "'switches_' is not a parameter"),
    ],
)
def test_a_refused_value_changes_nothing(change, text):
    slots = slots_of(random_problem())
    version, before = slots.version, slots.current("kp_lo")
    with pytest.raises(RequestError, match=text):
        slots.change(kd_lo=[1.0, 1.0], **change)
    assert slots.version == version
    np.testing.assert_array_equal(slots.current("kp_lo"), before)
    assert not slots.current("kd_lo").any()


def test_equal_parameters_differ_in_nothing():
    one, other = random_problem(4), random_problem(4)
    assert compare(one, other, SETTINGS) == {"switches": {}, "limits": {}}


def test_only_what_differs_is_written():
    one = random_problem(4)
    other = replace(
        one,
        reference=one.reference * 2,
        control_lo=gains(2, kp=0.5),
        limits=replace(one.limits, command=0.25),
        frame_rate_hz=500.0,
    )
    found = compare(one, other, SETTINGS)
    assert sorted(found) == ["kp_lo", "limits", "reference", "switches"]
    assert found["switches"][d.PERIOD_NS] == 2_000_000
    assert found["limits"][d.COMMAND_LIMIT] == 0.25


@pytest.mark.parametrize("sparse", [True, False])
def test_the_loop_goes_on_with_matrices_of_another_layout(rng, sparse):
    """Closed loops: integrals, frame numbers and the command carry on; the equations are the new ones."""
    old = random_problem(1, limits=WIDE, sparse=sparse)
    new = replace(random_problem(2, limits=WIDE, sparse=not sparse), dark=old.dark)
    reference = NumpyLoop(old)
    with LoopBench(old) as bench:
        bench.set_loops(True, True)
        reference.set_loops(True, True)
        for number in range(12):
            if number == 6:
                version = bench.loop.update(new, timeout_s=10.0)
                assert bench.loop.wait_adopted(version, 10.0)
                reference.p = new
            frame = random_frame(old, rng)
            bench.step(frame)
            expected = reference.step(frame)
            for name in ("signal", "e_HO", "u_LO", "u_HO", "command"):
                np.testing.assert_allclose(bench.newest(name), expected[name], atol=2e-5, err_msg=name)
        assert bench.counter(d.LOST) == 0
        assert bench.counter(d.FRAMES) == 12
        assert bench.newest("frame") == bench.camera.counter()
        assert bench.loop.reopens == 0


def test_bad_pixels_change_while_the_loop_runs(rng):
    old = random_problem(4, bad_pixels=np.array([3, 17, 40]), bad_pixel_rule="median", limits=WIDE)
    new = replace(old, bad_pixels=np.array([5]))
    reference = NumpyLoop(new)
    with LoopBench(old) as bench:
        bench.loop.update(new, timeout_s=10.0)
        frame = random_frame(old, rng)
        bench.step(frame)
        assert bench.newest("flux") == pytest.approx(reference.step(frame)["flux"], rel=1e-6)


def test_no_frame_sees_one_half_of_a_change(rng):
    """Two matrices are exchanged together for others of other layouts while frames keep coming."""
    one = random_problem(1, limits=WIDE)
    scale = 3.0
    sparse = one.reconstructor_ho
    full = sparse + 1e-4 * rng.normal(size=sparse.shape)
    frame = random_frame(one, rng)
    # A camera never sends the same frame twice; this difference is of a pixel that no actuator looks at.
    twin = frame.copy()
    twin.flat[np.flatnonzero(~one.pixels_to_actuators.any(axis=0))[0]] += 1
    with LoopBench(one) as bench:
        bench.step(frame)
        signal = bench.newest("signal").astype(float)
        low, high = one.reconstructor_lo @ signal, sparse @ signal
        full_high = full @ signal
        done = threading.Event()

        def camera():
            while not done.is_set():
                bench.post(twin)
                bench.post(frame)

        thread = threading.Thread(target=camera)
        thread.start()
        try:
            other = replace(one, reconstructor_lo=scale * one.reconstructor_lo, reconstructor_ho=full)
            for number in range(40):
                bench.loop.update(one if number % 2 else other, timeout_s=10.0)
        finally:
            done.set()
            thread.join()
        ring = bench.loop.arrays.ring
        _, records = ring.read(ring.oldest, ring.write_index)
    is_other = np.abs(records["e_LO"] - scale * low).max(axis=1) < 1e-5
    np.testing.assert_allclose(records["e_LO"][~is_other], np.tile(low, ((~is_other).sum(), 1)), atol=1e-5)
    np.testing.assert_allclose(
        records["e_HO"], np.where(is_other[:, None], full_high, high), atol=1e-6, err_msg="e_HO of e_LO's set"
    )
    assert is_other.any()
    assert not is_other.all()


def test_an_exchange_that_the_loop_does_not_take_changes_nothing():
    parameters = random_problem()
    arrays = build_arrays(parameters, SETTINGS)

    def never(_parameters, _on_exchange, timeout_s):
        raise StateError(f"not within {timeout_s} s")

    slots = ParameterSlots(arrays.parameters, arrays.control, lambda: False, never)
    with pytest.raises(StateError):
        slots.change(reconstructor_ho=np.ones_like(parameters.reconstructor_ho), kp_lo=[1.0, 1.0])
    assert slots.version == 0
    assert not slots.current("kp_lo").any()
    slots.change(kp_lo=[0.5, 0.5])
    assert slots.current("kp_lo").tolist() == [0.5, 0.5]
