"""How a peer server is doing: what was counted, and whether it answers."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any


class PeerState(enum.Enum):
    """What is known of a peer server."""

    UNUSED = "unused"
    """Nothing has been asked yet."""
    CONNECTING = "connecting"
    """The first attempt to connect is under way."""
    UP = "up"
    """Connected, and the newest request that is settled was answered."""
    SILENT = "silent"
    """Connected, but the newest request that is settled was not answered in time."""
    DOWN = "down"
    """There is no connection; attempts go on."""


@dataclass
class ConnectionCounters:
    """What has happened on a connection since it was opened."""

    requests: int = 0
    """Requests handed in."""
    sent: int = 0
    replies: int = 0
    """Requests answered in time."""
    timeouts: int = 0
    """Requests without a reply in time, sent or not."""
    late_replies: int = 0
    """Replies that came after their request's time-out and were dropped."""
    lost: int = 0
    """Requests that were sent and whose connection broke before the reply."""
    cancelled: int = 0
    """Requests taken back before they were sent."""
    progress: int = 0
    """Reports of progress that came before the reply."""
    reconnects: int = 0
    """Connections made after the first one."""


@dataclass(frozen=True)
class Health:
    """A peer at one moment."""

    endpoint: str
    name: str
    state: PeerState = PeerState.UNUSED
    since: float = 0.0
    """Time at which this state began [s since 1970]."""
    last_reply: float | None = None
    """Time of the newest reply, late ones included [s since 1970]."""
    retry_s: float = 0.0
    """Pause before the next attempt to connect [s]; 0 unless `state` is DOWN."""
    reason: str = ""
    """Why the state is not UP."""
    waiting: int = 0
    """Requests without a reply yet."""
    counters: ConnectionCounters = field(default_factory=ConnectionCounters)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and texts, for JSON."""
        return {**asdict(self), "state": self.state.value}


class HealthRecord:
    """Keeps a peer's health up to date; written by the connection's thread only.

    Parameters
    ----------
    endpoint, name : of the peer.
    clock : time [s since 1970].
    """

    def __init__(self, endpoint: str, name: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._has_connected = False
        self._now = Health(endpoint, name, since=clock())
        self.counters = ConnectionCounters()

    def present(self, waiting: int = 0) -> Health:
        """A copy that does not change any more."""
        return replace(self._now, waiting=waiting, counters=replace(self.counters))

    @property
    def is_connected(self) -> bool:
        """True from a connection to its end."""
        return self._now.state in (PeerState.UP, PeerState.SILENT)

    def connecting(self) -> None:
        """The first attempt begins."""
        self._enter(PeerState.CONNECTING)

    def connected(self) -> None:
        """A connection is made."""
        if not self.is_connected:
            self.counters.reconnects += self._has_connected
            self._has_connected = True
            self._enter(PeerState.UP)

    def disconnected(self, reason: str) -> None:
        """The connection broke, or an attempt to connect failed."""
        self._enter(PeerState.DOWN, reason)

    def retrying(self, pause_s: float) -> None:
        """An attempt to connect failed; the next one comes after a pause."""
        if not self.is_connected:
            self._enter(PeerState.DOWN, self._now.reason or "nobody answers at this address")
            self._now = replace(self._now, retry_s=pause_s)

    def answered(self) -> None:
        """A reply came, in time or not."""
        self.connected()
        self._now = replace(self._now, last_reply=self._clock())
        self._enter(PeerState.UP)

    def unanswered(self, reason: str) -> None:
        """A request that was sent got no reply in time."""
        if self.is_connected:
            self._enter(PeerState.SILENT, reason)

    def _enter(self, state: PeerState, reason: str = "") -> None:
        if state != self._now.state:
            self._now = replace(self._now, state=state, since=self._clock(), retry_s=0.0)
        self._now = replace(self._now, reason=reason)
