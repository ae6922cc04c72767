"""Camera server and MDS of the virtual instrument: their texts, and what they move."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timezone

import pytest

from baldr_tango.peers.camera import decode_reply, first_number
from legacy_zmq.virtual_camera import VirtualCamera
from legacy_zmq.virtual_mds import MASKS, VirtualMds
from tests.virtual_controls import RecordedInstrument


@pytest.fixture
def instrument():
    return RecordedInstrument()


@pytest.fixture
def camera(instrument):
    server = VirtualCamera(instrument)
    return lambda text: server.answer(text.encode()).decode()


@pytest.fixture
def mds(instrument):
    server = VirtualMds(instrument)
    return lambda text: server.answer(text.encode()).decode()


def number_as_the_cpp_rtc_reads_it(reply):
    """Apply the C++ RTC's rule to the unparsed JSON text (reference: camera server, parsing rule)."""
    return float(re.match(r'"\s*(.*?)\\r\\n', reply).group(1))


@pytest.mark.parametrize(
    ("question", "number"), [("fps raw", 1739.356), ("gain raw", 7.0), ("nbreadworeset raw", 2.0)]
)
def test_the_cpp_rtc_and_our_client_read_the_same_number(camera, instrument, question, number):
    instrument.rate_hz, instrument.gain = 1739.356, 7.0
    reply = camera(f'cli "{question}"')
    assert number_as_the_cpp_rtc_reads_it(reply) == number
    assert first_number(decode_reply(reply)) == number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ('" 10\\r\\n\\r\\nfli-cli>"', 10.0),
        ('"  10.000\\r\\nfli-cli>"', 10.0),
        ('"2\\r\\nfli-cli>"', 2.0),
        ('"1000.0\\r\\n"', 1000.0),
        ('"fps set to 1000.0\\r\\n"', 1000.0),
        ('"Gain: 10 \\r\\n"', 10.0),
        ("1739.356", 1739.356),
        (" 1739.356\r\n\0", 1739.356),
        ('"5\r\nfli-cli>"', 5.0),
        ('"-1.5e3\\r\\n"', -1500.0),
    ],
)
def test_numbers_of_all_camera_servers_are_read(reply, number):
    assert first_number(str(decode_reply(reply))) == number


@pytest.mark.parametrize("text", ["", "N/A", "fli-cli>", "Result:Error 12", "Error: parse_error.101"])
def test_a_number_inside_an_error_is_none(text):
    with pytest.raises(ValueError, match="no number"):
        first_number(text)


def test_rate_and_gain_follow_both_dialects(camera, instrument):
    assert camera("set_fps 500.0") == "null"
    assert instrument.rate_hz == 500.0
    assert "Result:OK" in camera('cli "set fps 1500"')
    assert instrument.rate_hz == 1500.0
    assert camera("get_fps") == "1500.0"
    assert camera("set_gain 5") == "null"
    assert "Result:OK" in camera('cli "set gain 20"')
    assert camera("get_gain") == "20"


def test_frames_stop_and_come_back(camera, instrument):
    assert camera("status") == '"running"'
    assert camera("stop") == "null"
    assert instrument.silent
    assert camera("status") == '"idle"'
    camera("fetch")
    assert not instrument.silent
    camera("split_mode 0")
    assert instrument.silent
    camera("split_mode 1")
    assert not instrument.silent


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "nosuch",
        "set_fps",
        "set_fps 0",
        "set_fps -5",
        'set_fps "fast"',
        "set_gain 101",
        "cli",
        "cli 5",
        'cli "set fps 1e9"',
        'cli "set gain nan"',
    ],
)
def test_a_refused_camera_command_changes_nothing(camera, instrument, request_text):
    assert json.loads(camera(request_text))["ok"] is False
    assert (instrument.rate_hz, instrument.gain) == (1000.0, 10.0)


def test_the_lamp(mds, instrument):
    assert mds("is_on SBB") == "True\n"
    assert mds("off SBB") == "ACK\n"
    assert not instrument.lamp
    assert mds("is_on SBB") == "False\n"
    assert mds("on SBB\0") == "ACK\n"
    assert instrument.lamp
    assert mds("off SGL") == "ACK\n"
    assert instrument.lamp


@pytest.mark.parametrize("axis", ["BMX2", "BMY2"])
def test_a_mask_moved_by_more_than_100_um_is_out(mds, instrument, axis):
    position = float(mds(f"read {axis}"))
    mds(f"moverel {axis} 99.0")
    assert instrument.masks_in[2]
    mds(f"moverel {axis} 2.0")
    assert not instrument.masks_in[2]
    assert instrument.masks_in == {1: True, 2: False, 3: True, 4: True}
    assert float(mds(f"read {axis}")) == position + 101.0
    mds(f"moveabs {axis} {position}")
    assert instrument.masks_in[2]


@pytest.mark.parametrize("mask", MASKS)
def test_the_calibration_scripts_way_out_and_in(mds, instrument, mask):
    assert mds(f"fpm_movetomask phasemask3 {mask}") == "ACK\n"
    assert instrument.masks_in[3]
    assert mds("moverel BMX3 200.0") == "ACK\n"
    assert not instrument.masks_in[3]
    assert mds("moverel BMX3 -200.0") == "ACK\n"
    assert instrument.masks_in[3]


def test_turbulence_of_one_beam_or_all(mds, instrument):
    assert mds("sim_turbulence off 2") == "ACK\n"
    assert instrument.turbulent == {1: True, 2: False, 3: True, 4: True}
    assert mds("sim_turbulence off") == "ACK\n"
    assert not any(instrument.turbulent.values())
    assert mds("sim_turbulence on") == "ACK\n"
    assert all(instrument.turbulent.values())


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "\0",
        "!on SBB",
        '{"command":{}',
        "dance",
        "on",
        "on SBB now",
        "on XYZ",
        "moverel BMX2 200",
        "moverel BMX2 nan",
        "moverel BMX2 in.f",
        "moverel BMX9 1.0",
        "moverel BMX2",
        "read phasemask2",
        "fpm_movetomask phasemask9 H3",
        "fpm_movetomask phasemask2 H9",
        "fpm_readpos phasemask2",
        "sim_turbulence maybe",
        "sim_turbulence on 7",
        "state NOTHING",
    ],
)
def test_a_refused_mds_command_changes_nothing(mds, instrument, request_text):
    before = vars(RecordedInstrument())
    reply = mds(request_text)
    assert reply.startswith("NACK")
    assert reply.endswith("\n")
    assert vars(instrument) == before


def eso(name, *parameters):
    time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return json.dumps({"command": {"name": name, "time": time, "parameters": list(parameters)}}) + "\0"


def keyword(name, value):
    return {"name": f"INS.{name}", "value": value}


def test_eso_commands_and_custom_commands_act_on_the_same_devices(mds, instrument):
    x = float(mds("read BMX2"))
    reply = mds(eso("setup", keyword("BMX2.ENCREL", 200.0), keyword("SBB.ST", "F")))
    assert reply.endswith("}\0\n")
    assert json.loads(reply[:-2])["reply"]["content"] == "OK"
    assert float(mds("read BMX2")) == x + 200.0
    assert instrument.masks_in == {1: True, 2: False, 3: True, 4: True}
    assert not instrument.lamp
    assert mds("is_on SBB") == "False\n"
    mds(eso("setup", keyword("phasemask2.NAME", "J1"), keyword("SBB.ST", "T")))
    assert instrument.masks_in[2]
    assert instrument.lamp
    mds("fpm_movetomask phasemask3 J1")
    assert (mds("read BMX2"), mds("read BMY2")) == (mds("read BMX3"), mds("read BMY3"))
    mds(eso("setup", keyword("BMX2.ENC", "1234.5")))
    assert mds("read BMX2") == "1234.5\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BMX2.ENC", "here"),
        ("BMX2.ENC", True),
        ("BMX2.ENC", None),
        ("BMX2.ENC", math.nan),
        ("BMX2.ENCREL", 10**400),
        ("BMX2.NAME", "H9"),
        ("BMX9.ENC", 1.0),
        ("phasemask2.NAME", "H9"),
        ("phasemask2.ENC", 1.0),
        ("SBB.ST", "on"),
        ("SBB.ST", ["T"]),
        ("SBB.ENC", 1.0),
        ("BTT1.ENC", 751.0),
        ("BTT1.ST", "T"),
        ("BLF1.NAME", "BRIGHT"),
        ("BLF1.ENCREL", 1.0),
        ("BOTT1.ENC", 1.0),
    ],
)
def test_a_setup_with_one_wrong_keyword_moves_nothing(mds, instrument, name, value):
    before = vars(RecordedInstrument()), mds("read BMX1")
    reply = json.loads(mds(eso("setup", keyword("BMX1.ENCREL", 200.0), keyword(name, value)))[:-2])["reply"]
    assert reply["content"].startswith("ERROR: ")
    assert name.split(".")[0] in reply["content"]
    assert (vars(instrument), mds("read BMX1")) == before


@pytest.mark.parametrize("axis", ["BMX1", "BMY4", "phasemask2", "BTT1", "BFO", "SBB"])
def test_known_devices_are_connected(mds, axis):
    assert mds(f"connected? {axis}") == "connected\n"
    assert mds(f"ping {axis}") == "ACK: connected\n"


def test_darks_are_made_and_subtracted_on_request(camera, instrument):
    assert camera("make_dark") == "null"
    assert (instrument.darks, instrument.subtracts_dark) == (1, True)
    assert camera("subtract_dark 0") == "null"
    assert not instrument.subtracts_dark
    assert camera("subtract_dark 1") == "null"
    assert instrument.subtracts_dark


@pytest.mark.parametrize(
    ("request_text", "told"),
    [
        ("fpm_maskpositions phasemask2", "has no attribute 'mask_positions'"),
        ("fpm_readpos phasemask2", "can only concatenate list"),
        ("fpm_moveabs phasemask2 [1.0,2.0]", "could not convert string to float: '['"),
        ("fpm_moverel phasemask9 [1.0,2.0]", "phasemask9"),
    ],
)
def test_stage_commands_that_never_worked_are_refused_in_the_words_of_the_real_server(
    request_text: str, told: str
) -> None:
    instrument = RecordedInstrument()
    server = VirtualMds(instrument)
    before = server.answer(b"read BMX2")
    reply = server.answer(request_text.encode()).decode()
    assert reply.startswith("NACK: ")
    assert told in reply
    assert server.answer(b"read BMX2") == before


def test_the_read_out_follows_server_and_command_line() -> None:
    instrument = RecordedInstrument()
    camera = VirtualCamera(instrument)
    ask = lambda text: camera.answer(text.encode()).decode()  # noqa: E731
    assert ask("ndmr_mode 12") == "null"
    assert (instrument.reads, instrument.slopes) == (12, True)
    assert "12" in ask('cli "nbreadworeset raw"')
    ask('cli "set mode globalresetcds"')
    assert (instrument.reads, instrument.slopes) == (1, True)
    ask("ndmr_mode 2")
    assert (instrument.reads, instrument.slopes) == (1, False)
    ask('cli "set mode globalresetbursts"')
    ask('cli "set nbreadworeset 30"')
    assert (instrument.reads, instrument.slopes) == (30, False)
    for wrong in ("ndmr_mode 0", 'ndmr_mode "x"', 'cli "set nbreadworeset -1"', 'cli "set nbreadworeset"'):
        assert "rror" in ask(wrong), wrong
    assert (instrument.reads, instrument.slopes) == (30, False)
    ask("save_mode 1")
    assert instrument.saving
    ask("skip_save_baldr 1")
    assert not instrument.saving
