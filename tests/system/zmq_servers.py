"""ZMQ servers for tests: a plain REP server in a thread, and ports on which nobody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import zmq

TIMEOUT_S = 20.0
"""Bound of every wait in a test; reached only when something is broken."""


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds; fail naming `what` when it does not."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"not seen within {TIMEOUT_S} s: {what}"
        threading.Event().wait(0.005)


class RepServer:
    """The server that the peers run: one plain REP socket, one request at a time."""

    def __init__(self, answer: Callable[[bytes], bytes], endpoint: str = "tcp://127.0.0.1:0") -> None:
        self.endpoint = endpoint
        self.requests: list[bytes] = []
        self._answer = answer
        self._stopping = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plain REP server")

    def __enter__(self) -> RepServer:
        self._thread.start()
        assert self._bound.wait(TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.REP) as socket:
            socket.linger = 0
            socket.bind(self.endpoint)
            self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
            self._bound.set()
            while not self._stopping.is_set():
                if socket.poll(10):
                    request = socket.recv()
                    self.requests.append(request)
                    socket.send(self._answer(request))


def silent_endpoint() -> str:
    """Return a TCP endpoint at which nobody listens."""
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        socket.bind("tcp://127.0.0.1:0")
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
