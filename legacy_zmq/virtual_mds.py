"""Stand-in of the Multi Device Server: lamps and phase-mask stages of the virtual instrument."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

log = logging.getLogger(__name__)

MASKS: Final = ("J1", "J2", "J3", "J4", "J5", "H1", "H2", "H3", "H4", "H5")
"""Phase masks of each beam, in two rows on the stage."""

MASK_REACH_UM: Final = 100.0
"""A mask further than this from the beam has no effect."""

_MASK_PITCH_UM: Final = 1000.0
_FIRST_MASK_UM: Final = 2000.0
_LAMPS: Final = ("SBB", "SRL", "SGL")
_OTHER_AXES: Final = re.compile(r"(BDS|BTT|BTP|BOTT|BOTP|BLF|SSF)[1-4]|BFO|SSS")
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

    def move_mask(self, beam: int, in_: bool) -> None:
        """Move the phase mask of a beam in or out."""

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch turbulence on or off."""


class VirtualMds:
    """Answers MDS custom commands; moves take no time.

    Each mask has its place on the stage of its beam; the frames show the phase mask while any of them
    is within `MASK_REACH_UM` of the beam.
    """

    def __init__(self, optics: VirtualOptics, mask: str = "H3") -> None:
        self._optics = optics
        self._lock = threading.Lock()
        self._lamps = dict.fromkeys(_LAMPS, False) | {"SBB": True}
        start = _mask_position(mask if mask in MASKS else "H3")
        self._positions = {
            f"BM{axis}{beam}": um for beam in optics.beams for axis, um in zip("XY", start, strict=True)
        }
        self._commands: dict[str, tuple[int, int, Callable[..., str]]] = {
            # name: fewest and most words after it, handler
            "on": (1, 1, lambda lamp: self._switch(lamp, True)),
            "off": (1, 1, lambda lamp: self._switch(lamp, False)),
            "is_on": (1, 1, lambda lamp: str(self._lamps[lamp])),
            "read": (1, 1, lambda axis: f"{self._positions[axis]:g}"),
            "moveabs": (2, 2, self._move_to),
            "moverel": (2, 2, lambda axis, um: self._move_to(axis, um, self._positions[axis])),
            "fpm_movetomask": (2, 2, self._move_to_mask),
            "stop": (1, 1, self._acknowledge),
            "init": (1, 1, self._acknowledge),
            "reset": (1, 1, self._acknowledge),
            "connect": (1, 1, lambda axis: self._known(axis, "connected")),
            "connected?": (1, 1, lambda axis: self._known(axis, "connected")),
            "state": (1, 1, lambda axis: self._known(axis, "READY")),
            "ping": (1, 1, lambda axis: self._known(axis, "ACK: connected")),
            "sim_turbulence": (1, 2, self._turbulence),
        }

    def answer(self, payload: bytes, source: str = "") -> bytes:
        """Answer one request; the reply ends with a newline."""
        text = payload.decode("utf-8", "replace").strip(" \t\r\n\0")
        with self._lock:
            return f"{self._reply(text)}\n".encode()

    def _reply(self, text: str) -> str:
        if text.startswith("!"):
            return "NACK: Are you using old custom commands?"
        if not text or not text[0].islower():
            # The real server ends here on an empty message, and reads anything else as ESO JSON.
            return "NACK: the virtual instrument knows custom commands only"
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
        self._lamps[lamp] = on
        if lamp == "SBB":
            self._optics.set_lamp(on)
        return "ACK"

    def _move_to(self, axis: str, um: str, origin: float = 0.0) -> str:
        if axis not in self._positions:
            raise KeyError(axis)
        # The real server's template for numbers has no match without a decimal point.
        if "." not in um or not math.isfinite(float(um)):
            raise ValueError
        self._positions[axis] = origin + float(um)
        self._apply(int(axis[-1]))
        return "ACK"

    def _move_to_mask(self, stage: str, mask: str) -> str:
        beam = int(stage.removeprefix("phasemask")) if re.fullmatch(r"phasemask\d", stage) else 0
        if beam not in self._optics.beams:
            raise KeyError(stage)
        if mask not in MASKS:
            raise KeyError(mask)
        self._positions[f"BMX{beam}"], self._positions[f"BMY{beam}"] = _mask_position(mask)
        self._apply(beam)
        return "ACK"

    def _apply(self, beam: int) -> None:
        position = self._positions[f"BMX{beam}"], self._positions[f"BMY{beam}"]
        nearest_um = min(math.dist(position, _mask_position(mask)) for mask in MASKS)
        self._optics.move_mask(beam, nearest_um <= MASK_REACH_UM)

    def _known(self, axis: str, reply: str) -> str:
        stages = {f"phasemask{beam}" for beam in self._optics.beams}
        if axis in self._positions or axis in self._lamps or axis in stages or _OTHER_AXES.fullmatch(axis):
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


def _mask_position(mask: str) -> tuple[float, float]:
    """Position of a mask on its stage [um]."""
    row, column = divmod(MASKS.index(mask), 5)
    return _FIRST_MASK_UM + column * _MASK_PITCH_UM, _FIRST_MASK_UM + row * _MASK_PITCH_UM
