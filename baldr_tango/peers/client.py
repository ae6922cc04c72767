"""What the clients of all peer servers have in common: a shared connection, its time-out and its end."""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, TypeVar

from baldr_tango.peers.connection import connection
from baldr_tango.peers.health import Health

Client = TypeVar("Client", bound="PeerClient")


class PeerClient:
    """Requests to one server; the connection is shared by all clients of the process.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for a reply [s].
    """

    peer: ClassVar[str]
    """What the server is called in errors and in the log."""

    def __init__(self, endpoint: str, timeout_s: float = 1.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.connection = connection(endpoint, self.peer)
        self._is_open = True

    def close(self) -> None:
        """Release the connection."""
        if self._is_open:
            self._is_open = False
            self.connection.close()

    def __enter__(self: Client) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def health(self) -> Health:
        """How the server is doing."""
        return self.connection.health
