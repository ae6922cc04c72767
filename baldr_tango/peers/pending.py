"""Requests that wait: to be sent, or for their reply. Without sockets and threads."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.health import ConnectionCounters

T = TypeVar("T")


class NoReplyError(BackendError, TimeoutError):
    """The peer did not answer in time."""


class LostConnectionError(BackendError, ConnectionError):
    """The connection broke before the reply came: whether the request was carried out is not known."""


class Request(Generic[T]):
    """One request, its time-out and the future of its reply.

    Parameters
    ----------
    key : unique on its connection; comes back with the reply.
    payload : what the peer gets.
    timeout_s : time from now to the reply at the latest [s].
    decode : makes the result out of the reply; what it raises becomes the future's error.
    is_progress : given each reply, tells whether it only reports progress, the last word being still to come.
    """

    def __init__(
        self,
        key: bytes,
        payload: bytes,
        timeout_s: float,
        decode: Callable[[bytes], T],
        is_progress: Callable[[bytes], bool] | None = None,
    ) -> None:
        if not (math.isfinite(timeout_s) and timeout_s > 0):
            raise RequestError(f"time-out must be a positive number of seconds, found {timeout_s!r}")
        self.key = key
        self.payload = payload
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.future: Future[T] = Future()
        self.is_sent = False
        self._decode = decode
        self._is_progress = is_progress
        self._is_begun = False

    def begin(self) -> bool:
        """From now on the request cannot be taken back; False when it was."""
        if not self._is_begun:
            self._is_begun = self.future.set_running_or_notify_cancel()
        return self._is_begun

    def take(self, reply: bytes) -> bool:
        """Take a reply; False when it only reports progress. What a function raises is the result."""
        try:
            if self._is_progress is not None and self._is_progress(reply):
                return False
            result = self._decode(reply)
        except Exception as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
        return True

    def fail(self, error: BackendError) -> None:
        """Hand over an error instead of a reply, unless the request was taken back."""
        if self.begin():
            self.future.set_exception(error)

    @property
    def text(self) -> str:
        """The payload for people, shortened."""
        text = self.payload.decode("utf-8", "replace")
        return repr(text if len(text) <= 60 else text[:60] + "...")


class PendingRequests:
    """The requests of one connection; used by its thread only.

    Replies are matched by key, so requests may be answered in any order, and one that is not answered
    takes nothing from the others but its own caller's time.
    """

    def __init__(self, peer: str, counters: ConnectionCounters) -> None:
        self._peer = peer
        self._counters = counters
        self._waiting: dict[bytes, Request[Any]] = {}
        self._unsent: deque[Request[Any]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_unsent(self) -> bool:
        """True while something may have to be sent."""
        return bool(self._unsent)

    def add(self, request: Request[Any]) -> None:
        """Take a new request; it is sent after those before it."""
        self._counters.requests += 1
        self._waiting[request.key] = request
        self._unsent.append(request)

    def next_unsent(self) -> Request[Any] | None:
        """The request that is sent next, or None. From now on it cannot be taken back."""
        while self._unsent:
            request = self._unsent[0]
            if request.key in self._waiting:
                if request.begin():
                    return request
                del self._waiting[request.key]
                self._counters.cancelled += 1
            self._unsent.popleft()
        return None

    def mark_sent(self) -> None:
        """The one that `next_unsent` returned is on its way."""
        self._unsent.popleft().is_sent = True
        self._counters.sent += 1

    def answer(self, key: bytes, reply: bytes) -> Request[Any] | None:
        """Settle the request that a reply belongs to; None when nobody waits for it, or not yet settled."""
        request = self._waiting.get(key)
        if request is None:
            self._counters.late_replies += 1
            return None
        if not request.take(reply):
            self._counters.progress += 1
            return None
        del self._waiting[key]
        self._counters.replies += 1
        return request

    def expire(self, now: float) -> list[Request[Any]]:
        """Fail the requests whose time is over; return them.

        now : CLOCK_MONOTONIC [s].
        """
        expired = [request for request in self._waiting.values() if request.deadline <= now]
        for request in expired:
            del self._waiting[request.key]
            if request.future.cancelled():
                self._counters.cancelled += 1
                continue
            self._counters.timeouts += 1
            what = (
                f"no reply to {request.text}"
                if request.is_sent
                else f"not reachable, {request.text} was not sent"
            )
            request.fail(NoReplyError(f"{self._peer}: {what} (time-out {request.timeout_s:g} s)"))
        return expired

    def lose_sent(self) -> list[Request[Any]]:
        """Fail what was sent and not answered: its connection is gone, and the reply with it."""
        sent = [request for request in self._waiting.values() if request.is_sent]
        for request in sent:
            del self._waiting[request.key]
            self._counters.lost += 1
            text = f"the connection broke before the reply to {request.text}; it may have been carried out"
            request.fail(LostConnectionError(f"{self._peer}: {text}"))
        return sent

    def take_all(self) -> list[Request[Any]]:
        """Give up everything that waits; the caller fails it."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        self._unsent.clear()
        return waiting

    def seconds_left(self, now: float) -> float | None:
        """Time to the next time-out [s], or None when nobody waits."""
        if not self._waiting:
            return None
        return max(0.0, min(request.deadline for request in self._waiting.values()) - now)
