"""Stand-in of the Multi Device Server: lamps and phase-mask stages of the virtual instrument."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Protocol

from legacy_zmq.virtual_bench import VirtualBench
from legacy_zmq.virtual_eso import EsoCommands
from legacy_zmq.virtual_masks import MAX_UM, MaskCommands, PositionFiles
from legacy_zmq.virtual_stages import MASKS, VirtualStages

__all__ = ["MASKS", "VirtualMds", "VirtualOptics"]

log = logging.getLogger(__name__)

_LAMPS: Final = ("SBB", "SRL", "SGL")
_NO_MATCH: Final = (
    "NACK: asgard_alignment.MultiDeviceServer argument after * must be an iterable, not NoneType"
)
_UNKNOWN: Final = "NACK: Unkown custom command"  # spelled as the real server does


class VirtualOptics(Protocol):
    """What the MDS commands of the virtual instrument."""

    @property
    def beams(self) -> Sequence[int]:
        """Beams that are served."""

    def set_lamp(self, on: bool) -> None:
        """Switch the light source."""

    def put_mask(self, beam: int, mask: str) -> None:
        """Put a phase mask into a beam; empty: none."""

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch turbulence on or off."""


class VirtualMds:
    """Answers MDS custom commands and ESO commands; a move is acknowledged when it begins.

    Each mask has its place on the stage of its beam; the frames show the phase mask that is within reach
    of the beam.

    Parameters
    ----------
    optics : lamp, masks and turbulence of the virtual instrument.
    stages : of the phase masks; None: new ones that take no time, with `mask` in the beam.
    directory : of what is written: ``phasemask_positions``, ``instr_states``.
    """

    def __init__(
        self,
        optics: VirtualOptics,
        mask: str = "H3",
        stages: VirtualStages | None = None,
        directory: Path = Path(),
    ) -> None:
        self._optics = optics
        self.stages = stages or VirtualStages(optics.beams, optics.put_mask, mask)
        self._masks = MaskCommands(self.stages, PositionFiles(directory.absolute() / "phasemask_positions"))
        self._bench = VirtualBench(directory.absolute() / "instr_states")
        self._eso = EsoCommands(self)
        self._lock = threading.Lock()
        self._lamps = dict.fromkeys(_LAMPS, False) | {"SBB": True}
        self._commands: dict[str, tuple[int, int, Callable[..., str]]] = {
            # name: fewest and most words after it, handler
            "on": (1, 1, lambda lamp: self._switch(lamp, True)),
            "off": (1, 1, lambda lamp: self._switch(lamp, False)),
            "is_on": (1, 1, lambda lamp: str(self._lamps[lamp])),
            "read": (1, 1, lambda axis: f"{self.encoder(axis):.10g}"),
            "moveabs": (2, 2, self._move_to),
            "moverel": (2, 2, lambda axis, by: self._move_to(axis, by, is_relative=True)),
            "health": (0, 0, self._health),
            "stop": (1, 1, self._stop),
            "init": (1, 1, self._acknowledge),
            "reset": (1, 1, self._acknowledge),
            "connect": (1, 1, lambda axis: self._known(axis, "connected")),
            "connected?": (1, 1, lambda axis: self._known(axis, "connected")),
            "state": (1, 1, self._state),
            "ping": (1, 1, lambda axis: self._known(axis, "ACK: connected")),
            "asg_setup": (3, 3, self._set_up),
            "standby": (1, 1, self._standby),
            "save": (2, 2, self._save),
            "sim_turbulence": (1, 2, self._turbulence),
            **self._masks.commands(),
            **self._bench.commands(),
        }

    @property
    def words(self) -> tuple[str, ...]:
        """Names of all custom commands."""
        return tuple(self._commands)

    def answer(self, payload: bytes, source: str = "") -> bytes:
        """Answer one request; the reply ends with a newline, that to an ESO command with NUL and newline.

        The real server ends on an empty message and on some custom commands; none ends this one.
        """
        message = payload.decode("utf-8", "replace")
        text = message.strip(" \t\r\n\0")
        with self._lock:
            if not text or text[0].islower() or text[0] == "!":
                reply = self._reply(text)
            else:
                reply = self._eso.answer(message, datetime.now(timezone.utc))
            return f"{reply}\n".encode()

    def _reply(self, text: str) -> str:
        if text.startswith("!"):
            return "NACK: Are you using old custom commands?"
        if not text:
            return "NACK: empty message"
        name, *words = text.split()
        fewest, most, command = self._commands.get(name, (0, 0, None))
        if command is None:
            return _UNKNOWN
        if not fewest <= len(words) <= most:
            return _NO_MATCH
        try:
            return command(*words)
        except KeyError as error:
            return f"NACK: {error}"
        except ValueError as error:
            return f"NACK: {error}" if str(error) else _NO_MATCH
        except Exception as error:
            log.exception("virtual MDS: %r failed", text)
            return f"NACK: {error}"

    def _switch(self, lamp: str, on: bool) -> str:
        if lamp not in self._lamps:
            raise KeyError(lamp)
        self._set_lamp(lamp, on)
        return "ACK"

    def _set_lamp(self, lamp: str, on: bool) -> None:
        self._lamps[lamp] = on
        if lamp == "SBB":
            self._optics.set_lamp(on)

    def _move_to(self, axis: str, text: str, is_relative: bool = False) -> str:
        here = self.encoder(axis)  # refuses an axis that does not move
        # The real server's template for numbers has no match without a decimal point.
        if "." not in text or not math.isfinite(float(text)):
            raise ValueError
        if axis not in self._bench.axes():
            self.stages.move_to(axis, float(text) + (here if is_relative else 0.0))
        elif is_relative:
            self._bench.move_by(axis, float(text))
        else:
            self._bench.move_to(axis, float(text))
        return "ACK"

    def _set_up(self, axis: str, keyword: str, text: str) -> str:
        """Set one device up as the ESO command does; a number is one where a name would be one, too."""
        if axis not in self.device_names():
            raise KeyError(axis)
        try:
            value: str | float = float(text)
        except ValueError:
            value = text
        self.prepare(axis, keyword, value)()
        return "ACK"

    def _standby(self, axis: str) -> str:
        """Answer; no device goes off. The real server says nothing of a linear stage."""
        if axis not in self.device_names():
            return "NACK"
        return "" if axis.startswith(("BM", "BFO", "BDS", "SSS", "HFO")) else "ACK"

    def _save(self, subset: str, name: str) -> str:
        stages = {axis: self.stages.position(axis) for axis in self._stage_axes()}
        return self._bench.save(subset, name, stages)

    def _stage_axes(self) -> list[str]:
        return [f"BM{axis}{beam}" for beam in self._optics.beams for axis in "XY"]

    def _axes(self, name: str) -> list[str]:
        """Return the axes that move when the device `name` moves."""
        stage = re.fullmatch(r"(?:phasemask|BM[XY])(\d)", name)
        if stage is None or int(stage[1]) not in self._optics.beams:
            return []
        return [f"BMX{stage[1]}", f"BMY{stage[1]}"] if name.startswith("p") else [name]

    def device_names(self) -> list[str]:
        """Name what ESO commands act on: axes and stages of the phase masks, lamps."""
        stages = [f"{kind}{beam}" for beam in self._optics.beams for kind in ("BMX", "BMY", "phasemask")]
        return [*stages, *self._bench.axes(), *_LAMPS]

    def semaphore(self, device: str) -> str:
        """Name what devices share that do not move at the same time: the stage of a beam."""
        return device[-1] if self._axes(device) else device

    def prepare(self, device: str, keyword: str, value: Any) -> Callable[[], None]:
        """Return what sets `device` up; `ValueError` for a keyword or value that it does not take."""
        if device in self._bench.axes():
            return self._bench.prepare(device, keyword, value)
        match keyword:
            case "ST" if device in _LAMPS and value in ("T", "F"):
                return lambda: self._set_lamp(device, value == "T")
            case "NAME" if device.startswith("phasemask") and value in MASKS:
                return lambda: self.stages.move_to_mask(self._masks.beam(device), value)
            case "NAME" if device.startswith("BM") and value in MASKS:
                place = self.stages.tables[int(device[-1])][value]
                return lambda: self.stages.move_to(device, place["XY".index(device[2])])
            case "ENC" | "ENCREL" if device.startswith("BM"):
                um = _micrometres(device, value)
                if keyword == "ENC":
                    return lambda: self.stages.move_to(device, um)
                return lambda: self.stages.move_to(device, self.stages.position(device) + um)
        raise ValueError(
            f"{device}.{keyword}: found {value!r}, expected ST T or F of a lamp, "
            f"NAME of a phase mask or one of its axes ({', '.join(MASKS)}), ENC or ENCREL of an axis in um"
        )

    def is_moving(self, device: str) -> bool:
        """Tell whether a device is on its way."""
        return any(map(self.stages.is_moving, self._axes(device)))

    def encoder(self, device: str) -> float:
        """Position of an axis [um], of one that the frames do not show in its own unit."""
        return self._bench.position(device) if device in self._bench.axes() else self.stages.position(device)

    def temperatures(self) -> list[float]:
        """Temperatures of the bench [deg C]."""
        return self._bench.temperatures()

    def halt(self, device: str) -> None:
        """Stop a device where it is."""
        for axis in self._axes(device):
            self.stages.stop(axis)

    def _state(self, name: str) -> str:
        shut = self._bench.state(name) if name in self._bench.axes() else ""
        return self._known(name, f"{'MOVING' if self.is_moving(name) else 'READY'}{shut}")

    def _stop(self, name: str) -> str:
        self.halt(name)
        return self._known(name, "ACK")

    def _health(self) -> str:
        motors = dict.fromkeys(self._stage_axes(), "LAC10A-T4A")
        motors |= {axis: self._bench.motor_type(axis) for axis in self._bench.axes()}
        return json.dumps(
            [
                {"axis": axis, "motor_type": motor, "is_connected": True, "state": self._state(axis)}
                for axis, motor in motors.items()
            ]
        )

    def _known(self, axis: str, reply: str) -> str:
        if axis in self.device_names():
            return reply
        raise KeyError(axis)

    def _acknowledge(self, axis: str) -> str:
        return self._known(axis, "ACK")

    def _turbulence(self, switch: str, beam: str = "") -> str:
        on = {"on": True, "off": False}[switch]
        if beam and (not beam.isdecimal() or int(beam) not in self._optics.beams):
            raise KeyError(beam)
        self._optics.set_turbulence(on, int(beam) if beam else None)
        return "ACK"


def _micrometres(axis: str, value: Any) -> float:
    try:
        um = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        um = math.nan
    if not abs(um) <= MAX_UM:  # NaN neither
        raise ValueError(f"{axis}: found {value!r}, expected a number from {-MAX_UM:g} to {MAX_UM:g} um")
    return um
