"""The shared connection to a REP server: matching, time-outs, late replies, reconnection."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers import LostConnectionError, PeerState, connection, health
from baldr_tango.peers.connection import open_endpoints
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint, wait_until

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not list(open_endpoints())


@pytest.fixture
def open_connection():
    opened = []

    def make(endpoint):
        opened.append(connection(endpoint, "camera server"))
        return opened[-1]

    yield make
    for item in opened:
        item.close()


def test_each_caller_gets_its_own_reply(open_connection):
    with RepServer(lambda request: b"reply to " + request) as server:
        shared = open_connection(server.endpoint)

        def ask(number):
            return [shared.request(b"%d/%d" % (number, i), TIMEOUT_S) for i in range(20)]

        with ThreadPoolExecutor(8) as pool:
            for number, replies in enumerate(pool.map(ask, range(8))):
                assert replies == [b"reply to %d/%d" % (number, i) for i in range(20)]
        assert shared.counters.requests == shared.counters.replies == 160


def test_many_requests_may_be_in_flight(open_connection):
    with RepServer(lambda request: request.upper()) as server:
        shared = open_connection(server.endpoint)
        futures = [shared.submit(b"r%d" % i, TIMEOUT_S) for i in range(100)]
        assert [future.result() for future in futures] == [b"R%d" % i for i in range(100)]


def test_a_late_reply_is_dropped_and_not_taken_for_the_next_one(open_connection):
    may_answer = threading.Event()

    def answer(request):
        assert request != b"slow" or may_answer.wait(TIMEOUT_S)
        return b"reply to " + request

    with RepServer(answer) as server:
        shared = open_connection(server.endpoint)
        with pytest.raises(BackendError, match=r"camera server at tcp://.*no reply to 'slow'.*0\.1 s"):
            shared.request(b"slow", 0.1)
        next_one = shared.submit(b"next", TIMEOUT_S)
        may_answer.set()
        assert next_one.result() == b"reply to next"
        assert shared.counters.timeouts == 1
        assert shared.counters.late_replies == 1


def test_a_caller_waits_for_its_own_time_out_only(open_connection):
    hold = threading.Event()
    with RepServer(lambda request: (hold.wait(TIMEOUT_S), request)[1]) as server:
        shared = open_connection(server.endpoint)
        patient = shared.submit(b"patient", TIMEOUT_S)
        with pytest.raises(TimeoutError):
            shared.request(b"hasty", 0.05)
        assert not patient.done()
        hold.set()
        assert patient.result() == b"patient"


def test_an_absent_server_costs_the_time_out_and_the_error_says_that_nothing_was_sent(open_connection):
    endpoint = silent_endpoint()
    shared = open_connection(endpoint)
    begun = time.monotonic()
    with pytest.raises(BackendError, match=f"{endpoint}: not reachable, 'gain' was not sent"):
        shared.request(b"gain", 0.2)
    assert time.monotonic() - begun >= 0.2


def test_what_was_not_sent_in_time_is_never_sent(open_connection):
    endpoint = silent_endpoint()
    shared = open_connection(endpoint)
    with pytest.raises(BackendError, match="was not sent"):
        shared.request(b"moverel BMX1 200.0", 0.1)
    with RepServer(lambda request: request, endpoint) as server:
        assert shared.request(b"now", TIMEOUT_S) == b"now"
        assert server.requests == [b"now"]


def test_a_server_that_comes_back_is_found_again(open_connection):
    with RepServer(lambda request: b"first") as server:
        endpoint = server.endpoint
        shared = open_connection(endpoint)
        assert shared.request(b"a", TIMEOUT_S) == b"first"
    with pytest.raises(BackendError, match=endpoint):
        shared.request(b"b", 0.1)
    with RepServer(lambda request: b"second", endpoint):
        assert shared.request(b"c", TIMEOUT_S) == b"second"


def test_a_connection_is_shared_and_the_last_user_closes_it():
    with RepServer(lambda request: request) as server:
        first = connection(server.endpoint, "MDS")
        second = connection(server.endpoint, "MDS")
        assert first is second
        first.close()
        assert second.request(b"still", TIMEOUT_S) == b"still"
        second.close()
        with pytest.raises(BackendError, match="closed"):
            second.request(b"gone", TIMEOUT_S)


def test_closing_fails_the_requests_that_wait():
    hold = threading.Event()
    with RepServer(lambda request: (hold.wait(TIMEOUT_S), request)[1]) as server:
        shared = connection(server.endpoint)
        waiting = shared.submit(b"long", TIMEOUT_S)
        wait_until(lambda: server.requests, "the server has the request")
        shared.close()
        with pytest.raises(BackendError, match="closed"):
            waiting.result(TIMEOUT_S)
        hold.set()


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:99999", "tcp://"])
def test_an_impossible_endpoint_is_an_error_each_time(open_connection, endpoint):
    shared = open_connection(endpoint)
    for _ in range(2):
        with pytest.raises(BackendError, match="cannot connect"):
            shared.request(b"x", TIMEOUT_S)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_out_is_a_positive_number(open_connection, timeout_s):
    with pytest.raises(RequestError, match="time-out"):
        open_connection(silent_endpoint()).submit(b"x", timeout_s)


def test_a_callback_gets_the_future_in_a_thread_that_holds_up_no_reply(open_connection):
    go, seen = threading.Event(), []

    def slow_callback(future):
        assert go.wait(TIMEOUT_S)
        seen.append((future.result(), threading.current_thread().name))

    with RepServer(lambda request: request.upper()) as server:
        shared = open_connection(server.endpoint)
        shared.submit(b"a", TIMEOUT_S, callback=slow_callback)
        shared.submit(b"b", TIMEOUT_S, callback=slow_callback)
        assert shared.request(b"c", TIMEOUT_S) == b"C"
        assert not seen
        go.set()
        wait_until(lambda: len(seen) == 2, "both callbacks")
        thread = f"callbacks of {server.endpoint}"
        assert seen == [(b"A", thread), (b"B", thread)]


def test_a_failing_callback_takes_nothing_from_the_others(open_connection, caplog):
    seen = []
    with RepServer(lambda request: request) as server:
        shared = open_connection(server.endpoint)
        shared.submit(b"1", TIMEOUT_S, callback=lambda _: 1 / 0)
        shared.submit(b"2", TIMEOUT_S, callback=lambda future: seen.append(future.result()))
        wait_until(lambda: seen == [b"2"], "the second callback")
        assert "ZeroDivisionError" in caplog.text


def test_a_time_out_reaches_the_callback_too(open_connection):
    seen = []
    open_connection(silent_endpoint()).submit(
        b"x", 0.05, callback=lambda future: seen.append(future.exception())
    )
    wait_until(lambda: seen, "the callback")
    assert isinstance(seen[0], TimeoutError)


def test_a_request_of_one_caller_is_in_flight_while_that_of_another_is_unanswered(open_connection):
    """The server answers in order; callers do not wait for each other, each has its own time-out."""
    hold = threading.Event()

    def answer(request):
        assert request != b"beam 1" or hold.wait(TIMEOUT_S)
        return request

    with RepServer(answer) as server:
        shared = open_connection(server.endpoint)
        one = shared.submit(b"beam 1", TIMEOUT_S)
        wait_until(lambda: server.requests == [b"beam 1"], "beam 1's request at the server")
        two = shared.submit(b"beam 2", TIMEOUT_S)
        wait_until(lambda: shared.counters.sent == 2, "both on their way")
        assert shared.health.waiting == 2
        assert not one.done()
        assert not two.done()
        hold.set()
        assert two.result(TIMEOUT_S) == b"beam 2"
        assert one.result(TIMEOUT_S) == b"beam 1"


def test_a_request_that_waits_for_an_absent_server_can_be_taken_back(open_connection):
    endpoint = silent_endpoint()
    shared = open_connection(endpoint)
    move = shared.submit(b"moverel BMX1 200.0", TIMEOUT_S)
    assert move.cancel()
    with RepServer(lambda request: request, endpoint) as server:
        assert shared.request(b"now", TIMEOUT_S) == b"now"
        assert server.requests == [b"now"]
    assert shared.counters.cancelled == 1


def router(context):
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return socket, f"tcp://127.0.0.1:{port}"


def test_a_peer_may_report_progress_before_it_answers(open_connection):
    with zmq.Context() as context:
        socket, endpoint = router(context)
        with socket:
            seen = []

            def is_progress(reply):
                seen.append(reply)
                return reply.startswith(b"%")

            sweep = open_connection(endpoint).submit(b"sweep", TIMEOUT_S, is_progress=is_progress)
            client, key, _, request = socket.recv_multipart()
            assert request == b"sweep"
            for word in (b"%30", b"%60", b"data"):
                socket.send_multipart([client, key, b"", word])
            assert sweep.result(TIMEOUT_S) == b"data"
            assert seen == [b"%30", b"%60", b"data"]


def test_a_connection_that_breaks_releases_who_waits_at_once(open_connection):
    """Not only after the time-out: the reply is lost with the connection."""
    with zmq.Context() as context:
        socket, endpoint = router(context)
        shared = open_connection(endpoint)
        first = shared.submit(b"first", TIMEOUT_S * 50)
        second = shared.submit(b"second", TIMEOUT_S * 50)
        socket.recv_multipart()
        socket.recv_multipart()
        socket.close()
        for future in (first, second):
            with pytest.raises(LostConnectionError, match="it may have been carried out"):
                future.result(TIMEOUT_S)
        assert shared.counters.lost == 2
        assert shared.counters.timeouts == 0


def test_health_of_a_peer_that_is_absent_comes_goes_and_comes_back(open_connection):
    endpoint = silent_endpoint()
    shared = open_connection(endpoint)
    states = []
    shared.on_state.append(lambda now: states.append(now.state))
    assert shared.health.state is PeerState.UNUSED
    with pytest.raises(BackendError):
        shared.request(b"a", 0.2)
    assert shared.health.state is PeerState.DOWN
    for _ in range(2):
        with RepServer(lambda request: request, endpoint):
            assert shared.request(b"b", TIMEOUT_S) == b"b"
            assert shared.health.state is PeerState.UP
        wait_until(lambda: shared.health.state is PeerState.DOWN, "the server's end")
    assert shared.counters.reconnects == 1
    down, up = PeerState.DOWN, PeerState.UP
    assert states == [PeerState.CONNECTING, down, up, down, up, down]
    assert [item.endpoint for item in health()] == [endpoint]


def test_attempts_to_connect_become_rarer_up_to_a_bound(open_connection):
    shared = open_connection(silent_endpoint())
    shared.submit(b"x", TIMEOUT_S)
    pauses = []

    def seen():
        pause = shared.health.retry_s
        if pause and (not pauses or pause != pauses[-1]):
            pauses.append(pause)
        return pauses and pauses[-1] >= 0.9

    wait_until(seen, "the longest pause")
    assert pauses == sorted(pauses)
    assert len(pauses) >= 3
    assert max(pauses) <= 1.0


def test_a_peer_that_does_not_answer_is_silent_until_its_late_reply(open_connection):
    hold = threading.Event()
    with RepServer(lambda request: (hold.wait(TIMEOUT_S), request)[1]) as server:
        shared = open_connection(server.endpoint)
        with pytest.raises(TimeoutError):
            shared.request(b"slow", 0.1)
        now = shared.health
        assert now.state is PeerState.SILENT
        assert "slow" in now.reason
        assert now.last_reply is None
        hold.set()
        wait_until(lambda: shared.health.state is PeerState.UP, "the late reply")
        assert shared.counters.late_replies == 1
        assert shared.health.last_reply >= now.since


def test_who_listens_sees_each_exchange_and_may_fail(open_connection, caplog):
    seen = []
    with RepServer(lambda request: request.upper()) as server:
        shared = open_connection(server.endpoint)
        shared.on_exchange.append(lambda request, reply: 1 / 0)
        shared.on_exchange.append(lambda request, reply: seen.append((request, reply)))
        assert shared.request(b"a", TIMEOUT_S) == b"A"
        assert shared.request(b"b", TIMEOUT_S) == b"B"
        wait_until(lambda: len(seen) == 2, "both exchanges")
    with pytest.raises(BackendError):
        shared.request(b"c", 0.1)
    wait_until(lambda: len(seen) == 3, "the request without a reply")
    assert seen == [(b"a", b"A"), (b"b", b"B"), (b"c", None)]
    assert "ZeroDivisionError" in caplog.text


def test_a_connection_may_be_closed_from_its_own_callback():
    with RepServer(lambda request: request) as server:
        shared = connection(server.endpoint)
        closed = threading.Event()
        shared.submit(b"x", TIMEOUT_S).add_done_callback(lambda _: (shared.close(), closed.set()))
        assert closed.wait(TIMEOUT_S)
        with pytest.raises(BackendError, match="closed"):
            shared.submit(b"y", TIMEOUT_S)
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("peer")], "its thread's end"
    )
