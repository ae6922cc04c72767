"""State and Status tell the truth, in every row of the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tango import DevFailed, DevState, EventType

from tests.system.device_bench import DeviceBench, Events, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    limits = {"command": 0.02, "ho_mode": 1.0, "lo_command": 1.0}
    with DeviceBench(tmp_path_factory.mktemp("states"), limits=limits) as started:
        yield started


@pytest.fixture(autouse=True)
def standby(bench: DeviceBench) -> None:
    """Bring the beam back to open loops and a flat wavefront before each test."""
    device = bench.connect()
    bench.camera.frame = bench.quiet_frame()
    bench.camera.resume()
    bench.wait_state(DevState.STANDBY, DevState.RUNNING, DevState.ON, DevState.OFF, DevState.FAULT)
    if device.state() == DevState.OFF:
        device.start_baldr()
    elif device.state() == DevState.FAULT:
        device.reset_fault()
    elif device.state() == DevState.ON:
        device.resumeRTC()
    device.open_all()
    bench.wait_state(DevState.STANDBY)


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("close_all", DevState.RUNNING),
        ("close_baldr_LO", DevState.RUNNING),
        ("close_baldr_HO", DevState.RUNNING),
        ("open_all", DevState.STANDBY),
        ("pauseRTC", DevState.ON),
        ("stop_baldr", DevState.OFF),
    ],
)
def test_the_state_has_changed_when_a_command_returns(
    bench: DeviceBench, command: str, state: DevState
) -> None:
    device = bench.connect()
    device.command_inout(command)
    assert device.state() == state
    assert device.read_attribute("State").value == state
    assert device.status().startswith(f"{state}: ")


def test_transitions_are_pushed_in_order_to_every_kind_of_subscriber(bench: DeviceBench) -> None:
    device = bench.connect()
    kinds = (EventType.CHANGE_EVENT, EventType.ARCHIVE_EVENT, EventType.ALARM_EVENT)
    expected = [DevState.STANDBY, DevState.RUNNING, DevState.ON, DevState.RUNNING, DevState.STANDBY]
    with Events(device, "State", "Status") as events:
        for command, state in zip(
            ("close_all", "pauseRTC", "resumeRTC", "open_all"), expected[1:], strict=True
        ):
            seen = len(events.of("State"))
            device.command_inout(command)
            wait_for(lambda seen=seen: len(events.of("State")) > seen, f"an event of {state}")
        for kind in kinds:
            wait_for(lambda kind=kind: len(events.of("State", kind)) >= len(expected), f"{kind} of State")
            assert [entry.value for entry in events.of("State", kind)] == expected
            wait_for(
                lambda kind=kind: events.of("Status", kind)[-1].value.startswith("STANDBY: "),
                f"{kind} of Status",
            )
        assert not events.errors()


def test_a_silent_camera_is_an_alarm_and_passes_when_frames_come_back(bench: DeviceBench) -> None:
    device = bench.connect()
    bench.camera.silence()
    bench.wait_state(DevState.ALARM)
    assert "no camera frame" in device.status()
    assert device.close_all() is not None, "commands still answer"
    device.open_all()
    bench.camera.resume()
    bench.wait_state(DevState.STANDBY)


def test_a_tripped_limit_is_a_fault_until_it_is_acknowledged(bench: DeviceBench) -> None:
    device = bench.connect()
    bench.camera.frame = bench.bumpy_frame()
    with Events(device, "fault_reason", "State") as events:
        device.close_baldr_HO()
        bench.wait_state(DevState.FAULT)
        assert "limit" in device.fault_reason
        assert "limit" in device.status()
        assert "limit" in events.wait("fault_reason", bool)
        events.wait("State", lambda state: state == DevState.FAULT)
    with pytest.raises(DevFailed) as failure:
        device.close_all()
    assert failure.value.args[0].reason == "OPERATION_NOT_ALLOWED"
    bench.camera.frame = bench.quiet_frame()
    device.reset_fault()
    assert device.state() == DevState.STANDBY
    assert device.fault_reason == ""


def test_init_while_running_builds_everything_anew(bench: DeviceBench) -> None:
    device = bench.connect()
    device.close_all()
    wait_for(lambda: device.frames > 50, "some frames")
    before = device.frames
    with Events(device, "State", "frames") as events:
        bench.camera_peer.hold()
        device.Init()
        # The beam asks the camera server for its frame rate, which takes its time here.
        assert device.state() == DevState.INIT
        assert device.status().startswith("INIT: ")
        bench.camera_peer.release()
        bench.wait_state(DevState.STANDBY)
        events.wait("State", lambda state: state == DevState.INIT)
        assert device.frames < before
        device.close_all()
        assert device.state() == DevState.RUNNING
        # The subscription of before still delivers, from the new beam.
        seen = len(events.of("frames"))
        newer = wait_for(lambda: events.of("frames")[seen:], "frames of the new beam")
        assert newer[-1].value <= device.frames


def test_a_wrong_configuration_is_a_fault_with_everything_readable_and_init_retries(
    bench: DeviceBench, tmp_path: Path
) -> None:
    device = bench.connect()
    good = bench.runtime_file.read_text()
    try:
        bench.runtime_file.write_text(good + "\n[surprise]\n")
        device.Init()
        assert device.state() == DevState.FAULT
        assert "surprise" in device.status()
        assert str(bench.runtime_file) in device.fault_reason
        read = device.read_attributes(list(device.get_attribute_list()))
        assert [entry.name for entry in read if entry.has_failed] == []
        with pytest.raises(DevFailed) as failure:
            device.status_json()
        assert failure.value.args[0].reason == "OPERATION_NOT_ALLOWED"
        assert "surprise" in failure.value.args[0].desc
    finally:
        bench.runtime_file.write_text(good)
    device.Init()
    bench.wait_state(DevState.STANDBY)


def test_a_wrong_calibration_is_a_fault_and_init_retries(bench: DeviceBench) -> None:
    device = bench.connect()
    good = bench.calibration_file.read_text()
    try:
        bench.calibration_file.write_text(good.replace("I2M_LO", "I2M_NO"))
        device.Init()
        bench.wait_state(DevState.FAULT)
        assert "I2M_LO" in device.status()
        assert device.configured == 0
    finally:
        bench.calibration_file.write_text(good)
    device.Init()
    bench.wait_state(DevState.STANDBY)
    assert device.configured == 1
