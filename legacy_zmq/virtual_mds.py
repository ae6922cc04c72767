"""Stand-in of the Multi Device Server: lamps and phase-mask stages of the virtual instrument."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Final, Protocol

from legacy_zmq.virtual_eso import EsoCommands
from legacy_zmq.virtual_stages import MASKS, VirtualStages

__all__ = ["MASKS", "VirtualMds", "VirtualOptics"]

log = logging.getLogger(__name__)

_LAMPS: Final = ("SBB", "SRL", "SGL")
_MAX_UM: Final = 1e6
_OTHER_AXES: Final = re.compile(r"(BDS|BTT|BTP|BOTT|BOTP|BLF|SSF)[1-4]|BFO|SSS")
_NO_MATCH: Final = (
    "NACK: asgard_alignment.MultiDeviceServer argument after * must be an iterable, not NoneType"
)
_NO_POSITIONS: Final = "'BaldrPhaseMask' object has no attribute 'mask_positions'"
_READPOS: Final = 'can only concatenate list (not "str") to list'  # the real server ends with it
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
    """

    def __init__(self, optics: VirtualOptics, mask: str = "H3", stages: VirtualStages | None = None) -> None:
        self._optics = optics
        self.stages = stages or VirtualStages(optics.beams, optics.put_mask, mask)
        self._eso = EsoCommands(self)
        self._lock = threading.Lock()
        self._lamps = dict.fromkeys(_LAMPS, False) | {"SBB": True}
        self._commands: dict[str, tuple[int, int, Callable[..., str]]] = {
            # name: fewest and most words after it, handler
            "on": (1, 1, lambda lamp: self._switch(lamp, True)),
            "off": (1, 1, lambda lamp: self._switch(lamp, False)),
            "is_on": (1, 1, lambda lamp: str(self._lamps[lamp])),
            "read": (1, 1, lambda axis: f"{self.stages.position(axis):.10g}"),
            "moveabs": (2, 2, self._move_to),
            "moverel": (2, 2, lambda axis, um: self._move_to(axis, um, self.stages.position(axis))),
            "fpm_movetomask": (2, 2, self._move_to_mask),
            "fpm_updatemaskpos": (2, 2, self._keep_position),
            "fpm_offsetallmaskpositions": (3, 3, self._offset_masks),
            "fpm_moverel": (2, 2, self._broken_move),
            "fpm_moveabs": (2, 2, self._broken_move),
            "fpm_maskpositions": (1, 1, lambda stage: self._broken(stage, _NO_POSITIONS)),
            "fpm_readpos": (1, 1, lambda stage: self._broken(stage, _READPOS)),
            "health": (0, 0, self._health),
            "stop": (1, 1, self._stop),
            "init": (1, 1, self._acknowledge),
            "reset": (1, 1, self._acknowledge),
            "connect": (1, 1, lambda axis: self._known(axis, "connected")),
            "connected?": (1, 1, lambda axis: self._known(axis, "connected")),
            "state": (1, 1, self._state),
            "ping": (1, 1, lambda axis: self._known(axis, "ACK: connected")),
            "sim_turbulence": (1, 2, self._turbulence),
        }

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

    def _move_to(self, axis: str, um: str, origin: float = 0.0) -> str:
        self.stages.position(axis)  # refuses an axis that does not move
        # The real server's template for numbers has no match without a decimal point.
        if "." not in um or not math.isfinite(float(um)):
            raise ValueError
        self.stages.move_to(axis, origin + float(um))
        return "ACK"

    def _beam(self, stage: str) -> int:
        beam = int(stage.removeprefix("phasemask")) if re.fullmatch(r"phasemask\d", stage) else 0
        if beam not in self._optics.beams:
            raise KeyError(stage)
        return beam

    def _move_to_mask(self, stage: str, mask: str) -> str:
        self.stages.move_to_mask(self._beam(stage), mask)
        return "ACK"

    def _broken(self, stage: str, told: str) -> str:
        """Refuse what the real server cannot do over the wire, in its words."""
        self._beam(stage)
        raise ValueError(told)

    def _broken_move(self, stage: str, position: str) -> str:
        """Refuse as the real server, which takes the first character of the text for the first number."""
        return self._broken(stage, f"could not convert string to float: {position[0]!r}")

    def _keep_position(self, stage: str, mask: str) -> str:
        """Store where the stage stands as the place of a mask."""
        beam = self._beam(stage)
        table = self.stages.tables[beam]
        table[mask if mask in table else _refuse(mask)] = self.stages.place(beam)
        return "ACK"

    def _offset_masks(self, stage: str, dx: str, dy: str) -> str:
        beam, by = self._beam(stage), (float(dx), float(dy))
        if not all(map(math.isfinite, by)):
            raise ValueError
        table = self.stages.tables[beam]
        table.update({name: (x + by[0], y + by[1]) for name, (x, y) in table.items()})
        self.stages.apply()
        return "ACK"

    def _axes(self, name: str) -> list[str]:
        """Return the axes that move when the device `name` moves."""
        stage = re.fullmatch(r"(?:phasemask|BM[XY])(\d)", name)
        if stage is None or int(stage[1]) not in self._optics.beams:
            return []
        return [f"BMX{stage[1]}", f"BMY{stage[1]}"] if name.startswith("p") else [name]

    def device_names(self) -> list[str]:
        """Name what ESO commands act on: axes and stages of the phase masks, lamps."""
        stages = [f"{kind}{beam}" for beam in self._optics.beams for kind in ("BMX", "BMY", "phasemask")]
        return [*stages, *_LAMPS]

    def semaphore(self, device: str) -> str:
        """Name what devices share that do not move at the same time: the stage of a beam."""
        return device if device in _LAMPS else device[-1]

    def prepare(self, device: str, keyword: str, value: Any) -> Callable[[], None]:
        """Return what sets `device` up; `ValueError` for a keyword or value that it does not take."""
        match keyword:
            case "ST" if device in _LAMPS and value in ("T", "F"):
                return lambda: self._set_lamp(device, value == "T")
            case "NAME" if device.startswith("phasemask") and value in MASKS:
                return lambda: self.stages.move_to_mask(self._beam(device), value)
            case "ENC" | "ENCREL" if device.startswith("BM"):
                um = _micrometres(device, value)
                if keyword == "ENC":
                    return lambda: self.stages.move_to(device, um)
                return lambda: self.stages.move_to(device, self.stages.position(device) + um)
        raise ValueError(
            f"{device}.{keyword}: found {value!r}, expected ST T or F of a lamp, "
            f"NAME of a phase mask ({', '.join(MASKS)}), ENC or ENCREL of an axis in um"
        )

    def is_moving(self, device: str) -> bool:
        """Tell whether a device is on its way."""
        return any(map(self.stages.is_moving, self._axes(device)))

    def encoder(self, device: str) -> float:
        """Position of an axis [um]."""
        return self.stages.position(device)

    def halt(self, device: str) -> None:
        """Stop a device where it is."""
        for axis in self._axes(device):
            self.stages.stop(axis)

    def _state(self, name: str) -> str:
        return self._known(name, "MOVING" if self.is_moving(name) else "READY")

    def _stop(self, name: str) -> str:
        self.halt(name)
        return self._known(name, "ACK")

    def _health(self) -> str:
        axes = [f"BM{axis}{beam}" for beam in self._optics.beams for axis in "XY"]
        return json.dumps(
            [
                {"axis": axis, "motor_type": "Zaber", "is_connected": True, "state": self._state(axis)}
                for axis in axes
            ]
        )

    def _known(self, axis: str, reply: str) -> str:
        stages = {f"phasemask{beam}" for beam in self._optics.beams}
        axes = {f"BM{letter}{beam}" for letter in "XY" for beam in self._optics.beams}
        if axis in axes or axis in self._lamps or axis in stages or _OTHER_AXES.fullmatch(axis):
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


def _refuse(name: str) -> str:
    raise KeyError(name)


def _micrometres(axis: str, value: Any) -> float:
    try:
        um = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        um = math.nan
    if not abs(um) <= _MAX_UM:  # NaN neither
        raise ValueError(f"{axis}: found {value!r}, expected a number from {-_MAX_UM:g} to {_MAX_UM:g} um")
    return um
