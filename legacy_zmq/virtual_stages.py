"""Phase-mask stages of the virtual instrument: moves that take time, and which mask is in the beam."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from baldr_tango.simulator.masks import MASKS, REFERENCE_MASK

__all__ = ["MASKS", "MASK_REACH_UM", "OUT_UM", "VirtualStages"]

MASK_REACH_UM: Final = 100.0
"""A mask further than this from the beam has no effect."""

OUT_UM: Final = 200.0
"""Displacement that takes a mask out, as the instrument's scripts have it."""

_MASK_PITCH_UM: Final = 1000.0
_FIRST_MASK_UM: Final = 2000.0
_LOOK_S: Final = 0.005


class VirtualStages:
    """Two axes BMXn, BMYn per beam, at constant speed, each mask at its own place of a table.

    Parameters
    ----------
    beams : that have a stage.
    put_mask : called with beam and name of the mask in it (empty: none), each time that this changes.
    mask : in the beams at the start; or that of each beam.
    speed_um_s : of every axis [um/s]; infinite: moves take no time.
    clock : seconds that only go forward.
    """

    def __init__(
        self,
        beams: Sequence[int],
        put_mask: Callable[[int, str], None],
        mask: str | Mapping[int, str] = REFERENCE_MASK,
        speed_um_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.beams = tuple(beams)
        self.speed_um_s = speed_um_s
        self.tables = {beam: {name: _place(name) for name in MASKS} for beam in beams}
        self._put_mask = put_mask
        self._clock = clock
        self._lock = threading.RLock()
        starts = {beam: mask if isinstance(mask, str) else mask[beam] for beam in beams}
        places = {beam: _place(name if name in MASKS else REFERENCE_MASK) for beam, name in starts.items()}
        # Of each axis: where it began its last move, where that ends, and when it began.
        self._moves = {
            f"BM{axis}{beam}": (um, um, -math.inf)
            for beam in beams
            for axis, um in zip("XY", places[beam], strict=True)
        }
        self._shown = {beam: self.mask(beam) for beam in beams}
        for beam, name in self._shown.items():
            put_mask(beam, name)
        self._follower: threading.Thread | None = None
        self._closed = False

    def close(self) -> None:
        """End the thread that follows moves."""
        with self._lock:
            self._closed = True
            follower = self._follower
        if follower is not None:
            follower.join()

    def position(self, axis: str) -> float:
        """Where an axis is at this moment [um]; `KeyError` for an unknown one."""
        begin, end, since = self._moves[axis]
        way = self.speed_um_s * max(0.0, self._clock() - since)
        return end if way >= abs(end - begin) else begin + math.copysign(way, end - begin)

    def is_moving(self, axis: str) -> bool:
        """Tell whether an axis is on its way."""
        return self.position(axis) != self._moves[axis][1]

    def move_to(self, axis: str, um: float) -> None:
        """Send an axis to a position [um]."""
        with self._lock:
            self._moves[axis] = (self.position(axis), um, self._clock())
        self._follow()

    def stop(self, axis: str) -> None:
        """Stop an axis where it is."""
        self.move_to(axis, self.position(axis))

    def move_to_mask(self, beam: int, mask: str) -> None:
        """Send the stage of a beam to a mask of its table; `KeyError` for an unknown one."""
        x, y = self.tables[beam][mask]
        self.move_to(f"BMX{beam}", x)
        self.move_to(f"BMY{beam}", y)

    def take_table(self, beam: int, table: Mapping[str, tuple[float, float]]) -> None:
        """Have the masks of a beam at other places [um]; the stage stays where it is."""
        with self._lock:
            self.tables[beam] = {name: table[name] for name in MASKS}
        self.apply()

    def move_out(self, beam: int) -> None:
        """Move the mask that is in the beam 200 um aside."""
        if self.mask(beam):
            self.move_to(f"BMX{beam}", self.tables[beam][self.mask(beam)][0] + OUT_UM)

    def mask(self, beam: int) -> str:
        """Name of the mask in the beam; empty: none."""
        here = self.place(beam)
        name, place = min(self.tables[beam].items(), key=lambda entry: math.dist(here, entry[1]))
        return name if math.dist(here, place) <= MASK_REACH_UM else ""

    def place(self, beam: int) -> tuple[float, float]:
        """Where the stage of a beam is at this moment [um]."""
        return self.position(f"BMX{beam}"), self.position(f"BMY{beam}")

    def apply(self) -> None:
        """Tell the optics which masks are in the beam now."""
        with self._lock:
            for beam in self.beams:
                mask = self.mask(beam)
                if mask != self._shown[beam]:
                    self._shown[beam] = mask
                    self._put_mask(beam, mask)

    def _follow(self) -> None:
        self.apply()
        with self._lock:
            if self._follower is None and not self._closed and any(map(self.is_moving, self._moves)):
                self._follower = threading.Thread(target=self._run, name="virtual stages", daemon=True)
                self._follower.start()

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                moving = any(map(self.is_moving, self._moves))
                self.apply()
                if self._closed or not moving:
                    self._follower = None
                    return


def _place(mask: str) -> tuple[float, float]:
    row, column = divmod(MASKS.index(mask), 5)
    return _FIRST_MASK_UM + column * _MASK_PITCH_UM, _FIRST_MASK_UM + row * _MASK_PITCH_UM
