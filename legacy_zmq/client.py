"""The universal commander client: one text to one endpoint, the reply to standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final

import zmq

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.endpoint import check_endpoint

FIRST_PORT: Final = 6662
"""Commander port of beam 1; beam n has this plus n - 1."""

OK: Final = 0
REFUSED: Final = 1
USAGE: Final = 2
NO_ANSWER: Final = 3


class CommanderClient:
    """Asks one commander server (the RTC's, the camera's, any other) one question at a time.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for a reply [s].
    """

    def __init__(self, endpoint: str, timeout_s: float = 5.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None

    def ask(self, text: str) -> str:
        """Send a request and return the reply.

        Raises
        ------
        RequestError
            When the endpoint cannot be one.
        BackendError
            When no reply comes in time.
        """
        socket = self._socket or self._connect()
        self._socket = None
        # Bytes of the command line that are not UTF-8 are for the server to refuse.
        socket.send(text.encode("utf-8", "surrogateescape"))
        if not socket.poll(round(self.timeout_s * 1e3)):
            # A REQ socket that misses a reply can send no more.
            socket.close()
            raise BackendError(f"{self.endpoint}: no reply to {text[:60]!r} within {self.timeout_s:g} s")
        reply = socket.recv().decode("utf-8", "replace").rstrip("\0")
        self._socket = socket
        return reply

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
        self._context.term()

    def __enter__(self) -> CommanderClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.REQ)
        socket.linger = 0
        try:
            check_endpoint(self.endpoint)
            socket.connect(self.endpoint)
        except (zmq.ZMQError, ValueError) as error:
            socket.close()
            raise RequestError(f"cannot connect to {self.endpoint!r}: {error}") from None
        return socket


def says_ok(reply: str) -> bool:
    """Tell whether a reply reports success: not ``{"ok": false}``, no ``error``, no ``Error`` text."""
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return not reply.lstrip().startswith("Error")
    return not isinstance(value, dict) or (value.get("ok") is not False and not value.get("error"))


def pretty(reply: str) -> str:
    """Lay a JSON reply out over several lines; text within JSON quotes is shown bare."""
    try:
        value = json.loads(reply)
    except (ValueError, RecursionError):
        return reply
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``commander-client``; return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    endpoint = options.endpoint or f"tcp://127.0.0.1:{FIRST_PORT - 1 + (options.beam or 1)}"
    requests: Iterable[str] = [" ".join(options.request)]
    if options.request == ["-"]:
        requests = (line for line in map(str.rstrip, sys.stdin) if line)
    status = OK
    with CommanderClient(endpoint, options.timeout) as client:
        for request in requests:
            try:
                reply = client.ask(request)
            except (BackendError, RequestError) as error:
                sys.stderr.write(f"commander-client: {error}\n")
                return NO_ANSWER if isinstance(error, BackendError) else USAGE
            sys.stdout.write(f"{pretty(reply) if options.pretty else reply}\n")
            sys.stdout.flush()
            if not says_ok(reply):
                status = REFUSED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="commander-client",
        description="Send commander requests and print the replies.",
        epilog="Exit status: 0 success, 1 the reply reports a failure, 2 wrong usage, 3 no answer.",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="ENDPOINT", help="ZMQ endpoint, for instance tcp://mimir:6667")
    where.add_argument(
        "--beam", type=_positive_integer, metavar="N", help="the port of a beam here (default: 1)"
    )
    parser.add_argument(
        "--timeout", type=_positive_number, default=5.0, metavar="S", help="longest wait in seconds"
    )
    parser.add_argument("--pretty", action="store_true", help="lay JSON out over several lines")
    parser.add_argument(
        "request",
        nargs="+",
        help="the request, in one word or several that are joined by blanks; '-' reads lines from"
        " standard input",
    )
    return parser


def _positive_integer(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535 - FIRST_PORT:
        raise ValueError(text)
    return value


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


if __name__ == "__main__":
    sys.exit(main())
