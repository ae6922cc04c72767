"""The shared connection to a REP server: matching, time-outs, late replies, reconnection."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers import connection
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
