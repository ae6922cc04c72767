"""The commander protocol: what a request may look like, and what a reply looks like."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import PurePosixPath

import numpy as np
import pytest

from baldr_tango.errors import BackendError, ConfigError, RequestError, StateError
from baldr_tango.names import LoopState
from legacy_zmq.protocol import MAX_DEPTH, MAX_REQUEST_BYTES, encode, error_reply, parse, reply


def echo(name, arguments):
    """Stand in for the door: return what it was given."""
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("request_text", "arguments"),
    [
        ("status", []),
        ("status ", []),
        ("status    ", []),
        ("status\n", []),
        ("status\r\n", []),
        ("status\0", []),
        ("status\0\n", []),
        ("status \n\0\0", []),
        ("  status", []),
        ('status ""', [""]),
        ("status []", []),
        ("status {}", [{}]),
        ("status null", [None]),
        ("status 2,3", [2, 3]),
        ("status 2, 3", [2, 3]),
        ("status   2 ,3  ", [2, 3]),
        ("status\t2", [2]),
        ("status [2,3]", [2, 3]),
        ("status [2,3]\0", [2, 3]),
        ("status [[2,3]]", [[2, 3]]),
        ("status [],[]", [[], []]),
        ("status [2],3", [[2], 3]),
        ('status {"a":1}', [{"a": 1}]),
        ('status "x"', ["x"]),
        ('status ["x"]', ["x"]),
        ('status "a b",true,null,2.5', ["a b", True, None, 2.5]),
        ('status "piston µm é"', ["piston µm é"]),
        (r'status "\ud83d\ude00"', ["😀"]),
        ("status 1e3", [1000.0]),
        ("status -9223372036854775808", [-(2**63)]),
    ],
)
def test_both_dialects_are_understood(request_text, arguments):
    assert parse(request_text) == ("status", arguments)
    assert parse(request_text.encode()) == ("status", arguments)


def test_arguments_may_come_with_or_without_brackets():
    assert parse("change_boxcar 5") == parse("change_boxcar [5]") == ("change_boxcar", [5])


@pytest.mark.parametrize(
    ("request_text", "name", "arguments"),
    [
        ("__ping__", "__ping__", []),
        ("OPEN_ALL", "OPEN_ALL", []),
        ('open_baldr_LO ""', "open_baldr_LO", [""]),
        ("set_telem_capacity 1000", "set_telem_capacity", [1000]),
        ('set_rtc_field "gain",2', "set_rtc_field", ["gain", 2]),
        ('ctrl_set ["LO","kp",[0.1,0.2]]', "ctrl_set", ["LO", "kp", [0.1, 0.2]]),
        ('reload_config ["/nope.toml","H3"]', "reload_config", ["/nope.toml", "H3"]),
        ('send_cam_command ["gain raw"]', "send_cam_command", ["gain raw"]),
        ('ol_set_actuator {"branch":"HO","idx":65}', "ol_set_actuator", [{"branch": "HO", "idx": 65}]),
    ],
)
def test_what_existing_clients_send(request_text, name, arguments):
    assert parse(request_text) == (name, arguments)


@pytest.mark.parametrize(
    ("request_text", "said"),
    [
        ("", "empty request"),
        ("\0", "empty request"),
        (" \n\0 ", "empty request"),
        ("get_rtc_field gain", "gain"),
        ("readBDRConfig /etc/baldr.toml", "double quotes"),
        ("exit [", "end of request"),
        ("exit ]", "not JSON"),
        ("exit 1],[2", "not JSON"),
        ("cmd 1,", "not JSON"),
        ("cmd 'x'", "not JSON"),
        ("cmd {a:1}", "not JSON"),
        ('cmd "x', "not JSON"),
        ('cmd "a\nb"', "not JSON"),
        ("cmd NaN", "NaN is not a finite number"),
        ("cmd -Infinity", "-Infinity is not a finite number"),
        ("cmd [1,Infinity]", "Infinity is not a finite number"),
        ("cmd 1e999", "too large"),
        ("cmd " + "9" * 30, "64-bit"),
        ("cmd 9223372036854775808", "64-bit"),
        ("cmd " + "9" * 5000, "64-bit"),
        (r'cmd "\ud800"', "surrogate"),
        (r'cmd {"\udfff":1}', "surrogate"),
        ('{"cmd":"status"}', "not a command name"),
        ("[1,2]", "not a command name"),
        ("cmd[2,3]", "not a command name"),
        ("sta\0tus", "not a command name"),
        ("größe", "not a command name"),
        ("a" * 1000, "not a command name"),
        ("cmd " + "[" * 100_000, "nested"),
        ("cmd " + '{"a":' * 100_000, "nested"),
        ("cmd " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        ("cmd " + "[" * 500 + "]" * 500, "nested"),
        ("cmd " + " " * MAX_REQUEST_BYTES, "too long"),
    ],
)
def test_a_request_that_is_none_is_refused_with_the_reason(request_text, said):
    with pytest.raises(RequestError, match=re.escape(said)) as caught:
        parse(request_text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "message",
    [b"\xff\xfe", b"status \xc3\x28", bytes(range(256)), b"\x89PNG\r\n\x1a\n", b'cmd "\xed\xa0\x80"'],
)
def test_bytes_that_are_not_text_are_refused(message):
    answer = json.loads(reply(message, echo))
    assert answer["ok"] is False
    assert answer["error"]


def test_text_with_half_a_surrogate_pair_is_refused():
    with pytest.raises(RequestError, match="surrogate"):
        parse('cmd "\ud800"')


def test_nesting_up_to_the_limit_is_accepted():
    depth = MAX_DEPTH - 1
    _, arguments = parse("cmd 0," + "[" * depth + "]" * depth)
    assert arguments[0] == 0


def test_a_malformed_exit_is_an_error_and_exits_nothing():
    called = []
    answer = json.loads(reply("exit [", lambda name, arguments: called.append(name)))
    assert answer["ok"] is False
    assert not called


def test_exit_is_answered_by_the_literal_and_other_texts_as_json():
    assert reply("exit", lambda name, arguments: "Exiting!") == "Exiting!"
    assert reply('EXIT ""', lambda name, arguments: "Exiting!") == "Exiting!"
    assert reply("pause_baldr_rtc", lambda name, arguments: "RTC paused.") == '"RTC paused."'


def test_a_reply_is_compact_json_with_sorted_keys_as_the_cpp_server_writes_it():
    measured = '{"data":[-0.25,0.5],"name":"e_LO","ok":true,"size":2}'
    value = {"ok": True, "size": 2, "name": "e_LO", "data": np.array([-0.25, 0.5])}
    assert reply('poll_telem_vector "e_LO"', lambda name, arguments: value) == measured


@dataclasses.dataclass
class Snapshot:
    frequency: float
    loop: LoopState


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.0, "0.0"),
        (float("nan"), "null"),
        ([1.0, float("inf"), -float("inf")], "[1.0,null,null]"),
        (np.float32(0.5), "0.5"),
        (np.float64("nan"), "null"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
        (np.str_("H3"), '"H3"'),
        (np.array([[1, 2], [3, 4]], dtype=np.int32), "[[1,2],[3,4]]"),
        (np.array([1.0, np.nan]), "[1.0,null]"),
        (np.array(2.5), "2.5"),
        (np.zeros((0,)), "[]"),
        ((1, 2), "[1,2]"),
        (LoopState.CLOSED, "1"),
        ({LoopState.OPEN: 1, "b": {"c": np.uint8(3)}}, '{"0":1,"b":{"c":3}}'),
        (Snapshot(1000.0, LoopState.OPEN), '{"frequency":1000.0,"loop":0}'),
        (PurePosixPath("/etc/baldr.toml"), '"/etc/baldr.toml"'),
        ("µm é 😀", '"µm é 😀"'),
        ("a\nb\0", '"a\\nb\\u0000"'),
        (b"raw\xff", '"raw\ufffd"'),
    ],
)
def test_values_of_a_reply(value, text):
    assert encode(value) == text
    json.loads(encode(value))


def test_a_file_name_that_is_not_utf_8_does_not_spoil_the_reply():
    text = encode({"config_file": os.fsdecode(b"/tmp/\xff.toml")})
    assert json.loads(text.encode())["config_file"].startswith("/tmp/")


@pytest.mark.parametrize(
    "error", [RequestError("no"), StateError("no"), ConfigError("no"), BackendError("no")]
)
def test_errors_raised_on_purpose_are_quoted(error):
    def execute(name, arguments):
        raise error

    assert reply("status", execute) == '{"error":"no","ok":false}' == error_reply("no")


@pytest.mark.parametrize("error", [KeyError("gain"), RecursionError("deep"), ZeroDivisionError("1/0")])
def test_an_unforeseen_error_is_logged_and_answered(error, caplog):
    def execute(name, arguments):
        raise error

    answer = json.loads(reply("status", execute))
    assert answer["ok"] is False
    assert type(error).__name__ in answer["error"]
    assert "status failed" in caplog.text


def test_a_result_that_json_cannot_express_is_an_error_reply():
    endless: list = []
    endless.append(endless)
    for result in (object(), {"a": 1j}, endless):
        answer = json.loads(reply("status", lambda name, arguments, result=result: result))
        assert answer["ok"] is False
