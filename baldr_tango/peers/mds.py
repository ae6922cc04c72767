"""Client of the Multi Device Server (MDS), which moves the motors and switches the lamps."""

from __future__ import annotations

from types import TracebackType
from typing import Final

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.connection import connection

_LETHAL: Final = {"fpm_readpos": "use 'read BMXn' and 'read BMYn'"}
"""Requests that end the MDS process (it adds a newline to a list)."""


class MdsClient:
    """Requests to the MDS; the connection is shared by all clients of the process.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for a reply [s]. The MDS answers a move when it has ended.
    """

    def __init__(self, endpoint: str, timeout_s: float = 1.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._connection = connection(endpoint, "MDS")
        self._is_open = True

    def close(self) -> None:
        """Release the connection."""
        if self._is_open:
            self._is_open = False
            self._connection.close()

    def __enter__(self) -> MdsClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def raw(self, text: str, timeout_s: float | None = None) -> str:
        """Send a text; return the reply as it is, with its newline.

        An ESO command (JSON) is sent with the NUL that the server expects and cuts off.

        Raises
        ------
        RequestError
            For a request that ends the server: an empty one, and those of `_LETHAL`.
        BackendError
            When no reply comes within the time-out.
        """
        request = text.strip(" \t\r\n\0")
        if not request:
            raise RequestError("empty MDS command; expected for example 'on SBB' or 'read BMX1'")
        word = request.split()[0]
        if word in _LETHAL:
            raise RequestError(f"MDS command {word} would end the MDS; {_LETHAL[word]}")
        if request.startswith("{"):
            request += "\0"
        reply = self._connection.request(request.encode(), timeout_s or self.timeout_s)
        return reply.decode("utf-8", "replace")

    def send(self, text: str, timeout_s: float | None = None) -> str:
        """Send a text; return the reply without the trailing newline and NUL."""
        return self.raw(text, timeout_s).rstrip(" \r\n\0")

    def ask(self, text: str, timeout_s: float | None = None) -> str:
        """Send a text; return the reply like `send`, or raise `BackendError` when the MDS refuses."""
        reply = self.send(text, timeout_s)
        if reply.startswith("NACK"):
            raise BackendError(f"MDS at {self.endpoint} refused {text!r}: {reply}")
        return reply
