"""The commander server, seen by plain ZMQ clients."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from baldr_tango.errors import BackendError, RequestError
from legacy_zmq import CommanderServer, Later, ReplyServer
from tests.system.zmq_servers import TIMEOUT_S, wait_until

pytestmark = pytest.mark.system

MILLISECONDS = int(TIMEOUT_S * 1e3)


class Instrument:
    """A door with a command that lasts as long as the test wants."""

    def __init__(self):
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.calls = []
        self.threads = {}

    def execute(self, name, args, *, source):
        self.calls.append((name, source))
        self.threads[name] = threading.current_thread().name
        if name in ("slow", "slow_beside"):
            self.begun.set()
            assert self.may_end.wait(TIMEOUT_S)
        elif name == "exit":
            return "Exiting!"
        elif name == "fail":
            raise ZeroDivisionError("unforeseen")
        elif name == "leave":
            raise SystemExit(3)
        elif name not in ("status", "number", "quick"):
            raise RequestError(f"unknown command {name!r}")
        return {"name": name, "args": args}

    @staticmethod
    def waits(name):
        if name.startswith("__"):
            raise RequestError("unknown")
        return name in ("status", "slow_beside")

    @staticmethod
    def reads(name):
        return not Instrument.waits(name) and name == "number"


@pytest.fixture
def instrument():
    return Instrument()


@pytest.fixture
def server(instrument):
    with CommanderServer(
        "tcp://127.0.0.1:0", instrument.execute, waits=Instrument.waits, reads=Instrument.reads
    ) as server:
        yield server
        instrument.may_end.set()


@pytest.fixture
def connect(server):
    """Make a client socket of a given kind."""
    with zmq.Context() as context:
        sockets = []

        def make(kind=zmq.REQ):
            socket = context.socket(kind)
            sockets.append(socket)
            socket.linger = 0
            socket.rcvtimeo = socket.sndtimeo = MILLISECONDS
            socket.sndhwm = socket.rcvhwm = 0
            socket.connect(server.endpoint)
            return socket

        yield make
        for socket in sockets:
            socket.close()


def ask(socket, request):
    socket.send(request if isinstance(request, bytes) else request.encode())
    return socket.recv()


def test_a_req_client_is_answered(connect):
    assert json.loads(ask(connect(), "number 2,3")) == {"name": "number", "args": [2, 3]}


def test_the_door_is_told_who_asks(connect, instrument):
    ask(connect(), "status")
    assert instrument.calls == [("status", "zmq 127.0.0.1")]


def test_the_reply_has_no_nul_and_no_newline(connect):
    assert ask(connect(), b"quick\0") == b'{"args":[],"name":"quick"}'


@pytest.mark.parametrize(
    "junk",
    [b"", b"\0", b"__ping__", b"\xff\xfe\x00", b"{" * 5000, b"cmd x", b"cmd " + b"[" * 100_000, b"fail"],
)
def test_junk_gets_an_error_reply_and_the_server_lives_on(connect, junk):
    client = connect()
    answer = json.loads(ask(client, junk))
    assert answer["ok"] is False
    assert answer["error"]
    assert json.loads(ask(client, "status"))["name"] == "status"


def test_a_command_that_leaves_its_thread_is_answered(connect):
    client = connect()
    assert "SystemExit" in json.loads(ask(client, "leave"))["error"]
    assert json.loads(ask(client, "quick"))["name"] == "quick"


def test_a_message_of_more_than_1_mib_is_refused(connect):
    client = connect()
    answer = json.loads(ask(client, b"status " + b" " * (3 << 20)))
    assert answer["ok"] is False
    assert "too long" in answer["error"]
    assert json.loads(ask(client, "status"))["name"] == "status"


def test_of_a_message_in_parts_the_last_one_counts(connect):
    client = connect()
    client.send_multipart([b"junk", b"number 1"])
    assert json.loads(client.recv()) == {"name": "number", "args": [1]}


@pytest.mark.parametrize("slow", ["slow", "slow_beside"])
def test_others_are_answered_while_a_slow_command_runs(connect, instrument, slow):
    operator, poller, pinger = connect(), connect(), connect()
    operator.send(slow.encode())
    assert instrument.begun.wait(TIMEOUT_S)
    for _ in range(20):
        assert json.loads(ask(poller, "status"))["name"] == "status"
        assert json.loads(ask(pinger, "__ping__"))["ok"] is False
        assert json.loads(ask(pinger, "exit ["))["ok"] is False
    instrument.may_end.set()
    assert json.loads(operator.recv())["name"] == slow


def test_a_command_that_waits_does_not_hold_up_the_ordered_ones(connect, instrument):
    operator, other = connect(), connect()
    operator.send(b"slow_beside")
    assert instrument.begun.wait(TIMEOUT_S)
    assert json.loads(ask(other, "quick"))["name"] == "quick"
    instrument.may_end.set()
    assert json.loads(operator.recv())["name"] == "slow_beside"


def test_what_only_reads_is_answered_without_another_thread(connect, instrument, server):
    client = connect()
    for request in ("number 1", "__ping__", "status", "quick"):
        ask(client, request)
    threads = instrument.threads
    assert threads["number"] == threads["__ping__"] == server.name
    assert server.name not in (threads["status"], threads["quick"])


def test_exclusive_commands_of_all_clients_run_in_order_of_arrival(connect, instrument, server):
    first, second = connect(), connect()
    first.send(b"slow")
    assert instrument.begun.wait(TIMEOUT_S)
    second.send(b"quick")
    assert not second.poll(100)
    instrument.may_end.set()
    assert json.loads(first.recv())["name"] == "slow"
    assert json.loads(second.recv())["name"] == "quick"
    assert [name for name, _ in instrument.calls] == ["slow", "quick"]


def test_a_dealer_gets_its_envelope_back_and_its_replies_in_order(connect):
    client = connect(zmq.DEALER)
    for number in range(50):
        # Quick, beside, refused at once: the lanes differ, the order does not.
        request = [b"number %d", b"status %d", b"exit [%d"][number % 3] % number
        client.send_multipart([b"id", b"%d" % number, b"", request])
    replies = [client.recv_multipart() for _ in range(50)]
    assert [frames[:3] for frames in replies] == [[b"id", b"%d" % number, b""] for number in range(50)]
    assert json.loads(replies[-1][3])["args"] == [49]


def test_a_dealer_without_delimiter_is_answered_without_one(connect):
    client = connect(zmq.DEALER)
    client.send(b"number 4")
    assert json.loads(client.recv()) == {"name": "number", "args": [4]}


def test_a_client_that_vanished_does_no_harm(connect, instrument):
    gone = connect()
    gone.send(b"slow")
    assert instrument.begun.wait(TIMEOUT_S)
    gone.close()
    other = connect()
    assert json.loads(ask(other, "status"))["name"] == "status"
    instrument.may_end.set()
    assert json.loads(ask(other, "quick"))["name"] == "quick"


def test_many_clients_at_once_each_get_their_own_replies(server):
    def poll(client_number):
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.rcvtimeo = MILLISECONDS
            socket.connect(server.endpoint)
            return [json.loads(ask(socket, f"number {client_number},{i}"))["args"] for i in range(30)]

    with ThreadPoolExecutor(8) as pool:
        for number, replies in enumerate(pool.map(poll, range(8))):
            assert replies == [[number, i] for i in range(30)]


def test_exit_is_answered_even_when_the_server_is_stopped_by_it():
    stopper = []

    def execute(name, args, *, source):
        stopper.append(threading.Thread(target=server.stop))
        stopper[0].start()
        wait_until(server._stopping.is_set, "the server is stopping")
        return "Exiting!"

    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger = 0
        client.rcvtimeo = MILLISECONDS
        server = CommanderServer("tcp://127.0.0.1:0", execute)
        server.start()
        client.connect(server.endpoint)
        assert ask(client, "exit") == b"Exiting!"
        stopper[0].join(TIMEOUT_S)
        assert not server.is_running


def test_stop_refuses_what_is_still_running_and_is_bounded(instrument):
    before = set(threading.enumerate())
    server = CommanderServer("tcp://127.0.0.1:0", instrument.execute)
    server.start()
    with zmq.Context() as context, context.socket(zmq.REQ) as client:
        client.linger = 0
        client.rcvtimeo = MILLISECONDS
        client.connect(server.endpoint)
        client.send(b"slow")
        assert instrument.begun.wait(TIMEOUT_S)
        server.stop(timeout_s=1.0)
        assert not server.is_running
        assert "stopping" in json.loads(client.recv())["error"]
    instrument.may_end.set()
    wait_until(lambda: set(threading.enumerate()) <= before, "no thread of the server is left")


def test_no_thread_is_left_and_the_endpoint_is_free_again(instrument):
    before = set(threading.enumerate())
    with CommanderServer("tcp://127.0.0.1:0", instrument.execute) as first:
        endpoint = first.endpoint
        with zmq.Context() as context, context.socket(zmq.REQ) as client:
            client.linger = 0
            client.rcvtimeo = MILLISECONDS
            client.connect(endpoint)
            ask(client, "quick")
    assert set(threading.enumerate()) <= before
    with CommanderServer(endpoint, instrument.execute) as second:
        assert second.endpoint == endpoint


def test_an_endpoint_in_use_is_an_error_that_names_it(server, instrument):
    with pytest.raises(BackendError, match=f"{server.endpoint}.*in use"):
        CommanderServer(server.endpoint, instrument.execute).start()


@pytest.mark.parametrize("endpoint", ["", "nonsense", "tcp://127.0.0.1:99999", "tcp://256.0.0.1:0"])
def test_an_impossible_endpoint_is_an_error(endpoint, instrument):
    with pytest.raises(BackendError, match="cannot listen"):
        CommanderServer(endpoint, instrument.execute).start()


def test_an_error_in_answering_is_logged_and_answered(caplog):
    def answer(payload, source):
        if payload == b"later":
            return Later(lambda: 1 // 0)
        raise ValueError("inline")

    with (
        ReplyServer("tcp://127.0.0.1:0", answer, failure=lambda text: text.encode(), name="odd") as server,
        zmq.Context() as context,
        context.socket(zmq.REQ) as client,
    ):
        client.linger = 0
        client.rcvtimeo = MILLISECONDS
        client.connect(server.endpoint)
        assert ask(client, b"now") == b"ValueError: inline"
        assert ask(client, b"later") == b"ZeroDivisionError: integer division or modulo by zero"
    assert "error in answering b'now'" in caplog.text


def test_a_flood_of_requests_is_answered_completely(connect):
    client = connect(zmq.DEALER)
    for number in range(3000):
        client.send_multipart([b"%d" % number, b"", b"status"])
    numbers = {int(client.recv_multipart()[0]) for _ in range(3000)}
    assert numbers == set(range(3000))
