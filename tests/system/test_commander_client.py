"""The command-line client: what it prints and what its exit status says."""

from __future__ import annotations

import io
import json

import pytest

from baldr_tango.errors import BackendError
from legacy_zmq import CommanderClient
from legacy_zmq.client import main, says_ok
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint

pytestmark = pytest.mark.system

REPLIES = {
    b"status": b'{"HO_state":0,"TT_state":1}',
    b"number 2,3": b"null",
    b"exit": b"Exiting!",
    b"help": '"status: Zustand für alle\\n"'.encode(),
    b"bad": b'{"ok":false,"error":"no"}',
    b"old": b'{"error":"unordered_map::at"}',
    b"get x": b"Error: [json.exception.parse_error.101] parse error",
}


@pytest.fixture(scope="module")
def server():
    with RepServer(lambda request: REPLIES.get(request, b'{"ok":false,"error":"unknown"}')) as server:
        yield server


@pytest.fixture
def run(server):
    return lambda *words: main(["--endpoint", server.endpoint, "--timeout", str(TIMEOUT_S), *words])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["status"], 0),
        (["number 2,3"], 0),
        (["number", "2,3"], 0),
        (["exit"], 0),
        (["help"], 0),
        (["bad"], 1),
        (["old"], 1),
        (["get", "x"], 1),
        (["nosuch"], 1),
    ],
)
def test_the_reply_is_printed_and_the_status_says_ok_or_not(run, capsys, words, status):
    assert run(*words) == status
    request = " ".join(words).encode()
    assert capsys.readouterr().out.encode() == REPLIES.get(request, b'{"ok":false,"error":"unknown"}') + b"\n"


def test_pretty_lays_out_the_same_json(run, capsys):
    assert run("--pretty", "status") == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 4
    assert json.loads(text) == json.loads(REPLIES[b"status"])


def test_pretty_shows_a_text_bare(run, capsys):
    assert run("help", "--pretty") == 0
    assert capsys.readouterr().out == "status: Zustand für alle\n\n"


def test_lines_of_standard_input_are_requests(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("status\n\nbad\nexit\n"))
    assert run("-") == 1
    assert capsys.readouterr().out.splitlines() == [
        REPLIES[request].decode() for request in (b"status", b"bad", b"exit")
    ]


def test_no_answer_is_status_3(capsys):
    endpoint = silent_endpoint()
    assert main(["--endpoint", endpoint, "--timeout", "0.1", "status"]) == 3
    printed = capsys.readouterr()
    assert not printed.out
    assert endpoint in printed.err
    assert "0.1 s" in printed.err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--beam", "0", "status"],
        ["--beam", "x", "status"],
        ["--timeout", "0", "status"],
        ["--timeout", "nan", "status"],
        ["--beam", "1", "--endpoint", "tcp://127.0.0.1:1", "status"],
    ],
)
def test_wrong_usage_is_status_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:99999"])
def test_an_impossible_endpoint_is_status_2(endpoint, capsys):
    assert main(["--endpoint", endpoint, "status"]) == 2
    assert endpoint in capsys.readouterr().err


def test_the_beam_decides_the_port(monkeypatch):
    asked = []
    monkeypatch.setattr(CommanderClient, "ask", lambda self, text: asked.append(self.endpoint) or "null")
    for words in (["status"], ["--beam", "4", "status"]):
        assert main(words) == 0
    assert asked == ["tcp://127.0.0.1:6662", "tcp://127.0.0.1:6665"]


def test_a_client_that_got_no_answer_can_ask_again():
    endpoint = silent_endpoint()
    with CommanderClient(endpoint, 0.1) as client:
        with pytest.raises(BackendError, match="no reply"):
            client.ask("status")
        with RepServer(lambda request: request.upper(), endpoint):
            client.timeout_s = TIMEOUT_S
            assert client.ask("status") == "STATUS"


@pytest.mark.parametrize(
    ("reply", "ok"),
    [
        ('{"ok":true}', True),
        ('{"ok":true,"error":""}', True),
        ('{"ok":false}', False),
        ('{"error":"x"}', False),
        ('"RTC paused."', True),
        ("[1,2]", True),
        ("Exiting!", True),
        ("Error: x", False),
        ("[" * 100_000, True),
    ],
)
def test_what_counts_as_success(reply, ok):
    assert says_ok(reply) is ok
