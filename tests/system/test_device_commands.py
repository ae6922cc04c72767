"""Commands over Tango: each of them, their types, their errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tango
from tango import CmdArgType, DevFailed, DevState, DispLevel

from baldr_tango.commands import COMMANDS
from baldr_tango.interface import status_names
from tests.system.device_bench import DeviceBench, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    with DeviceBench(tmp_path_factory.mktemp("commands"), endpoints={"timeout_s": 0.3}) as started:
        yield started


@pytest.fixture
def device(bench: DeviceBench) -> tango.DeviceProxy:
    """A client of a beam that runs with open loops."""
    proxy = bench.connect()
    proxy.set_timeout_millis(20000)
    wait_for(lambda: proxy.state() != DevState.INIT, "a beam that has started")
    if proxy.state() == DevState.OFF:
        proxy.start_baldr()
    elif proxy.state() == DevState.FAULT:
        proxy.reset_fault()
    bench.wait_state(DevState.STANDBY, DevState.RUNNING, DevState.ON)
    proxy.resumeRTC()
    proxy.open_all()
    return proxy


def _holds(**expected: Any) -> Callable[[Any], bool]:
    """Return a check of a JSON reply: these keys have these values."""
    return lambda reply: {name: json.loads(reply)[name] for name in expected} == expected


def _cases(bench: DeviceBench) -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Argument and check of the reply of the commands that an operator needs most."""
    file = str(bench.calibration_file)
    return {
        "status": (None, lambda reply: set(status_names()) <= set(json.loads(reply))),
        "close_baldr_LO": (None, _holds(ok=True, TT_state=1)),
        "open_baldr_LO": (None, _holds(ok=True, TT_state=0)),
        "close_baldr_HO": (None, _holds(ok=True, HO_state=1)),
        "open_baldr_HO": (None, _holds(ok=True, HO_state=0)),
        "close_all": (None, _holds(ok=True, TT_state=1, HO_state=1)),
        "open_all": (None, _holds(ok=True, TT_state=0, HO_state=0)),
        "pauseRTC": (None, _holds(ok=True, paused=True)),
        "resumeRTC": (None, _holds(ok=True, paused=False)),
        "pause_baldr_rtc": (None, lambda reply: reply == "RTC paused."),
        "resume_baldr_rtc": (None, lambda reply: reply == "RTC resumed."),
        "stop_baldr": (None, _holds(ok=True, servo_mode=-1)),
        "start_baldr": (None, _holds(ok=True, servo_mode=0)),
        "reset_fault": (None, _holds(ok=True)),
        "readBDRConfig": (file, _holds(ok=True, config_file=file)),
        "reload_config": (json.dumps([file, "H3"]), _holds(ok=True, phasemask="H3")),
        "telem_on": (None, _holds(ok=True, telemetry=True)),
        "telem_off": (None, _holds(ok=True, telemetry=False)),
        "send_cam_command": ("gain raw", _holds(ok=True, command_sent="gain raw")),
        "send_mds_command": ("is_on SBB", _holds(ok=True, mds_response="True\n")),
        "peer_health": (None, lambda reply: "up" in {peer["state"] for peer in json.loads(reply)["peers"]}),
        "help": (None, lambda reply: "close_all: " in reply),
        "command_names": (None, lambda reply: json.loads(reply) == COMMANDS.names()),
        "description": ("close_all", lambda reply: "Close both loops" in reply),
        "signature": ("close_all", lambda reply: json.loads(reply)["arguments"] is None),
        "arguments": ("readBDRConfig", lambda reply: json.loads(reply)[0]["name"] == "config_file_path"),
        "return_type": ("close_all", lambda reply: "json" in reply),
    }


@pytest.mark.parametrize("name", [entry.name for entry in COMMANDS if entry.name != "exit"])
def test_a_command_answers(bench: DeviceBench, device: tango.DeviceProxy, name: str) -> None:
    entry = COMMANDS.find(name)
    if name in _cases(bench):
        argument, is_right = _cases(bench)[name]
        reply = device.command_inout(entry.tango_name, argument)
        assert is_right(reply), reply
    else:
        argument = (
            None if not entry.arguments else NEUTRAL[device.get_command_config(entry.tango_name).in_type]
        )
        try:
            device.command_inout(entry.tango_name, argument)
        except DevFailed as failure:
            assert failure.args[0].reason in REFUSALS, failure.args[0].desc  # noqa: PT017 - may also succeed
    assert device.ping() > 0


NEUTRAL = {
    CmdArgType.DevString: "",
    CmdArgType.DevBoolean: False,
    CmdArgType.DevLong64: 1,
    CmdArgType.DevDouble: 0.0,
}
REFUSALS = ("BAD_REQUEST", "OPERATION_NOT_ALLOWED", "CONFIGURATION_WRONG", "COMMUNICATION_BROKEN")


def test_the_cases_are_commands_that_exist(bench: DeviceBench) -> None:
    assert set(_cases(bench)) <= set(COMMANDS.names())


def test_the_device_has_the_commands_of_the_table_and_tangos_own_three(device: tango.DeviceProxy) -> None:
    names = {entry.tango_name for entry in COMMANDS} | {"Init", "State", "Status"}
    assert set(device.get_command_list()) == names


def test_types_descriptions_and_levels_come_from_the_table(device: tango.DeviceProxy) -> None:
    own_type = {
        str: CmdArgType.DevString,
        bool: CmdArgType.DevBoolean,
        int: CmdArgType.DevLong64,
        float: CmdArgType.DevDouble,
    }
    for entry in COMMANDS:
        config = device.get_command_config(entry.tango_name)
        kinds = [argument.kind for argument in entry.arguments]
        if not kinds:
            assert config.in_type == CmdArgType.DevVoid
        elif len(kinds) == 1:
            assert config.in_type == own_type.get(kinds[0], CmdArgType.DevString)
        else:
            assert config.in_type == CmdArgType.DevString
        for argument in entry.arguments:
            assert argument.name in config.in_type_desc
            assert argument.doc.encode("latin-1", "replace").decode("latin-1") in config.in_type_desc
        nothing = entry.returns is type(None)
        expected = CmdArgType.DevVoid if nothing else own_type.get(entry.returns, CmdArgType.DevString)
        assert config.out_type == expected
        assert entry.summary.encode("latin-1", "replace").decode("latin-1") in config.out_type_desc
        assert config.disp_level == (DispLevel.EXPERT if entry.expert else DispLevel.OPERATOR)


def test_several_arguments_are_a_json_array_or_its_content(
    bench: DeviceBench, device: tango.DeviceProxy
) -> None:
    for text in (f'["{bench.calibration_file}", "H3"]', f'"{bench.calibration_file}", "H3"'):
        assert json.loads(device.reload_config(text))["ok"] is True


def _failure(device: tango.DeviceProxy, command: str, argument: Any = None) -> tango.DevError:
    with pytest.raises(DevFailed) as failure:
        device.command_inout(command, argument)
    return failure.value.args[0]


def test_an_error_says_whose_fault_it_is(bench: DeviceBench, device: tango.DeviceProxy) -> None:
    missing = str(bench.directory / "nothing.toml")
    error = _failure(device, "readBDRConfig", missing)
    assert error.reason == "CONFIGURATION_WRONG"
    assert missing in error.desc
    assert error.origin == f"readBDRConfig of {bench.device_name}"
    for argument, word in (("[1]", "file"), ("{", "JSON"), ('["x"]', "mask")):
        error = _failure(device, "reload_config", argument)
        assert error.reason == "BAD_REQUEST"
        assert word in error.desc
    assert _failure(device, "description", "no_such_command").reason == "BAD_REQUEST"
    device.stop_baldr()
    error = _failure(device, "close_all")
    assert error.reason == "OPERATION_NOT_ALLOWED"
    assert "start_baldr" in error.desc


def test_a_peer_that_does_not_answer_is_an_error_within_its_time_out(
    bench: DeviceBench, device: tango.DeviceProxy
) -> None:
    bench.camera_peer.hold()
    try:
        error = _failure(device, "send_cam_command", "gain raw")
        assert error.reason == "COMMUNICATION_BROKEN"
        assert "camera server" in error.desc
    finally:
        bench.camera_peer.release()
    assert wait_for(lambda: _answers(device), "an answer of the camera server")


def _answers(device: tango.DeviceProxy) -> bool:
    try:
        return bool(json.loads(device.send_cam_command("gain raw"))["ok"])
    except DevFailed:
        return False


def test_exit_ends_the_last_beam_and_with_it_the_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    with DeviceBench(tmp_path_factory.mktemp("exit")) as bench:
        bench.wait_state(DevState.STANDBY)
        assert bench.connect().command_inout("exit") == "Exiting!"
        assert bench.wait_for_end() == 0
        assert "server ended" in bench.log()
