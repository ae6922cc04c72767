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
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, TypeVar, overload

import zmq
from zmq.utils.monitor import recv_monitor_message

from baldr_tango.errors import BackendError
from baldr_tango.peers.callbacks import CallbackThread
from baldr_tango.peers.endpoint import check_endpoint
from baldr_tango.peers.health import ConnectionCounters, Health, HealthRecord
from baldr_tango.peers.mailbox import Mailbox
from baldr_tango.peers.pending import PendingRequests, Request
from baldr_tango.peers.shared import Shared
from baldr_tango.thread_names import show_thread_name

T = TypeVar("T")
log = logging.getLogger("baldr.peers")

_RECONNECT_MS: Final = (50, 1000)
"""First and longest pause between two attempts to connect; each pause is twice the one before."""

_HEARTBEAT_MS: Final = (2000, 6000)
_CLOSE_TIMEOUT_S: Final = 2.0
_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED


class Connection:
    """Requests to one REP server; safe to use from any thread.

    The thread and its socket start with the first request.
    """

    def __init__(self, endpoint: str, name: str = "peer") -> None:
        self.endpoint = endpoint
        self.name = name
        self.on_state: list[Callable[[Health], None]] = []
        """Called when the peer's state changes, in the connection's thread; must be quick."""
        self.on_exchange: list[Callable[[bytes, bytes | None], None]] = []
        """Called with each request and its reply (None: none came), like `on_state`."""
        self._mailbox: Mailbox[Request[Any]] = Mailbox()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._health = HealthRecord(endpoint, name)
        self._pending = PendingRequests(self._peer, self._health.counters)
        self._callbacks = CallbackThread(f"callbacks of {endpoint}")

    @property
    def counters(self) -> ConnectionCounters:
        """A copy of the counters."""
        return self.health.counters

    @property
    def health(self) -> Health:
        """How the peer is doing."""
        return self._health.present(len(self._pending))

    def request(self, payload: bytes, timeout_s: float) -> bytes:
        """Send `payload` and return the reply.

        Raises `NoReplyError` (a `BackendError`) after `timeout_s` seconds, `BackendError` when the
        connection cannot be made at all, `LostConnectionError` when it breaks before the reply.
        """
        return self.submit(payload, timeout_s).result()

    @overload
    def submit(
        self,
        payload: bytes,
        timeout_s: float,
        *,
        callback: Callable[[Future[bytes]], object] | None = None,
        is_progress: Callable[[bytes], bool] | None = None,
    ) -> Future[bytes]: ...

    @overload
    def submit(
        self,
        payload: bytes,
        timeout_s: float,
        *,
        decode: Callable[[bytes], T],
        callback: Callable[[Future[T]], object] | None = None,
        is_progress: Callable[[bytes], bool] | None = None,
    ) -> Future[T]: ...

    def submit(
        self,
        payload: bytes,
        timeout_s: float,
        *,
        decode: Callable[[bytes], Any] = bytes,
        callback: Callable[[Future[Any]], object] | None = None,
        is_progress: Callable[[bytes], bool] | None = None,
    ) -> Future[Any]:
        """Send `payload` and return at once; the future holds the reply or the error of `request`.

        Parameters
        ----------
        timeout_s : counted from now [s], whatever else waits on this connection.
        decode : makes the result out of the reply; quick, it runs in the connection's thread. What it
            raises becomes the future's error.
        callback : called with the future when it is done, in a thread for callbacks. (The future's own
            ``add_done_callback`` runs in the connection's thread: for what takes no time.)
        is_progress : given each reply, tells whether it only reports progress, for peers that answer
            more than once; runs like `decode`.

        ``cancel`` of the future takes the request back as long as it has not been sent.
        """
        request = Request(next(self._numbers).to_bytes(8, "big"), payload, timeout_s, decode, is_progress)
        if callback is not None:
            request.future.add_done_callback(lambda done: self._callbacks.call(partial(callback, done)))
        with self._lock:
            if self._closing:
                raise BackendError(f"{self._peer}: the connection is closed")
            self._mailbox.put(request)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"peer {self.endpoint}", daemon=True)
                self._thread.start()
        return request.future

    def close(self) -> None:
        """Give up this use of the connection; the last one stops the thread and fails what is waiting."""
        if not _connections.release(self.endpoint, self):
            return
        with self._lock:
            self._closing = True
            thread = self._thread
        if thread is not None:
            self._mailbox.wake()
            if thread is not threading.current_thread():
                thread.join(_CLOSE_TIMEOUT_S)
        self._callbacks.stop(_CLOSE_TIMEOUT_S)
        self._mailbox.close()

    @property
    def _peer(self) -> str:
        return f"{self.name} at {self.endpoint}"

    def _run(self) -> None:
        show_thread_name()
        try:
            self._tell_state(self._health.connecting)
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.immediate = True  # keep nothing for a server that is not there
                socket.reconnect_ivl, socket.reconnect_ivl_max = _RECONNECT_MS
                socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS
                check_endpoint(self.endpoint)
                with socket.get_monitor_socket(_EVENTS) as events:
                    socket.connect(self.endpoint)
                    self._serve(socket, events)
                    socket.disable_monitor()
            self._fail(BackendError(f"{self._peer}: the connection was closed"))
        except (zmq.ZMQError, ValueError) as error:
            self._fail(BackendError(f"{self._peer}: cannot connect: {error}"))
        except Exception as error:
            log.exception("connection to %s failed", self._peer)
            self._fail(BackendError(f"{self._peer}: the connection failed: {error!r}"))

    def _serve(self, socket: zmq.Socket[bytes], events: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(self._mailbox.fileno(), zmq.POLLIN)
        poller.register(events, zmq.POLLIN)
        while True:
            for request in self._mailbox.take():
                self._pending.add(request)
            # After `take`, which may have swallowed the wake-up that came with the closing.
            if self._closing:
                return
            is_held_up = self._send(socket)
            poller.register(socket, zmq.POLLIN | (zmq.POLLOUT if is_held_up else 0))
            left_s = self._pending.seconds_left(time.monotonic())
            # Rounded up: a poll that ends just before a time-out would come round and round.
            poller.poll(None if left_s is None else int(left_s * 1e3) + 1)
            # In this order: what came before the connection broke is still an answer.
            news = _take_events(events)
            self._receive(socket)
            for event, value in news:
                self._note_event(event, value)
            for request in self._pending.expire(time.monotonic()):
                if request.is_sent:
                    self._tell_state(partial(self._health.unanswered, f"no reply to {request.text}"))
                self._tell_exchange(request, None)

    def _send(self, socket: zmq.Socket[bytes]) -> bool:
        """Send what is not sent yet; True when it cannot be sent now."""
        while self._pending.has_unsent:
            # Asked first, so that a request can be taken back until there is somebody to send it to.
            if not socket.poll(0, zmq.POLLOUT):
                return True
            request = self._pending.next_unsent()
            if request is None:
                return False
            try:
                socket.send_multipart([request.key, b"", request.payload], zmq.NOBLOCK)
            except zmq.Again:
                return True
            self._pending.mark_sent()
        return False

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            late = self._health.counters.late_replies
            request = self._pending.answer(frames[0], frames[-1])
            self._tell_state(self._health.answered)
            if request is not None:
                self._tell_exchange(request, frames[-1])
            elif self._health.counters.late_replies > late:
                log.info("%s: dropped a reply that came too late", self._peer)

    def _note_event(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._tell_state(self._health.connected)
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._tell_state(partial(self._health.retrying, value / 1e3))
        elif self._health.is_connected:
            self._tell_state(partial(self._health.disconnected, "the connection broke"))
            for request in self._pending.lose_sent():
                self._tell_exchange(request, None)

    def _tell_state(self, change: Callable[[], None]) -> None:
        """Make a change of the peer's health, and tell it when the state is another one."""
        before = self._health.present()
        change()
        after = self.health
        if after.state != before.state:
            log.debug("%s: %s -> %s %s", self._peer, before.state.value, after.state.value, after.reason)
            for listener in list(self.on_state):
                _call(listener, after)

    def _tell_exchange(self, request: Request[Any], reply: bytes | None) -> None:
        for listener in list(self.on_exchange):
            _call(listener, request.payload, reply)

    def _fail(self, error: BackendError) -> None:
        self._tell_state(partial(self._health.disconnected, str(error)))
        with self._lock:
            for request in self._mailbox.take():
                self._pending.add(request)
            lost = self._pending.take_all()
            # Under the lock: a request that is submitted from now on starts a new thread.
            self._thread = None
        for request in lost:
            request.fail(error)


_connections: Shared[Connection] = Shared()


def connection(endpoint: str, name: str = "peer") -> Connection:
    """Return the process's connection to `endpoint`; each call needs one `Connection.close`."""
    return _connections.acquire(endpoint, lambda: Connection(endpoint, name))


def open_endpoints() -> tuple[str, ...]:
    """Endpoints with an open connection in this process."""
    return tuple(_connections.items())


def health() -> tuple[Health, ...]:
    """How each peer server of this process is doing."""
    return tuple(item.health for item in _connections.items().values())


def _take_events(events: zmq.Socket[bytes]) -> list[tuple[int, int]]:
    """Take what a socket's monitor has noted: event and value."""
    news = []
    while events.poll(0):
        message = recv_monitor_message(events, zmq.NOBLOCK)
        news.append((int(message["event"]), int(message["value"])))
    return news


def _call(listener: Callable[..., None], *arguments: object) -> None:
    try:
        listener(*arguments)
    except Exception:
        log.exception("a listener of a connection failed")
