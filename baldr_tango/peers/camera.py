"""Client of the camera server: the commander protocol in front of the camera's own command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from baldr_tango.errors import BackendError
from baldr_tango.peers.client import PeerClient

FPS: Final = "fps raw"
GAIN: Final = "gain raw"
NBREADWORESET: Final = "nbreadworeset raw"
"""Questions to the camera's command line, in the form whose answer is a bare number."""

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class CameraClient(PeerClient):
    """Requests to the camera server; the connection is shared by all clients of the process.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for a reply [s]. The real server talks to its camera over a serial line,
        and one ``cli`` exchange takes about a second.
    """

    peer = "camera server"

    def raw(self, request: str, timeout_s: float | None = None) -> str:
        """Send a commander request as it is; return the reply as it is.

        Raises `BackendError` when no reply comes within the time-out.
        """
        reply = self.connection.request(request.encode(), timeout_s or self.timeout_s)
        return reply.decode("utf-8", "replace")

    def cli_raw(self, text: str, timeout_s: float | None = None) -> str:
        """Send a command to the camera's command line; return the server's reply, JSON text as sent."""
        return self.raw(cli_request(text).decode(), timeout_s)

    def cli(self, text: str, timeout_s: float | None = None) -> str:
        """Send a command to the camera's command line; return what the camera printed.

        Raises `BackendError` when the server reports an error or does not answer.
        """
        return self.submit_cli(text, timeout_s).result()

    def submit_cli(
        self,
        text: str,
        timeout_s: float | None = None,
        *,
        callback: Callable[[Future[str]], object] | None = None,
    ) -> Future[str]:
        """Send a command like `cli`, without waiting; see `Connection.submit`."""
        return self.connection.submit(
            cli_request(text),
            timeout_s or self.timeout_s,
            decode=lambda reply: self._answer(text, reply.decode("utf-8", "replace")),
            callback=callback,
        )

    def _answer(self, text: str, reply: str) -> str:
        answer = decode_reply(reply)
        if _is_error(answer):
            raise BackendError(f"camera server at {self.endpoint}: {text!r} failed: {reply.strip()}")
        return answer if isinstance(answer, str) else json.dumps(answer)

    def fps(self) -> float:
        """Ask for the frame rate [Hz]."""
        return self.number(self.cli(FPS), FPS)

    def gain(self) -> float:
        """Ask for the detector gain."""
        return self.number(self.cli(GAIN), GAIN)

    def nbreadworeset(self) -> int:
        """Ask for the number of non-destructive reads between two resets."""
        return round(self.number(self.cli(NBREADWORESET), NBREADWORESET))

    def number(self, answer: str, question: str) -> float:
        """Return the number in the camera's answer; `BackendError` when there is none."""
        try:
            return first_number(answer)
        except ValueError:
            raise BackendError(
                f"camera server at {self.endpoint}: no number in the reply {answer!r} to {question!r}"
            ) from None


def cli_request(text: str) -> bytes:
    """Return the request that passes a text on to the camera's command line."""
    return f"cli {json.dumps(text, ensure_ascii=False)}".encode()


def decode_reply(reply: str) -> Any:
    """Decode a commander reply; text that is not JSON is returned without padding and outer quotes."""
    text = reply.strip(" \t\r\n\0")
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return text.removeprefix('"').removesuffix('"').replace("\\r", "\r").replace("\\n", "\n")


def first_number(text: str) -> float:
    """Return the first number of a camera's answer, such as ``'  1739.356\\r\\nfli-cli>'``.

    Raises `ValueError` when there is none, or when the camera speaks of an error.
    """
    found = _NUMBER.search(text)
    if found is None or "error" in text.lower():
        raise ValueError(f"no number in {text!r}")
    return float(found.group())


def _is_error(answer: Any) -> bool:
    if isinstance(answer, dict):
        return "error" in answer or answer.get("ok") is False
    return isinstance(answer, str) and answer.startswith("Error")
