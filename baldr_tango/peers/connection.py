"""One connection per peer server and process: a thread that owns its DEALER socket.

The peers are ZMQ REP servers. REP returns everything in front of the empty delimiter unchanged, so
each request carries its own number there and each reply is matched with its request: many callers
share the connection, each with its own time-out, and a reply that comes too late is counted and
dropped instead of being taken for the next one. A request that cannot be delivered before its
time-out is never sent: no motor moves because a server came back minutes later.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Final

import zmq

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.endpoint import check_endpoint
from baldr_tango.peers.mailbox import Mailbox

log = logging.getLogger(__name__)

_RECONNECT_MS: Final = (50, 1000)
_HEARTBEAT_MS: Final = (2000, 6000)
_CLOSE_TIMEOUT_S: Final = 2.0


class NoReplyError(BackendError, TimeoutError):
    """The peer did not answer in time."""


@dataclass
class ConnectionCounters:
    """What has happened on a connection since it was opened."""

    requests: int = 0
    replies: int = 0
    timeouts: int = 0
    late_replies: int = 0
    """Replies that came after their request's time-out and were dropped."""


@dataclass
class _Request:
    key: bytes
    payload: bytes
    timeout_s: float
    future: Future[bytes] = field(default_factory=Future)
    is_sent: bool = False

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout_s
        self.future.set_running_or_notify_cancel()


class Connection:
    """Requests to one REP server; safe to use from any thread.

    The thread and its socket start with the first request.
    """

    def __init__(self, endpoint: str, name: str = "peer") -> None:
        self.endpoint = endpoint
        self.name = name
        self._mailbox: Mailbox[_Request] = Mailbox()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._users = 1
        self._counters = ConnectionCounters()
        self._waiting: dict[bytes, _Request] = {}

    @property
    def counters(self) -> ConnectionCounters:
        """A copy of the counters."""
        return replace(self._counters)

    def request(self, payload: bytes, timeout_s: float) -> bytes:
        """Send `payload` and return the reply.

        Raises `NoReplyError` (a `BackendError`) after `timeout_s` seconds, `BackendError` when the
        connection cannot be made at all.
        """
        return self.submit(payload, timeout_s).result()

    def submit(self, payload: bytes, timeout_s: float) -> Future[bytes]:
        """Send `payload` and return at once; the future holds the reply or the error of `request`."""
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise RequestError(f"time-out must be a positive number of seconds, found {timeout_s!r}")
        with self._lock:
            if self._closing:
                raise BackendError(f"{self._peer}: the connection is closed")
            request = _Request(next(self._numbers).to_bytes(8, "big"), payload, timeout_s)
            self._mailbox.put(request)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"peer {self.endpoint}", daemon=True)
                self._thread.start()
        return request.future

    def close(self) -> None:
        """Give up this use of the connection; the last one stops the thread and fails what is waiting."""
        with _registry_lock:
            self._users -= 1
            if self._users > 0:
                return
            if _registry.get(self.endpoint) is self:
                del _registry[self.endpoint]
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is not None:
            self._mailbox.wake()
            thread.join(_CLOSE_TIMEOUT_S)
        self._mailbox.close()

    @property
    def _peer(self) -> str:
        return f"{self.name} at {self.endpoint}"

    def _run(self) -> None:
        try:
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.immediate = True  # keep nothing for a server that is not there
                socket.reconnect_ivl, socket.reconnect_ivl_max = _RECONNECT_MS
                socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS
                check_endpoint(self.endpoint)
                socket.connect(self.endpoint)
                self._serve(socket)
            self._fail(BackendError(f"{self._peer}: the connection was closed"))
        except (zmq.ZMQError, ValueError) as error:
            self._fail(BackendError(f"{self._peer}: cannot connect: {error}"))
        except Exception as error:
            log.exception("connection to %s failed", self._peer)
            self._fail(BackendError(f"{self._peer}: the connection failed: {error!r}"))

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        unsent: deque[_Request] = deque()
        poller = zmq.Poller()
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        while True:
            for request in self._mailbox.take():
                self._waiting[request.key] = request
                self._counters.requests += 1
                unsent.append(request)
            # After `take`, which may have swallowed the wake-up that came with the closing.
            if self._closing:
                return
            self._send(socket, unsent)
            poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if unsent else 0))
            poller.poll(self._milliseconds_left())
            self._receive(socket)
            self._expire()

    def _send(self, socket: zmq.Socket[bytes], unsent: deque[_Request]) -> None:
        while unsent:
            request = unsent[0]
            if request.key in self._waiting:
                try:
                    socket.send_multipart([request.key, b"", request.payload], zmq.NOBLOCK)
                except zmq.Again:
                    return
                request.is_sent = True
            unsent.popleft()

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            request = self._waiting.pop(frames[0], None)
            if request is None:
                self._counters.late_replies += 1
                log.info("%s: dropped a reply that came too late", self._peer)
            else:
                self._counters.replies += 1
                request.future.set_result(frames[-1])

    def _milliseconds_left(self) -> int | None:
        """Time until the next time-out, or None when nobody is waiting."""
        if not self._waiting:
            return None
        left_s = min(request.deadline for request in self._waiting.values()) - time.monotonic()
        return max(0, math.ceil(left_s * 1e3))

    def _expire(self) -> None:
        now = time.monotonic()
        for request in [item for item in self._waiting.values() if item.deadline <= now]:
            del self._waiting[request.key]
            self._counters.timeouts += 1
            what = (
                f"no reply to {_text(request.payload)}"
                if request.is_sent
                else f"not reachable, {_text(request.payload)} was not sent"
            )
            request.future.set_exception(
                NoReplyError(f"{self._peer}: {what} (time-out {request.timeout_s:g} s)")
            )

    def _fail(self, error: BackendError) -> None:
        with self._lock:
            lost = [*self._waiting.values(), *self._mailbox.take()]
            self._waiting.clear()
            # Under the lock: a request that is submitted from now on starts a new thread.
            self._thread = None
        for request in lost:
            request.future.set_exception(error)


_registry: dict[str, Connection] = {}
_registry_lock = threading.Lock()


def connection(endpoint: str, name: str = "peer") -> Connection:
    """Return the process's connection to `endpoint`; each call needs one `Connection.close`."""
    with _registry_lock:
        found = _registry.get(endpoint)
        if found is None:
            found = _registry[endpoint] = Connection(endpoint, name)
        else:
            found._users += 1
        return found


def open_endpoints() -> Iterable[str]:
    """Endpoints with an open connection in this process."""
    with _registry_lock:
        return tuple(_registry)


def _text(payload: bytes, most: int = 60) -> str:
    text = payload.decode("utf-8", "replace")
    return repr(text if len(text) <= most else text[:most] + "...")
