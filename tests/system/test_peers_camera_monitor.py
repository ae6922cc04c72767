"""The camera's settings followed: polled, shared, asked for at once, tolerant of a slow or absent server."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from baldr_tango.errors import BackendError
from baldr_tango.peers import CameraClient, CameraMonitor, PeerState, camera_monitor
from baldr_tango.peers.camera_monitor import CameraState
from baldr_tango.peers.connection import open_endpoints
from legacy_zmq.instrument import ControlServers
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint, wait_until
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system

NEVER_S = 1e6
"""A period that no test waits for: whatever happens, happens for another reason."""
ROUND = [b'cli "fps raw"', b'cli "gain raw"', b'cli "nbreadworeset raw"']


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not open_endpoints()


@pytest.fixture
def instrument():
    return RecordedInstrument()


@pytest.fixture
def endpoint(instrument):
    with ControlServers(instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0") as servers:
        yield servers.camera.endpoint


@pytest.fixture
def monitor_of():
    opened = []

    def make(endpoint, timeout_s=TIMEOUT_S, period_s=NEVER_S):
        opened.append(CameraMonitor(endpoint, timeout_s, period_s))
        return opened[-1]

    yield make
    for monitor in opened:
        monitor.close()


class SlowCamera:
    """Answers each question only when it is allowed to."""

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.fps = 500.0

    def answer(self, request: bytes) -> bytes:
        assert self.allowed.acquire(timeout=TIMEOUT_S)
        value = self.fps if b"fps" in request else 3
        return f'"  {value}\\r\\n\\r\\nfli-cli>"'.encode()


def test_rate_gain_and_reads_are_followed(monitor_of, endpoint, instrument):
    instrument.rate_hz, instrument.gain = 1739.356, 5.0
    monitor = monitor_of(endpoint, period_s=0.02)
    assert monitor.state.text in ("not asked yet", "up")
    wait_until(lambda: monitor.state.is_up, "the first round")
    state = monitor.state
    assert (state.fps, state.gain, state.nbreadworeset) == (1739.356, 5.0, 2)
    assert state.text == "up"
    instrument.set_rate(500.0)
    wait_until(lambda: monitor.state.fps == 500.0, "the change on the camera's side")
    assert monitor.state.since == state.since


def test_any_command_of_this_process_is_followed_by_a_round(monitor_of, endpoint):
    monitor = monitor_of(endpoint)
    wait_until(lambda: monitor.state.rounds == 1, "the first round")
    with CameraClient(endpoint, TIMEOUT_S) as camera:
        camera.cli("set gain 3")
        wait_until(lambda: monitor.state.gain == 3.0, "the new gain")
        camera.raw("set_fps 250.0")
        wait_until(lambda: monitor.state.fps == 250.0, "the new rate")
        rounds = monitor.state.rounds
        camera.fps()
        camera.gain()
    assert monitor.state.rounds == rounds, "questions change nothing and need no round"


def test_a_round_can_be_asked_for(monitor_of, endpoint, instrument):
    monitor = monitor_of(endpoint)
    wait_until(lambda: monitor.state.rounds == 1, "the first round")
    instrument.set_gain(7.0)
    monitor.ask()
    wait_until(lambda: monitor.state.gain == 7.0, "the new gain")


def test_one_monitor_serves_all_beams_of_a_process():
    camera = SlowCamera()
    for _ in range(100):
        camera.allowed.release()
    with RepServer(camera.answer) as server:
        monitors = [camera_monitor(server.endpoint, TIMEOUT_S) for _ in range(4)]
        assert len(set(map(id, monitors))) == 1
        wait_until(lambda: monitors[0].state.rounds, "the first round")
        assert server.requests[:3] == ROUND
        for monitor in monitors[:3]:
            monitor.close()
        rounds = monitors[3].state.rounds
        monitors[3].ask()
        wait_until(lambda: monitors[3].state.rounds > rounds, "another round")
        monitors[3].close()


def test_a_command_has_at_most_one_question_of_the_monitor_before_it(monitor_of):
    """The serial line takes a second per exchange; an operator's command must not wait for a round."""
    camera = SlowCamera()
    with RepServer(camera.answer) as server, CameraClient(server.endpoint, TIMEOUT_S) as client:
        monitor = monitor_of(server.endpoint)
        wait_until(lambda: server.requests == ROUND[:1], "the first question")
        command = client.submit_cli("set gain 3")
        wait_until(lambda: client.connection.counters.sent == 2, "the command on its way")
        camera.allowed.release()
        camera.allowed.release()
        command.result(TIMEOUT_S)
        assert server.requests[:2] == [ROUND[0], b'cli "set gain 3"']
        for _ in range(10):
            camera.allowed.release()
        wait_until(lambda: monitor.state.is_up, "the round")


def test_closing_does_not_wait_for_an_answer():
    camera = SlowCamera()
    with RepServer(camera.answer) as server:
        monitor = camera_monitor(server.endpoint, 1e4)
        wait_until(lambda: server.requests, "the first question")
        monitor.close()
        camera.allowed.release()


def test_an_absent_server_is_told_with_its_time_and_found_when_it_comes(monitor_of, caplog):
    endpoint = silent_endpoint()
    monitor = monitor_of(endpoint, timeout_s=0.05)
    wait_until(lambda: monitor.state.rounds, "the first round, unanswered")
    state = monitor.state
    assert not state.is_up
    assert state.fps is None
    assert state.text.startswith("no answer since 20")
    assert "not reachable" in state.reason
    assert monitor.health.state is PeerState.DOWN
    with RepServer(lambda request: b'"  750\\r\\nfli-cli>"', endpoint):
        wait_until(lambda: monitor.state.is_up, "the server that has come")
        assert monitor.state.fps == 750.0
    # Its end costs one unanswered round; what it said last is still the best guess.
    monitor.ask()
    wait_until(lambda: not monitor.state.is_up, "the server's end")
    assert monitor.state.fps == 750.0
    assert caplog.text.count("does not answer") == 2


def test_the_pauses_grow_while_nobody_answers(monitor_of, monkeypatch):
    monitor = monitor_of(silent_endpoint(), timeout_s=0.01, period_s=0.01)
    pauses = []
    pause = monitor._patience.pause
    monkeypatch.setattr(
        monitor._patience, "pause", lambda seconds: (pauses.append(seconds), pause(seconds))[1]
    )
    wait_until(lambda: len(pauses) >= 5, "five pauses")
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 4 * pauses[0]


def test_an_answer_without_a_number_leaves_that_value_as_it_was(monitor_of, caplog):
    answers = {
        b"fps": b'"  500.0\\r\\nfli-cli>"',
        b"gain": b'"Result:Error 7\\r\\n"',
        b"nbread": b'{"error":"9"}',
    }
    with RepServer(lambda request: next(reply for key, reply in answers.items() if key in request)) as server:
        monitor = monitor_of(server.endpoint)
        wait_until(lambda: monitor.state.rounds, "the first round")
        state = monitor.state
        assert state.is_up
        assert (state.fps, state.gain, state.nbreadworeset) == (500.0, None, None)
        assert "gain raw" in state.reason
        assert "nbreadworeset raw" in state.reason
        answers[b"gain"] = b'"-1\\r\\n"'
        answers[b"fps"] = b'"0\\r\\n"'
        monitor.ask()
        wait_until(lambda: monitor.state.rounds == 2, "the second round")
        assert (monitor.state.fps, monitor.state.gain) == (500.0, None)


def test_a_server_that_answers_garbage_for_ever_is_logged_once(monitor_of, caplog):
    with RepServer(lambda request: b"\xff\xfe{") as server:
        monitor = monitor_of(server.endpoint, period_s=0.005)
        wait_until(lambda: monitor.state.rounds >= 4, "four rounds")
        assert caplog.text.count("no number in the answer") == 1


def test_the_texts_of_the_state():
    state = CameraState(since=1.7e9)
    assert state.text == "not asked yet"
    down = replace(state, rounds=1)
    assert down.text.startswith("no answer since 2023-11-1")
    assert replace(down, last_answer=1.8e9).text.startswith("no answer since 2027-01-1")
    assert replace(down, is_up=True).text == "up"


def test_an_impossible_endpoint_is_no_answer(monitor_of):
    monitor = monitor_of("nonsense")
    wait_until(lambda: monitor.state.rounds, "the first round")
    assert "cannot connect" in monitor.state.reason
    with CameraClient("nonsense", 1.0) as camera, pytest.raises(BackendError, match="cannot connect"):
        camera.fps()
