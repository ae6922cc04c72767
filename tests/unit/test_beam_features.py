"""Offsets, injection and processing of a whole beam on the virtual instrument."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.bases import basis
from baldr_tango.beam.injection import project
from baldr_tango.errors import BackendError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import RtcState
from tests.harness import LONG_S, wait_for
from tests.virtual_beam import VirtualBeam


@pytest.fixture(scope="module")
def virtual(tmp_path_factory):
    with VirtualBeam(tmp_path_factory.mktemp("features")) as running:
        yield running


@pytest.fixture(autouse=True)
def clean(virtual):
    """Leave nothing behind."""
    yield
    for name in ("open_all", "inject_off", "clear_openloop_offsets"):
        virtual.ask(name)
    virtual.ask("change_boxcar", 1)


def measured(virtual, field, frames=40, settle=20):
    """Mean of a telemetry field over frames to come."""
    virtual.wait_frames(settle + frames)
    ring = virtual.loop.arrays.ring
    stop = ring.write_index
    return ring.read(stop - frames, stop)[1][field].astype(float).mean(axis=0)


def tip(virtual):
    """Tip on the mirror, and in the low-order modes."""
    p = virtual.loop.parameters
    shape = basis("zernike").mode(0)
    return shape, project(shape, p.mode_shapes_lo, p.mode_shapes_ho, "LO").modes_lo


def test_the_sensor_sees_a_tip_tilt_offset_of_the_size_that_was_asked_for(virtual):
    before = measured(virtual, "e_LO")
    for mode in (0, 1):
        virtual.ask("ol_set_mode", "LO", "m2c_lo", mode, 0.003)
        moved = measured(virtual, "e_LO") - before
        np.testing.assert_allclose(moved, 0.003 * np.eye(2)[mode], atol=3e-4)
    virtual.ask("clear_openloop_offsets")
    back = measured(virtual, "e_LO") - before
    assert np.abs(back).max() < 1e-4


def test_the_closed_loop_follows_an_injected_set_point_and_comes_back(virtual):
    _, modes = tip(virtual)
    virtual.ask("close_baldr_LO")
    before = measured(virtual, "e_LO", settle=100)
    amplitude = 0.02
    wanted = {"basis": "zernike", "branch": "LO", "amplitude": amplitude, "apply_to": "setpoint"}
    virtual.ask("inject", {"waveform": "step", **wanted})
    moved = measured(virtual, "e_LO", settle=100) - before
    main = np.argmax(np.abs(modes))
    assert moved[main] == pytest.approx(amplitude * modes[main], rel=0.1)
    virtual.ask("inject_off")
    back = measured(virtual, "e_LO", settle=100) - before
    assert np.abs(back).max() < 0.05 * abs(amplitude * modes[main])


def test_a_new_configuration_starts_with_everything_that_was_set(virtual):
    shape, _ = tip(virtual)
    virtual.ask("ol_set_mode", "HO", "hadamard", 3, 0.01)
    virtual.ask("change_boxcar", 5)
    step = {"waveform": "step", "basis": "zernike", "branch": "ALL", "amplitude": 0.02}
    virtual.ask("inject", step)
    old = virtual.loop
    virtual.ask("readBDRConfig", old.parameters.config_file)
    assert virtual.loop is not old
    assert virtual.beam.wait_until(lambda state: state.rtc == RtcState.RUNNING, LONG_S)
    expected = 0.01 * basis("hadamard").mode(3) + 0.02 * shape
    wait_for(lambda: np.allclose(virtual.command(), expected, atol=1e-6), what="offset and signal")
    assert virtual.loop.slots.switch(d.BOXCAR) == 5
    status = virtual.beam.status()
    assert (status["inj_enabled"], status["TT_offsets"]) == (1, 0)


def test_a_trip_leaves_the_offsets_and_ends_the_injection(virtual):
    virtual.ask("ol_set_mode", "HO", "hadamard", 3, 0.01)
    virtual.ask(
        "inject", {"waveform": "step", "basis": "zonal", "index": 70, "branch": "ALL", "amplitude": 0.2}
    )
    wait_for(lambda: abs(virtual.command()).max() > 0.15, what="the signal")
    limit = virtual.loop.parameters.limits.command
    virtual.loop.slots.change(limits={d.COMMAND_LIMIT: 0.1})
    assert virtual.beam.wait_until(lambda state: state.rtc == RtcState.FAULT, 10.0)
    wait_for(lambda: not virtual.beam.injection.is_on, 10.0, "housekeeping")
    assert not virtual.command().any()
    virtual.loop.slots.change(limits={d.COMMAND_LIMIT: limit})
    virtual.ask("reset_fault")
    virtual.wait_frames(5)
    np.testing.assert_allclose(virtual.command(), 0.01 * basis("hadamard").mode(3), atol=1e-6)


def test_a_camera_that_is_not_there_is_said_within_its_time_out(virtual):
    with pytest.raises(BackendError):
        virtual.ask("configure_burst")
    assert virtual.beam.read(["burst_reads"]) == {"burst_reads": 1}
