"""Faults of camera, controllers and DM channel as an operator meets them, and what the mirror has then."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator

import numpy as np
import pytest
from tango import DeviceProxy, DevState

from baldr_tango import streams
from tests.system.device_bench import DeviceBench, wait_for

pytestmark = pytest.mark.system

LIMIT = 0.3
FLOAT32 = b"\x09"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    limits = {"command": LIMIT, "frozen_frames": 0, "runaway": 0}
    with DeviceBench(tmp_path_factory.mktemp("faults"), limits=limits) as started:
        yield started


@pytest.fixture
def device(bench: DeviceBench) -> Iterator[DeviceProxy]:
    """The beam with both loops closed; whatever a test does, the mirror's map is finite and inside."""
    device = bench.connect()
    bench.camera.frame = bench.quiet_frame()
    bench.wait_state(DevState.STANDBY)
    device.force_close_all()
    wait_for(lambda: np.any(bench.channel.read()[0]), "a command")
    yield device
    check_mirror(bench)
    device.open_all()
    bench.wait_state(DevState.STANDBY)


def check_mirror(bench: DeviceBench) -> None:
    command = bench.channel.read()[0]
    assert np.all(np.isfinite(command))
    assert np.abs(command).max() <= LIMIT


def put(device: DeviceProxy, field: str, value: float) -> None:
    device.set_rtc_field(json.dumps([field, value]))


def alarms(bench: DeviceBench, device: DeviceProxy, text: str, attribute: str) -> None:
    """An alarm of this text comes, the attribute counts, the loops stay closed."""
    bench.wait_state(DevState.ALARM)
    wait_for(lambda: text in device.status(), f"{text!r} in {device.status()!r}")
    assert device.read_attribute(attribute).value > 0
    assert device.TT_state == device.HO_state == 1
    check_mirror(bench)


@pytest.mark.parametrize(
    ("level", "text", "attribute"),
    [(65535, "saturated pixels", "saturated_frames"), (0, "below the dark", "negative_frames")],
)
def test_wrong_pixels_are_an_alarm_until_they_are_gone(
    bench: DeviceBench, device: DeviceProxy, level: int, text: str, attribute: str
) -> None:
    frame = bench.quiet_frame()
    frame.ravel()[:20] = level
    bench.camera.frame = frame
    alarms(bench, device, text, attribute)
    bench.camera.frame = bench.quiet_frame()
    bench.wait_state(DevState.RUNNING)
    assert text not in device.status()


def test_a_frozen_picture_is_an_alarm_while_the_rule_is_on(bench: DeviceBench, device: DeviceProxy) -> None:
    counted = device.frozen_frames
    assert counted > 0
    put(device, "limits.frozen_frames", 5)
    alarms(bench, device, "frozen picture", "frozen_frames")
    skipped = device.skipped_frames
    wait_for(lambda: device.skipped_frames > skipped, "frames that are not used")
    assert device.frozen_frames > counted
    put(device, "limits.frozen_frames", 0)
    bench.wait_state(DevState.RUNNING)


def test_a_stream_that_changes_its_type_is_an_alarm_that_says_so(
    bench: DeviceBench, device: DeviceProxy
) -> None:
    offset = streams.METADATA.fields["datatype"][1]
    code = os.pread(bench.camera.stream.fd, 1, offset)
    os.pwrite(bench.camera.stream.fd, FLOAT32, offset)
    try:
        alarms(bench, device, "found data type float32, expected int32", "wrong_format_frames")
    finally:
        os.pwrite(bench.camera.stream.fd, code, offset)
    bench.wait_state(DevState.RUNNING)
    assert device.stream_reopens > 0


def test_a_runaway_is_a_fault_that_says_so(bench: DeviceBench, device: DeviceProxy) -> None:
    put(device, "limits.ho_mode", 1e-9)
    put(device, "limits.runaway", 50)
    bench.camera.frame = bench.bumpy_frame()
    bench.wait_state(DevState.FAULT)
    assert "ran away" in device.fault_reason
    assert "mirror flat" in device.status()
    assert not bench.channel.read()[0].any()
    assert device.ho_resets >= 50
    bench.camera.frame = bench.quiet_frame()
    put(device, "limits.ho_mode", 0.1)
    put(device, "limits.runaway", 0)
    device.reset_fault()
    assert device.faults >= 1
    assert device.fault_reason == ""


def test_a_dm_channel_that_cannot_be_written_is_a_fault_and_the_flat_comes_later(
    bench: DeviceBench, device: DeviceProxy
) -> None:
    """The server process may write files up to the middle of the map only."""
    process = bench._process
    assert process is not None
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (streams.DATA + 8, hard))
    try:
        bench.wait_state(DevState.FAULT)
        assert "could not be written" in device.fault_reason
        assert "not be flattened yet" in device.fault_reason
        assert device.write_errors >= 10
        check_mirror(bench)
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    wait_for(lambda: "mirror flat" in device.fault_reason, "the flat command")
    assert not bench.channel.read()[0].any()
    device.reset_fault()
