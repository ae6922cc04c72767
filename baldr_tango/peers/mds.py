"""Client of the Multi Device Server (MDS), which moves the motors and switches the lamps."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.client import PeerClient
from baldr_tango.peers.moves import Move, Positions
from baldr_tango.peers.operation import Operation

_LETHAL: Final = {"fpm_readpos": "use 'read BMXn' and 'read BMYn'"}
"""Requests that end the MDS process (it adds a newline to a list)."""


class MdsClient(PeerClient):
    """Requests to the MDS; the connection is shared by all clients of the process.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for a reply [s]. While one motor moves, the MDS may answer nobody.
    """

    peer = "MDS"

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
        return self.connection.submit(
            _payload(text), timeout_s or self.timeout_s, decode=lambda reply: reply.decode("utf-8", "replace")
        ).result()

    def submit(
        self,
        text: str,
        timeout_s: float | None = None,
        *,
        callback: Callable[[Future[str]], object] | None = None,
    ) -> Future[str]:
        """Send a text like `send`, without waiting; see `Connection.submit`."""
        return self.connection.submit(
            _payload(text), timeout_s or self.timeout_s, decode=_without_end, callback=callback
        )

    def send(self, text: str, timeout_s: float | None = None) -> str:
        """Send a text; return the reply without the trailing newline and NUL."""
        return self.submit(text, timeout_s).result()

    def ask(self, text: str, timeout_s: float | None = None) -> str:
        """Send a text; return the reply like `send`, or raise `BackendError` when the MDS refuses."""
        return self.accepted(text, self.send(text, timeout_s))

    def accepted(self, text: str, reply: str) -> str:
        """Return the reply to `text`, or raise `BackendError` when it is a refusal."""
        if reply.startswith("NACK"):
            raise BackendError(f"MDS at {self.endpoint} refused {text!r}: {reply}")
        return reply

    def position(self, axis: str, reply: str) -> float:
        """Return the number in the reply to ``read <axis>``; `BackendError` when there is none."""
        text = f"read {axis}"
        try:
            position = float(self.accepted(text, reply))
        except ValueError:
            position = math.nan
        if not math.isfinite(position):
            raise BackendError(f"MDS at {self.endpoint}: no position in the reply {reply!r} to {text!r}")
        return position

    def move_to(self, axis: str, position: float, **how: Any) -> Operation[Positions]:
        """Move an axis to a position [um for BMXn, BMYn]; see `Move` for `how` and the result."""
        return Move(self, f"moveabs {axis} {_decimal(position)}", {axis: position}, **how).start()

    def move_by(self, axis: str, distance: float, **how: Any) -> Operation[Positions]:
        """Move an axis by a distance [um for BMXn, BMYn]; see `Move` for `how` and the result."""
        return Move(self, f"moverel {axis} {_decimal(distance)}", {axis: distance}, **how).start(
            relative=True
        )

    def move_to_mask(self, beam: int, mask: str, **how: Any) -> Operation[Positions]:
        """Move the phase-mask stage of a beam to a mask by its name; see `Move` for `how` and the result."""
        axes: dict[str, float | None] = {f"BMX{beam}": None, f"BMY{beam}": None}
        return Move(self, f"fpm_movetomask phasemask{beam} {mask}", axes, **how).start()


def _payload(text: str) -> bytes:
    request = text.strip(" \t\r\n\0")
    if not request:
        raise RequestError("empty MDS command; expected for example 'on SBB' or 'read BMX1'")
    word = request.split()[0]
    if word in _LETHAL:
        raise RequestError(f"MDS command {word} would end the MDS; {_LETHAL[word]}")
    if request.startswith("{"):
        request += "\0"
    return request.encode()


def _without_end(reply: bytes) -> str:
    return reply.decode("utf-8", "replace").rstrip(" \r\n\0")


def _decimal(value: float) -> str:
    """Write a number with the decimal point without which the MDS does not recognise it."""
    if not math.isfinite(value):
        raise RequestError(f"position: expected a finite number, found {value!r}")
    return f"{value:.4f}"
