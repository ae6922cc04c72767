"""Stand-in of the camera server: its commander protocol, acting on the virtual instrument."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from baldr_tango.errors import RequestError
from legacy_zmq import protocol
from legacy_zmq.server import Later

_PROMPT: Final = "\r\nfli-cli>"
_MAX_RATE_HZ: Final = 10000.0
_MAX_GAIN: Final = 100
_MAX_READS: Final = 10000
_SINGLE: Final = "globalresetcds"
_BURST: Final = "globalresetbursts"


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

    def set_reads(self, reads: int) -> None:
        """Reset the detector after so many reads; 1: every frame stands for itself."""

    def set_slopes(self, on: bool) -> None:
        """Send the slope filter of the newest frames, or the frames."""

    def set_saving(self, on: bool) -> None:
        """Write cubes of frames to disk, or end it."""

    def make_dark(self) -> None:
        """Record a dark and subtract it from now on."""

    def set_dark_subtraction(self, on: bool) -> None:
        """Subtract recorded darks or not."""

    def recreate_cameras(self) -> None:
        """Create the camera streams again, as far as the real server's habit is imitated."""


class CameraQuirks(Protocol):
    """Habits of the real camera server, as they are switched at the moment."""

    cli_delay_s: float
    fps_junk: bool


class VirtualCamera:
    """Answers camera-server requests; every answer is quick, unless the quirk of a slow command line is on.

    Parameters
    ----------
    detector : of the virtual instrument.
    quirks : in force; None: none.
    """

    def __init__(self, detector: VirtualDetector, quirks: CameraQuirks | None = None) -> None:
        self._detector = detector
        self._quirks = quirks
        self._fetching = True
        self._split = not detector.silent
        self._save = self._skip_save = False
        self._settings: dict[str, str] = {"nbreadworeset": "2", "mode": _SINGLE, "cropping": "on"}
        self._commands: dict[str, Callable[..., Any]] = {
            "status": self._status,
            "fetch": lambda: self._acquire(fetching=True),
            "stop": lambda: self._acquire(fetching=False),
            "split_mode": lambda on: self._acquire(split=int(on) > 0),
            "crop_mode": self._crop,
            "get_fps": lambda: float(detector.rate_hz),
            "set_fps": lambda hz: detector.set_rate(_number("frame rate", hz, _MAX_RATE_HZ)),
            "get_gain": lambda: round(detector.gain),
            "set_gain": lambda gain: detector.set_gain(_number("gain", gain, _MAX_GAIN)),
            "get_det_temp": lambda: 83.0,
            "get_water_temp": lambda: 18.0,
            "cli": self._cli,
            "ndmr_mode": self._ndmr,
            "save_mode": lambda on: self._saving(save=int(on) > 0),
            "skip_save_baldr": lambda on: self._saving(skip=int(on) > 0),
            "make_dark": detector.make_dark,
            "subtract_dark": lambda on: detector.set_dark_subtraction(int(on) > 0),
            "cam_conf": lambda *_: None,
        }

    def answer(self, payload: bytes, source: str = "") -> bytes | Later | None:
        """Answer one request; void commands answer ``null``, ``quit`` nothing."""
        if payload.split()[:1] == [b"quit"]:
            # The real server ends; here the streams stay, as after a crash, and `fetch` starts again.
            self._acquire(fetching=False)
            return None
        delay_s = self._quirks.cli_delay_s if self._quirks else 0.0
        if delay_s <= 0.0:
            return self._reply(payload)
        # The real server is at one command at a time: whoever asks now waits for the serial line.
        is_cli = payload.split()[:1] == [b"cli"]

        def work() -> bytes:
            if is_cli:
                time.sleep(delay_s)
            return self._reply(payload)

        return Later(work)

    def _reply(self, payload: bytes) -> bytes:
        return protocol.reply(payload, self._execute).encode()

    def _acquire(self, fetching: bool | None = None, split: bool | None = None) -> None:
        """Start or stop: the ROI streams tick while the camera acquires and split mode is on."""
        self._fetching = self._fetching if fetching is None else fetching
        self._split = self._split if split is None else split
        self._detector.set_silent(not (self._fetching and self._split))

    def _ndmr(self, reads: Any) -> None:
        """Reset after each frame, or read without reset and send slopes, as more than two reads ask for."""
        count = int(_number("reads", reads, _MAX_READS))
        self._settings.update(nbreadworeset=str(count), mode=_BURST if count > 2 else _SINGLE)
        self._detector.set_slopes(count > 2)
        self._read_out()

    def _read_out(self) -> None:
        """Let the detector do what its settings say; the server's filter does not follow them."""
        is_burst = self._settings["mode"] == _BURST
        self._detector.set_reads(int(self._settings["nbreadworeset"]) if is_burst else 1)

    def _saving(self, save: bool | None = None, skip: bool | None = None) -> None:
        """Save cubes or not; skipping what belongs to Baldr leaves nothing, there is no other stream here."""
        self._save = self._save if save is None else save
        self._skip_save = self._skip_save if skip is None else skip
        self._detector.set_saving(self._save and not self._skip_save)

    def _crop(self, on: Any) -> None:
        self._settings["cropping"] = "on" if int(on) > 0 else "off"
        self._detector.recreate_cameras()

    def _execute(self, name: str, arguments: list[Any]) -> Any:
        command = self._commands.get(name)
        if command is None:
            raise RequestError(f"unknown camera command {name!r}; known: {', '.join(sorted(self._commands))}")
        try:
            return command(*arguments)
        except (TypeError, ValueError) as error:
            raise RequestError(f"{name}: {error}") from None

    def _status(self, *_: Any) -> str:
        return "running" if self._fetching else "idle"

    def _cli(self, text: Any, *_: Any) -> str:
        """Answer as the camera's command line does: the value, an empty line, the prompt."""
        if not isinstance(text, str):
            raise RequestError(f"cli: expected one string, found {text!r}")
        words = text.split()
        raw = words[-1:] == ["raw"]
        match words[:-1] if raw else words:
            case ["fps"] if self._quirks and self._quirks.fps_junk:
                return f"Result:Error, busy{_PROMPT}"
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
            case ["set", "nbreadworeset", value]:
                self._settings["nbreadworeset"] = str(int(_number("nbreadworeset", value, _MAX_READS)))
                self._read_out()
            case ["set", "mode", value]:
                self._settings["mode"] = value
                self._read_out()
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
