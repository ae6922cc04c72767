"""ESO commands of the virtual MDS: texts, times and batches, on devices that only record."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legacy_zmq.virtual_eso import EsoCommands

NOW = datetime(2026, 3, 1, 23, 59, 30, tzinfo=timezone.utc)


class RecordedDevices:
    """Axes A and B share a semaphore, C has its own; C refuses a value above 100."""

    def __init__(self):
        self.begun = []
        self.halted = []
        self.moving = set()

    def device_names(self):
        return ["A", "B", "C"]

    def semaphore(self, device):
        return "C" if device == "C" else "AB"

    def prepare(self, device, keyword, value):
        if not (isinstance(value, (int, float, str)) and value != 101):
            raise ValueError(f"{device}: found {value!r}")

        def begin():
            self.begun.append((device, keyword, value))
            self.moving.add(device)

        return begin

    def is_moving(self, device):
        return device in self.moving

    def encoder(self, device):
        return {"A": 1.5, "B": 2.5, "C": 3.5}[device]

    def temperatures(self):
        return [14.5, -2.25]

    def halt(self, device):
        self.halted.append(device)
        self.moving.discard(device)


@pytest.fixture
def devices():
    return RecordedDevices()


@pytest.fixture
def ask(devices):
    commands = EsoCommands(devices)

    def ask(name, *parameters, late_s=0.0):
        time = (NOW - timedelta(seconds=late_s)).strftime("%Y-%m-%dT%H:%M:%S")
        request = {"command": {"name": name, "time": time, "parameters": list(parameters)}}
        text = commands.answer(json.dumps(request) + "\0", NOW)
        assert text.endswith("\0")
        reply = json.loads(text[:-1])["reply"]
        assert reply["time"] == "2026-03-01T23:59:30"
        return reply["content"], {each["attribute"]: each["value"] for each in reply["parameters"]}

    return ask


def keyword(device, motion, value):
    return {"name": f"INS.{device}.{motion}", "value": value}


def test_setup_begins_poll_follows(ask, devices):
    assert ask("poll") == ("DONE", {})
    moving = {"<alias>A:DATA.status0": "MOVING", "<alias>C:DATA.status0": "MOVING"}
    assert ask("setup", keyword("A", "NAME", "H3"), keyword("C", "ENC", 7.0)) == ("OK", moving)
    assert devices.begun == [("A", "NAME", "H3"), ("C", "ENC", 7.0)]
    devices.moving.remove("A")
    assert ask("poll") == ("PENDING", moving | {"<alias>C:DATA.posEnc": 3.5})
    devices.moving.clear()
    there = {"<alias>A:DATA.status0": "H3", "<alias>C:DATA.status0": "", "<alias>C:DATA.posEnc": 3.5}
    assert ask("poll") == ("DONE", there)


@pytest.mark.parametrize(("value", "status"), [("T", "ON"), ("F", "OFF")])
def test_a_lamp_reports_its_state_in_words(ask, devices, value, status):
    ask("setup", keyword("C", "ST", value))
    devices.moving.clear()
    assert ask("poll") == ("DONE", {"<alias>C:DATA.status0": status})


def test_devices_that_share_a_semaphore_move_one_after_the_other(ask, devices):
    ask("setup", keyword("A", "ENCREL", 1), keyword("B", "ENCREL", 2), keyword("C", "ENCREL", 3))
    assert [device for device, *_ in devices.begun] == ["A", "C"]
    assert ask("poll")[0] == "PENDING"
    assert len(devices.begun) == 2
    devices.moving.clear()
    content, parameters = ask("poll")
    assert content == "PENDING"
    assert parameters["<alias>B:DATA.status0"] == "MOVING"
    assert devices.begun[2:] == [("B", "ENCREL", 2)]
    devices.moving.clear()
    assert ask("poll") == ("DONE", {"<alias>B:DATA.status0": "", "<alias>B:DATA.posEnc": 2.5})


def test_stop_halts_and_the_second_batch_never_begins(ask, devices):
    ask("setup", keyword("A", "ENC", 1), keyword("B", "ENC", 2))
    assert ask("stop", {"device": "a"}) == ("OK", {})
    assert devices.halted == ["A"]
    assert ask("poll") == ("DONE", {})
    assert len(devices.begun) == 1


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("online", {"state": 3}),
        ("standby", {"state": 2}),
        ("off", {"state": 1}),
        ("simulat", {"simulation": 1, "state": 1}),
        ("stopsim", {"simulation": 0, "state": 1}),
        ("enable", {}),
        ("disable", {}),
    ],
)
def test_states_of_some_devices_or_all(ask, name, reported):
    for parameters, names in (([{"device": "b"}], "B"), ([{"device": "all"}], "ABC")):
        expected = {f"<alias>{device}.{key}": value for device in names for key, value in reported.items()}
        assert ask(name, *parameters) == ("OK", expected)


@pytest.mark.parametrize(("late_s", "counts"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_a_command_of_another_time_is_answered_but_ignored(ask, devices, late_s, counts):
    content, parameters = ask("setup", keyword("A", "ENC", 1), late_s=late_s)
    assert content == "OK"
    assert bool(parameters) == bool(devices.begun) == counts


def test_a_time_that_is_none_is_ignored_too(devices):
    text = '{"command":{"name":"stop","time":"yesterday","parameters":[{"device":"all"}]}}\0'
    assert '"content": "OK"' in EsoCommands(devices).answer(text, NOW)
    assert devices.halted == []


def test_one_wrong_keyword_and_nothing_begins(ask, devices):
    content, _ = ask("setup", keyword("A", "ENC", 1), keyword("C", "ENC", 101))
    assert content == "ERROR: C: found 101"
    assert devices.begun == []


def test_read_tells_the_temperatures(devices):
    command = NOW.strftime('{"command":{"name":"read","time":"%Y-%m-%dT%H:%M:%S","parameters":[]}}')
    reply = json.loads(EsoCommands(devices).answer(command + "\0", NOW)[:-1])["reply"]
    assert (reply["content"], reply["parameters"]) == ("OK", [{"value": 14.5}, {"value": -2.25}])


@pytest.mark.parametrize("terminator", ["\0", "\n", "x"])
def test_one_terminator_is_cut_off_whatever_it_is(devices, terminator):
    command = NOW.strftime('{"command":{"name":"read","time":"%Y-%m-%dT%H:%M:%S","parameters":[]}}')
    commands = EsoCommands(devices)
    assert '"content": "OK"' in commands.answer(command + terminator, NOW)
    assert commands.answer(command, NOW) == "NACK: Invalid JSON message"


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("dance", [], "'dance'"),
        ("setup", [{"name": "BMX2", "value": 1}], "'BMX2'"),
        ("setup", [keyword("D", "ENC", 1)], "'D'"),
        ("setup", [{"device": "A"}], "name"),
        ("setup", [5], "name"),
        ("online", [{"device": "D"}], "'D'"),
        ("online", [{"name": "A"}], "device"),
    ],
)
def test_what_ends_the_real_server_is_an_error_that_names_it(ask, name, parameters, told):
    content, reported = ask(name, *parameters)
    assert content.startswith("ERROR: ")
    assert told in content
    assert reported == {}


def test_values_of_many_levels(devices):
    time = NOW.strftime("%Y-%m-%dT%H:%M:%S")
    for depth in (10, 500, 900, 980, 100_000):
        nested = "[" * depth + "]" * depth
        text = f'{{"command":{{"name":"online","time":"{time}","parameters":{nested}}}}}\0'
        reply = EsoCommands(devices).answer(text, NOW)
        assert "ERROR: " in reply or reply.startswith("NACK")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["A", "INS.A.ENC"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "value", "device", "parameters"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(name=st.sampled_from(["setup", "poll", "stop", "online", "read", "?"]) | JSON, parameters=JSON)
def test_any_json_gets_a_reply(name, parameters):
    time = NOW.strftime("%Y-%m-%dT%H:%M:%S")
    commands = EsoCommands(RecordedDevices())
    for request in ({"name": name, "time": time, "parameters": parameters}, parameters):
        reply = json.loads(commands.answer(json.dumps({"command": request}) + "\0", NOW)[:-1])["reply"]
        assert reply["content"].split(":")[0] in ("OK", "PENDING", "DONE", "ERROR")


@given(text=st.text())
def test_any_text_gets_a_reply(text):
    assert EsoCommands(RecordedDevices()).answer(text, NOW)
