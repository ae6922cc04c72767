"""Stand-in of the DM server: its commander protocol, acting on the mirrors of the virtual instrument."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from baldr_tango.errors import BaldrError, RequestError
from legacy_zmq import protocol

_ALL_CHANNELS: Final = -1


class VirtualMirrors(Protocol):
    """What the DM server commands of the virtual instrument."""

    @property
    def beams(self) -> Sequence[int]:
        """Beams that are served; mirror n is that of beam n."""

    @property
    def mirrors(self) -> bool:
        """True while DM channels are summed and applied."""

    @property
    def n_channels(self) -> int:
        """DM channels of each mirror."""

    def set_mirrors(self, on: bool) -> None:
        """Sum and apply the DM channels, or leave the mirrors as they are."""

    def set_channels(self, count: int) -> None:
        """Create all DM channels again."""

    def zero_channel(self, beam: int, channel: int | None = None) -> None:
        """Zero one channel, or all."""


class VirtualDmServer:
    """Answers DM-server requests.

    Parameters
    ----------
    mirrors : of the virtual instrument.
    on_quit : called by ``quit``, which is not answered.
    """

    def __init__(self, mirrors: VirtualMirrors, on_quit: Callable[[], None] = lambda: None) -> None:
        self._mirrors = mirrors
        self._on_quit = on_quit
        self._commands: dict[str, Callable[..., Any]] = {
            "start": lambda: mirrors.set_mirrors(True),
            "stop": lambda: mirrors.set_mirrors(False),
            "status": lambda: "running" if mirrors.mirrors else "idle",
            "get_nch": lambda: mirrors.n_channels,
            "set_nch": lambda count: mirrors.set_channels(_whole("set_nch", count)),
            "reset": self._reset,
        }

    def answer(self, payload: bytes, source: str = "") -> bytes | None:
        """Answer one request; void commands answer ``null``, ``quit`` nothing."""
        if payload.split()[:1] == [b"quit"]:
            self._quit()
            return None
        return protocol.reply(payload, self._execute).encode()

    def _execute(self, name: str, arguments: list[Any]) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise RequestError(
                f"unknown DM command {name!r}; known: {', '.join(sorted(self._commands))}, quit"
            )
        try:
            return command(*arguments)
        except TypeError as error:
            raise RequestError(f"{name}: {error}") from None

    def _reset(self, mirror: Any, channel: Any) -> None:
        """Zero; what does not exist is only printed by the real server, which answers the same."""
        beam, number = _whole("reset", mirror), _whole("reset", channel)
        if beam in self._mirrors.beams and _ALL_CHANNELS <= number < self._mirrors.n_channels:
            self._mirrors.zero_channel(beam, None if number == _ALL_CHANNELS else number)

    def _quit(self) -> None:
        """Clear the mirrors and leave; the streams go with the instrument."""
        try:
            for beam in self._mirrors.beams:
                self._mirrors.zero_channel(beam)
            self._mirrors.set_mirrors(False)
        except BaldrError:
            protocol.log.exception("virtual DM server: quit")
        self._on_quit()


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name}: found {value!r}, expected whole numbers")
    return value
