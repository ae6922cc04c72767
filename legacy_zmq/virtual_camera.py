"""Stand-in of the camera server: its commander protocol, acting on the virtual instrument."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from baldr_tango.errors import RequestError
from legacy_zmq import protocol

_PROMPT: Final = "\r\nfli-cli>"
_MAX_RATE_HZ: Final = 10000.0
_MAX_GAIN: Final = 100


class VirtualDetector(Protocol):
    """What the camera server commands of the virtual instrument."""

    @property
    def rate_hz(self) -> float:
        """Frame rate [Hz]."""

    @property
    def gain(self) -> float:
        """Detector gain."""

    @property
    def silent(self) -> bool:
        """True while no frames are written."""

    def set_rate(self, hz: float) -> None:
        """Change the frame rate [Hz]."""

    def set_gain(self, gain: float) -> None:
        """Change the gain."""

    def set_silent(self, silent: bool) -> None:
        """Stop or resume writing frames."""


class VirtualCamera:
    """Answers camera-server requests; every answer is quick."""

    def __init__(self, detector: VirtualDetector) -> None:
        self._detector = detector
        self._settings: dict[str, str] = {"nbreadworeset": "2", "mode": "globalresetcds", "cropping": "on"}
        self._commands: dict[str, Callable[..., Any]] = {
            "status": self._status,
            "fetch": lambda: detector.set_silent(False),
            "stop": lambda: detector.set_silent(True),
            # The ROI streams begin to tick with split mode and never stop by themselves.
            "split_mode": lambda on: detector.set_silent(int(on) <= 0),
            "get_fps": lambda: float(detector.rate_hz),
            "set_fps": lambda hz: detector.set_rate(_number("frame rate", hz, _MAX_RATE_HZ)),
            "get_gain": lambda: round(detector.gain),
            "set_gain": lambda gain: detector.set_gain(_number("gain", gain, _MAX_GAIN)),
            "get_det_temp": lambda: 83.0,
            "get_water_temp": lambda: 18.0,
            "cli": self._cli,
            "ndmr_mode": lambda reads: self._settings.update(nbreadworeset=str(int(reads))),
            **dict.fromkeys(
                ("crop_mode", "save_mode", "skip_save_baldr", "make_dark", "subtract_dark", "cam_conf"),
                lambda *_: None,
            ),
        }

    def answer(self, payload: bytes, source: str = "") -> bytes:
        """Answer one request; void commands answer ``null``."""
        return protocol.reply(payload, self._execute).encode()

    def _execute(self, name: str, arguments: list[Any]) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise RequestError(f"unknown camera command {name!r}; known: {', '.join(sorted(self._commands))}")
        try:
            return command(*arguments)
        except (TypeError, ValueError) as error:
            raise RequestError(f"{name}: {error}") from None

    def _status(self, *_: Any) -> str:
        return "idle" if self._detector.silent else "running"

    def _cli(self, text: Any, *_: Any) -> str:
        """Answer as the camera's command line does: the value, an empty line, the prompt."""
        if not isinstance(text, str):
            raise RequestError(f"cli: expected one string, found {text!r}")
        words = text.split()
        raw = words[-1:] == ["raw"]
        match words[:-1] if raw else words:
            case ["fps"]:
                return _show("Frames per second", f"{self._detector.rate_hz:.3f}", raw)
            case ["gain"]:
                return _show("Gain", f"{self._detector.gain:g}", raw)
            case [name] if name in self._settings:
                return _show(name, self._settings[name], raw)
            case ["set", "fps", value]:
                self._detector.set_rate(_number("frame rate", value, _MAX_RATE_HZ))
            case ["set", "gain", value]:
                self._detector.set_gain(_number("gain", value, _MAX_GAIN))
            case ["set", name, value] if re.fullmatch(r"\w+", name):
                self._settings[name] = value
            case _:
                return f"Result:Error, unknown command {text!r}{_PROMPT}"
        return f"Result:OK{_PROMPT}"


def _show(label: str, value: str, raw: bool) -> str:
    return f"  {value}{_PROMPT}" if raw else f"{label}: {value}{_PROMPT}"


def _number(what: str, value: Any, most: float) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 < number <= most):
        raise RequestError(f"{what}: found {value!r}, expected a number above 0, up to {most:g}")
    return number
