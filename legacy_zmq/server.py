"""A ZMQ reply server in which no client waits for another one.

One thread owns a ROUTER socket that speaks the REP envelope, so REQ and DEALER clients cannot tell it
from a REP server. What takes time is done by workers; the requests of one client are answered in
their order, as REP would.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Final, TypeAlias

import zmq

from baldr_tango.errors import BackendError
from baldr_tango.peers.endpoint import check_endpoint
from baldr_tango.peers.mailbox import Mailbox
from baldr_tango.thread_names import show_thread_name
from legacy_zmq.envelope import Request, read_request
from legacy_zmq.workers import Workers

log = logging.getLogger(__name__)

_MAX_FRAME_BYTES: Final = 256 << 20
"""A longer message ends the client's connection; a shorter one is refused with a reply."""
_MAX_WAITING: Final = 1000
_MAX_UNSENT: Final = 10_000
"""Replies kept for a client that does not read them; further ones are dropped."""
_MAX_BESIDE: Final = 32
_BURST: Final = 64
_START_TIMEOUT_S: Final = 5.0
_FLUSH_MS: Final = 200


@dataclass(frozen=True)
class Later:
    """An answer that takes time; a worker thread calls `work`."""

    work: Callable[[], bytes | None]
    in_turn: bool = True
    """One after the other, in order of arrival; False: at once, beside everything else."""


Answer: TypeAlias = Callable[[bytes, str], "bytes | Later | None"]
"""Answers one request (payload, address of the client); None sends no reply."""


@dataclass
class _Client:
    """A client with a request in work."""

    current: Request
    waiting: deque[Request] = field(default_factory=deque)


class ReplyServer:
    """A REP-compatible server.

    Parameters
    ----------
    endpoint : where to listen; TCP port 0 or ``*`` takes a free one.
    answer : called in the server's thread for each request; it must be quick or return `Later`.
    failure : words an error reply; for requests that are too long, and for errors in `answer`.
    name : of the thread, in logs and errors.
    prepare : called in the server's thread before it listens.
    """

    def __init__(
        self,
        endpoint: str,
        answer: Answer,
        *,
        failure: Callable[[str], bytes],
        name: str,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self._prepare = prepare
        self._requested = endpoint
        self._bound = ""
        self._answer = answer
        self._failure = failure
        self._stopping = threading.Event()
        self._clients: dict[bytes, _Client] = {}
        self._in_turn = Workers(name, 1)
        self._beside = Workers(f"{name} beside", _MAX_BESIDE)
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """Where the server listens, with the actual port once it has started."""
        return self._bound or self._requested

    @property
    def is_running(self) -> bool:
        """True while the server's thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Listen and answer; raise `BackendError` naming the endpoint when that is impossible."""
        if self._thread is not None:
            raise BackendError(f"{self.name} at {self.endpoint}: a server is started once")
        bound: Future[str] = Future()
        self._mailbox: Mailbox[tuple[Request, bytes | None]] = Mailbox()
        self._thread = threading.Thread(target=self._run, args=(bound,), name=self.name, daemon=True)
        self._thread.start()
        try:
            self._bound = bound.result(_START_TIMEOUT_S)
        except Exception as error:
            self._thread.join(_START_TIMEOUT_S)
            self._mailbox.close()
            raise BackendError(f"{self.name}: cannot listen at {self._requested}: {error}") from None
        log.info("%s listens at %s", self.name, self._bound)

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send what is answered, refuse what is not, and end the threads within `timeout_s` seconds."""
        if self._thread is None or self._stopping.is_set():
            return
        deadline = time.monotonic() + timeout_s
        self._stopping.set()
        self._mailbox.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        busy = [
            name
            for workers in (self._in_turn, self._beside)
            for name in workers.stop(max(0.0, deadline - time.monotonic()))
        ]
        if busy:
            log.warning("%s: stopped while commands are still running in %s", self.name, ", ".join(busy))
        if not self._thread.is_alive():
            self._mailbox.close()

    def __enter__(self) -> ReplyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, bound: Future[str]) -> None:
        show_thread_name()
        try:
            with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
                socket.linger = _FLUSH_MS
                socket.router_handover = True  # a client that comes back under its own identity is served
                socket.maxmsgsize = _MAX_FRAME_BYTES
                socket.tcp_keepalive = 1
                socket.sndhwm = _MAX_UNSENT
                check_endpoint(self._requested)
                # The threads of the socket exist by now; this concerns only the one that answers.
                self._prepare()
                socket.bind(self._requested)
                bound.set_result(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"))
                self._serve(socket)
                self._take_leave(socket)
        except Exception as error:
            if bound.done():
                log.exception("%s has failed", self.name)
            else:
                bound.set_exception(error)

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        while not self._stopping.is_set():
            try:
                ready = dict(poller.poll())
                # What need not be done is left out: each call hands the interpreter over to other threads.
                if self._mailbox.fileno() in ready:
                    self._send_finished(socket)
                if socket in ready:
                    self._receive(socket)
            except Exception:
                log.exception("%s: error in the server's thread; it goes on", self.name)
                self._stopping.wait(0.05)

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(_BURST):
            request = read_request(socket)
            if request is None:
                return
            client = self._clients.get(request.route[0])
            if client is None:
                self._begin(socket, request)
            elif len(client.waiting) < _MAX_WAITING:
                client.waiting.append(request)
            else:
                self._send(socket, request, self._failure(f"{_MAX_WAITING} requests are waiting already"))

    def _begin(self, socket: zmq.Socket[bytes], request: Request) -> bool:
        """Answer a request or hand it to a worker; return True when it is answered."""
        try:
            if request.refusal:
                answer: bytes | Later | None = self._failure(request.refusal)
            else:
                answer = self._answer(request.payload, request.source)
            if isinstance(answer, Later):
                workers = self._in_turn if answer.in_turn else self._beside
                workers.submit(partial(self._work, request, answer.work))
                self._clients.setdefault(request.route[0], _Client(request)).current = request
                return False
        except Exception as error:
            log.exception("%s: error in answering %r", self.name, request.payload[:80])
            answer = self._failure(f"{type(error).__name__}: {error}")
        self._send(socket, request, answer)
        return True

    def _work(self, request: Request, work: Callable[[], bytes | None]) -> None:
        """Work out an answer, in a worker's thread."""
        try:
            answer = work()
        except BaseException as error:  # SystemExit included: the client must hear of it
            log.exception("%s: error in answering %r", self.name, request.payload[:80])
            answer = self._failure(f"{type(error).__name__}: {error}")
        self._mailbox.put((request, answer))

    def _send_finished(self, socket: zmq.Socket[bytes]) -> None:
        for request, answer in self._mailbox.take():
            self._send(socket, request, answer)
            identity = request.route[0]
            waiting = self._clients[identity].waiting
            while waiting:
                if not self._begin(socket, waiting.popleft()):
                    break
            else:
                del self._clients[identity]

    def _send(self, socket: zmq.Socket[bytes], request: Request, answer: bytes | None) -> None:
        if answer is None:
            return
        try:
            # ROUTER drops the reply when the client has gone.
            socket.send_multipart([*request.route, answer], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            log.warning("%s: reply to %s was not sent: %s", self.name, request.source, error)

    def _take_leave(self, socket: zmq.Socket[bytes]) -> None:
        """Send what is finished, or finishes at once; refuse the rest, read or not."""
        deadline = time.monotonic() + _FLUSH_MS / 1e3
        poller = zmq.Poller()
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        refusal = self._failure(f"{self.name} is stopping")
        unread = iter(partial(read_request, socket), None)
        try:
            for request in [
                *(request for client in self._clients.values() for request in client.waiting),
                *unread,
            ]:
                self._send(socket, request, refusal)
            for client in self._clients.values():
                client.waiting.clear()
            while self._clients and (left_s := deadline - time.monotonic()) > 0:
                poller.poll(math.ceil(left_s * 1e3))
                self._send_finished(socket)
            for client in self._clients.values():
                self._send(socket, client.current, refusal)
        except Exception:
            log.exception("%s: error while stopping", self.name)
