"""DM server of the virtual instrument: its texts, and what they do."""

from __future__ import annotations

import json

import pytest

from legacy_zmq.virtual_camera import VirtualCamera
from legacy_zmq.virtual_dm import VirtualDmServer
from tests.virtual_controls import RecordedInstrument


@pytest.fixture
def instrument():
    return RecordedInstrument()


@pytest.fixture
def ask(instrument):
    server = VirtualDmServer(instrument)

    def reply(text: str) -> str | None:
        answer = server.answer(text.encode())
        return None if answer is None else answer.decode()

    return reply


def test_the_summing_starts_and_stops(ask, instrument):
    assert ask("status") == '"running"'
    assert ask("stop") == "null"
    assert not instrument.mirrors
    assert ask("status") == '"idle"'
    assert ask("start") == "null"
    assert instrument.mirrors


def test_channels_are_counted_made_anew_and_zeroed(ask, instrument):
    assert ask("get_nch") == "5"
    assert ask("set_nch 7") == "null"
    assert ask("get_nch") == "7"
    for text, zeroed in (("reset 1,2", (1, 2)), ("reset [4, 6]", (4, 6)), ("reset 3,-1", (3, None))):
        assert ask(text) == "null"
        assert instrument.zeroed[-1] == zeroed


@pytest.mark.parametrize("text", ["reset 9,1", "reset 1,5", "reset 1,-2"])
def test_numbers_that_are_none_do_nothing_and_are_not_refused(ask, instrument, text):
    assert ask(text) == "null"
    assert instrument.zeroed == []


@pytest.mark.parametrize("text", ["", "reset", "reset 1", 'reset "a",1', "reset 1.5,1", "dance", "set_nch"])
def test_a_request_that_is_none_is_refused(ask, instrument, text):
    assert json.loads(ask(text))["ok"] is False
    assert instrument.zeroed == []


def test_quit_clears_the_mirrors_and_says_nothing(ask, instrument):
    assert ask("quit") is None
    assert instrument.zeroed == [(beam, None) for beam in instrument.beams]
    assert not instrument.mirrors


def test_quit_ends_the_frames_of_the_camera_and_says_nothing(instrument):
    server = VirtualCamera(instrument)
    assert server.answer(b"quit") is None
    assert instrument.silent
    server.answer(b"fetch")
    assert not instrument.silent


def test_frames_need_both_acquisition_and_split_mode(instrument):
    instrument.silent = True
    server = VirtualCamera(instrument)
    assert server.answer(b"status") == b'"running"'
    server.answer(b"stop")
    server.answer(b"split_mode 1")
    assert instrument.silent
    server.answer(b"fetch")
    assert not instrument.silent
    server.answer(b"crop_mode 1")
    assert instrument.recreated == 1
