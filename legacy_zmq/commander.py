"""The commander server of one beam: the protocol in front of the door to its commands."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from baldr_tango.errors import BaldrError, RequestError
from baldr_tango.interface.command import Json
from legacy_zmq import protocol
from legacy_zmq.server import Later, ReplyServer


class Door(Protocol):
    """Runs a command by name; ``functools.partial(execute, beam)`` is one."""

    def __call__(self, name: str, args: list[Json], /, *, source: str) -> Json:
        """Run the command; `source` says for the log who asked."""


class CommanderServer(ReplyServer):
    """Answers the commander's requests.

    Parameters
    ----------
    endpoint : where to listen, for instance tcp://127.0.0.1:6662.
    execute : the door.
    waits : tells whether the command of that name runs beside others; it may raise `BaldrError` for
        an unknown one. All other commands run one after the other, in order of arrival.
    reads : tells whether the command of that name only reads, likewise; it is run by the server's own thread.
        Each hand-over to another thread is one more wait for the GIL, which a busy server makes long.
    prepare : called in the server's thread before it listens.
    """

    def __init__(
        self,
        endpoint: str,
        execute: Door,
        *,
        waits: Callable[[str], bool] = lambda name: False,
        reads: Callable[[str], bool] = lambda name: False,
        name: str = "commander",
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(endpoint, self._reply, failure=_failure, name=name, prepare=prepare)
        self._execute = execute
        self._waits = waits
        self._reads = reads

    def _reply(self, payload: bytes, address: str) -> bytes | Later:
        try:
            name, arguments = protocol.parse(payload)
        except RequestError as error:
            return _failure(str(error))
        door = partial(self._execute, source=f"zmq {address}".strip())
        try:
            at_once, beside = self._reads(name), self._waits(name)
        except BaldrError:
            at_once, beside = True, True  # the door will say what is wrong with the name
        if at_once:
            return protocol.run(name, arguments, door).encode()
        return Later(lambda: protocol.run(name, arguments, door).encode(), in_turn=not beside)


def _failure(text: str) -> bytes:
    return protocol.error_reply(text).encode()
