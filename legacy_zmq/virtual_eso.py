"""ESO commands of the stand-in of the Multi Device Server: JSON texts that set up devices in batches."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Protocol

__all__ = ["EsoCommands", "EsoDevices"]

log = logging.getLogger(__name__)

MAX_AGE_S: Final = 300.0
"""A command whose time differs by more from that of the server is ignored [s]."""

_TIME: Final = "%Y-%m-%dT%H:%M:%S"
_REPORTS: Final[dict[str, dict[str, int]]] = {
    # command: what it reports of each device; 1 loaded, 2 standby, 3 online
    "online": {"state": 3},
    "standby": {"state": 2},
    "off": {"state": 1},
    "simulat": {"simulation": 1, "state": 1},
    "stopsim": {"simulation": 0, "state": 1},
    "enable": {},
    "disable": {},
    "stop": {},
}


class EsoDevices(Protocol):
    """What ESO commands act on."""

    def device_names(self) -> Sequence[str]:
        """Names of all devices."""

    def semaphore(self, device: str) -> str:
        """Name what devices share that do not move at the same time."""

    def prepare(self, device: str, keyword: str, value: Any) -> Callable[[], None]:
        """Return what sets `device` up; `ValueError` for a keyword or value that it does not take."""

    def is_moving(self, device: str) -> bool:
        """Tell whether it is on its way."""

    def encoder(self, device: str) -> float:
        """Position of an axis [um]."""

    def temperatures(self) -> Sequence[float]:
        """Temperatures of the probes [deg C]."""

    def halt(self, device: str) -> None:
        """Stop it where it is."""


@dataclass(frozen=True)
class _Setup:
    device: str
    keyword: str
    value: Any
    begin: Callable[[], None]


class EsoCommands:
    """Answers ESO commands, and remembers the last ``setup`` for ``poll``.

    The real server ends on JSON that is not a command, on devices that it does not know and on values that
    it cannot use. This one answers them with ``ERROR: ...``, and nothing has moved.

    Parameters
    ----------
    devices : to act on.
    """

    def __init__(self, devices: EsoDevices) -> None:
        self._devices = devices
        self._running: list[_Setup] = []
        self._waiting: list[_Setup] = []

    def answer(self, text: str, now: datetime) -> str:
        """Answer one command.

        Parameters
        ----------
        text : JSON and one terminator, which is cut off whatever it is: without one, the last brace is lost.
        now : with its time zone.

        Returns
        -------
        str
            JSON and a NUL; ``NACK: ...`` for a text that is not JSON.
        """
        try:
            request = json.loads(text[:-1])
        except (ValueError, RecursionError):
            return "NACK: Invalid JSON message"
        content = "OK"
        parameters: list[dict[str, Any]] = []
        try:
            content, parameters = self._execute(request, now)
        except ValueError as error:
            content = f"ERROR: {error}"
        except RecursionError:  # of a message that shows a value of many levels
            content = "ERROR: nested too deeply"
        time = now.astimezone(timezone.utc).strftime(_TIME)
        reply = {"content": content, "time": time, "parameters": parameters}
        return json.dumps({"reply": reply}) + "\0"

    def _execute(self, request: Any, now: datetime) -> tuple[str, list[dict[str, Any]]]:
        command = _member(request, "command", dict)
        name, time = _member(command, "name", str), _member(command, "time", str)
        if not _is_recent(time, now):
            # As the real server: ignored, yet the reply is that of a command without effect.
            log.warning("virtual MDS: %s ignored, its time %r is not within %g s", name, time, MAX_AGE_S)
            return "OK", []
        if name == "poll":
            return self._poll()
        if name == "read":
            return "OK", [{"value": value} for value in self._devices.temperatures()]
        parameters = _member(command, "parameters", list)
        if name == "setup":
            return "OK", self._set_up(parameters)
        if name in _REPORTS:
            return "OK", self._act(name, parameters)
        raise ValueError(f"command {name!r} is unknown; known: poll, read, setup, {', '.join(_REPORTS)}")

    def _set_up(self, parameters: list[Any]) -> list[dict[str, Any]]:
        """Begin the first batch; what shares a semaphore with it waits for a poll that finds it done."""
        batches: tuple[list[_Setup], list[_Setup]] = ([], [])
        taken: set[str] = set()
        for parameter in parameters:
            setup = self._parse(parameter)
            semaphore = self._devices.semaphore(setup.device)
            batches[semaphore in taken].append(setup)
            taken.add(semaphore)
        self._running, self._waiting = batches
        return self._begin()

    def _parse(self, parameter: Any) -> _Setup:
        name = _member(parameter, "name", str)
        match name.split("."):
            case ["INS", device, keyword]:
                device = self._named(device)
            case _:
                raise ValueError(f"keyword {name!r}: expected INS.<device>.<NAME|ENC|ENCREL|ST>")
        value = parameter.get("value")
        return _Setup(device, keyword, value, self._devices.prepare(device, keyword, value))

    def _begin(self) -> list[dict[str, Any]]:
        for setup in self._running:
            setup.begin()
        return [_attribute(f"{setup.device}:DATA.status0", "MOVING") for setup in self._running]

    def _poll(self) -> tuple[str, list[dict[str, Any]]]:
        done = not any(self._devices.is_moving(setup.device) for setup in self._running)
        report = []
        for setup in self._running:
            report.append(_attribute(f"{setup.device}:DATA.status0", _reached(setup) if done else "MOVING"))
            if setup.keyword in ("ENC", "ENCREL"):
                position = self._devices.encoder(setup.device)
                report.append(_attribute(f"{setup.device}:DATA.posEnc", position))
        if done and self._waiting:
            self._running, self._waiting = self._waiting, []
            return "PENDING", report + self._begin()
        return "DONE" if done else "PENDING", report

    def _act(self, name: str, parameters: list[Any]) -> list[dict[str, Any]]:
        words = [_member(parameter, "device", str) for parameter in parameters]
        names = self._devices.device_names() if words == ["all"] else [self._named(word) for word in words]
        if name == "stop":
            stopped = {self._devices.semaphore(device) for device in names}
            self._running = [
                each for each in self._running if self._devices.semaphore(each.device) not in stopped
            ]
            self._waiting = []
            for device in names:
                self._devices.halt(device)
        return [
            _attribute(f"{device}.{key}", value) for device in names for key, value in _REPORTS[name].items()
        ]

    def _named(self, word: str) -> str:
        for name in self._devices.device_names():
            if name.casefold() == word.casefold():
                return name
        raise ValueError(f"device {word!r} is unknown; known: {', '.join(self._devices.device_names())}")


def _member(value: Any, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise ValueError(f"{key}: found {found!r}, expected a {kind.__name__}")
    return found


def _is_recent(text: str, now: datetime) -> bool:
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return abs((now - time).total_seconds()) <= MAX_AGE_S


def _reached(setup: _Setup) -> str:
    """Return the status of a device that has arrived."""
    match setup.keyword:
        case "NAME":
            return str(setup.value)
        case "ST":
            return "ON" if setup.value == "T" else "OFF"
    return ""


def _attribute(name: str, value: Any) -> dict[str, Any]:
    return {"attribute": f"<alias>{name}", "value": value}
