"""The device of all beams: its state table, its command arguments and replies, its lists."""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from tango import CmdArgType, DevFailed, DevState, Except

from baldr_tango.commands import COMMANDS
from baldr_tango.errors import BackendError, ConfigError, RequestError
from baldr_tango.interface import VALUES, status_names
from devices.cli.beams import Report
from devices.commands import input_type
from devices.instrument_commands import (
    FOR_ALL,
    WITH_ARGUMENTS,
    Outcome,
    chosen,
    compose,
    grouped_commands,
    parse_request,
    request_of,
)
from devices.instrument_device import beam_devices, status_line
from devices.instrument_states import BEAM_STATES, GROUP_STATE_TABLE, rule_for_beams
from devices.instrument_values import INSTRUMENT_VALUES, LISTED, collect
from devices.own_address import endpoint_of
from devices.server import _is_served
from devices.states import STATE_TABLE

S = DevState
BEAMS = (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([S.UNKNOWN] * 4, S.UNKNOWN),
        ([S.FAULT, S.UNKNOWN, S.ALARM, S.RUNNING], S.FAULT),
        ([S.RUNNING, S.ALARM, S.INIT, S.OFF], S.ALARM),
        ([S.RUNNING, S.RUNNING, S.RUNNING, S.UNKNOWN], S.ALARM),
        ([S.RUNNING, S.INIT, S.STANDBY, S.OFF], S.INIT),
        ([S.STANDBY, S.STANDBY, S.RUNNING, S.OFF], S.RUNNING),
        ([S.STANDBY] * 4, S.STANDBY),
        ([S.STANDBY, S.ON, S.OFF, S.OFF], S.STANDBY),
        ([S.ON, S.OFF, S.OFF, S.OFF], S.ON),
        ([S.OFF] * 4, S.OFF),
        ([S.RUNNING, S.MOVING], S.ALARM),  # no state of a beam: something else answers
    ],
)
def test_the_state_of_the_instrument(states: list[DevState], expected: DevState) -> None:
    for order in itertools.permutations(states):
        assert rule_for_beams(order).state == expected


def test_every_combination_has_a_state_and_every_row_is_reached() -> None:
    combinations = itertools.combinations_with_replacement(sorted(BEAM_STATES), 4)
    assert {rule_for_beams(states) for states in combinations} == set(GROUP_STATE_TABLE)
    assert {rule.state for rule in STATE_TABLE} | {S.UNKNOWN} == BEAM_STATES


@pytest.mark.parametrize("state", sorted(BEAM_STATES))
def test_an_instrument_of_one_beam_has_the_state_of_the_beam(state: DevState) -> None:
    assert rule_for_beams([state]).state == state


def test_every_command_of_the_instrument_is_one_of_the_beams() -> None:
    names = [*FOR_ALL, *WITH_ARGUMENTS]
    assert len(set(names)) == len(names)
    for entry in grouped_commands():
        assert not any(argument.is_required for argument in entry.arguments), entry.name
        assert not entry.background
        assert not entry.raw_reply
    for name in WITH_ARGUMENTS:
        assert COMMANDS.find(name).arguments, name
    assert "exit" not in names
    assert not any(name.startswith("force_") for name in names)


def test_which_beams_are_meant() -> None:
    assert chosen([], BEAMS) == chosen([0], BEAMS) == BEAMS
    assert chosen([3, 1, 3], BEAMS) == (1, 3)
    for wrong in ([5], [0, 1], [-1], [1, 7]):
        with pytest.raises(RequestError, match=f"found {', '.join(map(str, sorted(wrong)))}, .* 1, 2, 3, 4"):
            chosen(wrong, BEAMS)


def test_the_argument_that_a_beam_gets() -> None:
    assert request_of(COMMANDS.find("close_all"), [], BEAMS).argument is None
    assert request_of(COMMANDS.find("I0_update"), [], BEAMS).argument == ""
    assert parse_request('["I0_update", [2], 100]', BEAMS).argument == "[100]"
    assert parse_request('["close_all"]', BEAMS).beams == BEAMS
    assert parse_request('["close_all", 0]', BEAMS).beams == BEAMS
    rules = parse_request('["set_automation", [1, 3], {"auto_close": true}]', BEAMS)
    assert (rules.beams, rules.argument) == ((1, 3), '[{"auto_close": true}]')
    assert parse_request('["latency_budget", 0]', BEAMS).argument == ""
    request = parse_request('["ctrl_list", 2, "LO"]', BEAMS)
    assert input_type(request.entry) is CmdArgType.DevString
    assert (request.beams, request.argument) == ((2,), "LO")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("close_all", "not JSON"),
        ('{"command": "close_all"}', "expected"),
        ("[]", "expected"),
        ("[1]", "expected"),
        ('["close_all", "1"]', "list of beam numbers"),
        ('["close_all", [true]]', "list of beam numbers"),
        ('["close_all", [9]]', "found 9"),
        ('["no_such"]', "unknown command"),
        ('["exit"]', "one beam"),
        ('["force_close_all"]', "one beam"),
        ('["readBDRConfig", [], "a.toml"]', "one beam"),
        ('["acquire_dark", []]', "one beam"),
        ('["dg", [1], "LO"]', "missing argument"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(text: str, expected: str) -> None:
    with pytest.raises(RequestError, match=expected):
        parse_request(text, BEAMS)


def refusal(reason: str, text: str) -> Exception:
    try:
        Except.throw_exception(reason, text, "test")
    except DevFailed as error:
        return error
    raise AssertionError


def test_the_reply_has_the_words_of_the_back_end() -> None:
    entry = COMMANDS.find("close_all")
    done = Outcome('{"ok": true}')
    late = Outcome(error=BackendError("no answer\nwithin 2 s"))
    refused = Outcome(error=refusal("OPERATION_NOT_ALLOWED", "cannot close while stopped"))
    said_no = Outcome('{"ok": false, "error": "not now"}')
    assert compose(entry, {1: done, 2: done})["content"] == "OK"
    partial = compose(entry, {1: done, 2: refused})
    assert partial["content"] == "ERROR: partial (baldr1: OK; errors: baldr2: cannot close while stopped)"
    assert partial["ok"] is False
    assert partial["beams"]["1"] == {"ok": True, "reply": {"ok": True}}
    assert partial["beams"]["2"] == {"ok": False, "error": "cannot close while stopped"}
    none = compose(entry, {1: late, 4: said_no})
    assert none["content"] == "ERROR: baldr1: no answer within 2 s; baldr4: not now"
    assert json.loads(json.dumps(none)) == none


def report(beam: int, **values: Any) -> Report:
    complete: dict[str, Any] = {name: "" if by_name(name).kind is str else 0 for name in LISTED}
    return Report(beam, S.RUNNING, "RUNNING: closed", {**complete, **values})


def by_name(name: str) -> Any:
    return next(value for value in VALUES if value.name == name)


def test_lists_are_in_beam_order_and_a_missing_beam_has_its_place() -> None:
    reports = [
        report(2, TT_state=1, mode="bright", telemetry_on=True),
        Report(1, status="dead", values={"TT_state": None}),
        Report(3, S.FAULT, "FAULT: x", {"TT_state": 0, "HO_state": 0}),
    ]
    found = collect(reports)
    assert set(found) == {value.name for value in INSTRUMENT_VALUES}
    assert found["beams"] == [2, 1, 3]
    assert found["states"] == ["RUNNING", "UNKNOWN", "FAULT"]
    assert (found["n_answering"], found["n_closed"], found["n_fault"]) == (2, 1, 1)
    assert found["mode"] == ["bright", "UNKNOWN", "UNKNOWN"]
    assert (found["TT_state"][0], found["TT_state"][2], found["telemetry_on"][0]) == (1.0, 0.0, 1.0)
    assert math.isnan(found["TT_state"][1])
    assert set(status_names()) <= set(found)


def test_a_line_of_status_has_the_reason() -> None:
    assert status_line(report(1)) == "beam 1: RUNNING: closed"
    text = "FAULT: something\nlimit reached\nloops open"
    assert status_line(Report(2, S.FAULT, text)) == "beam 2: FAULT: limit reached; loops open"
    assert status_line(Report(3, S.FAULT, "FAULT: alone")) == "beam 3: FAULT: alone"
    assert status_line(Report(4, status="no answer for 4 s")) == "beam 4: UNKNOWN: no answer for 4 s"


def test_the_devices_of_the_beams(tmp_path: Path) -> None:
    file = tmp_path / "baldr.toml"
    file.write_text('[instrument]\nbeams = [2, 4]\ntango_prefix = "lab/bld"\n')
    assert beam_devices([], str(file)) == {2: "lab/bld/2", 4: "lab/bld/4"}
    far = "tango://127.0.0.1:4000/a/b/7#dbase=no"
    assert beam_devices(["x/y/beam3", "1=x/y/first", far], "") == {3: "x/y/beam3", 1: "x/y/first", 7: far}
    for names, expected in ((["x/y/z"], "x/y/z"), (["x/y/1", "1=x/y/z"], "twice")):
        with pytest.raises(ConfigError, match=expected):
            beam_devices(names, "")


def object_reference(order: str, host: str, port: int) -> str:
    """Write an object reference by the rules of CDR: a component-only profile first, then TCP."""

    def string(text: str) -> bytes:
        data = text.encode() + b"\0"
        return struct.pack(f"{order}I", len(data)) + data

    def padded(data: bytes, size: int) -> bytes:
        return data + b"\0" * (-len(data) % size)

    first = bytes([order == "<"])
    body = padded(first + b"\1\2\0" + string(host), 2) + struct.pack(f"{order}H", port)
    other = b"\1\0\0\0\7"
    data = padded(padded(first, 4) + string("IDL:x:1.0"), 4) + struct.pack(f"{order}I", 2)
    for tag, profile in ((1, other), (0, body)):
        data = padded(data, 4) + struct.pack(f"{order}II", tag, len(profile)) + profile
    return "IOR:" + data.hex()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("host", ["127.0.0.1", "mimir", "10.0.0.10"])
def test_the_address_in_an_object_reference(order: str, host: str) -> None:
    assert endpoint_of(object_reference(order, host, 45450)) == (host, 45450)


@pytest.mark.parametrize("text", ["", "IOR:", "IOR:0100", "IOR:zz"])
def test_no_object_reference(text: str) -> None:
    with pytest.raises(BackendError, match=re.escape(repr(text))):
        endpoint_of(text)


def test_without_a_database_only_classes_with_devices_are_served() -> None:
    class BaldrBeam: ...

    class BaldrInstrument: ...

    given = ["test", "-nodb", "-dlist", "BaldrBeam::a/b/1"]
    assert _is_served(given, BaldrBeam)
    assert not _is_served(given, BaldrInstrument)
    assert _is_served(["test"], BaldrInstrument)
