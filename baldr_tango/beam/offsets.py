"""Open-loop offsets of a beam: maps on the mirror while a loop is open."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import Basis
from baldr_tango.beam.changes import put_in_force
from baldr_tango.beam.shapes import find_shape
from baldr_tango.errors import BaldrError, RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]

WITHIN_LIMIT: Final = 1.0 - 2.0**-22
"""Keeps an offset right at the limit below it in the single precision of the loop."""

LO: Final = "LO"
HO: Final = "HO"


class Offsets:
    """One map per loop, added to the command while that loop is open.

    They stay through closing, pausing, faults, restarts of the real-time thread and new configurations,
    until they are cleared.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._maps: dict[str, FloatArray] = {LO: np.zeros(0), HO: np.zeros(0)}
        self._lock = threading.Lock()

    @property
    def tip_tilt_is_set(self) -> bool:
        """True when there is an offset of the tip/tilt loop."""
        return bool(np.any(self._maps[LO]))

    def map(self, branch: str) -> FloatArray:
        """Offset of one loop, (G,) [DM units]."""
        return self._maps[branch].copy()

    def set_actuator(self, branch: str, index: int, value: float) -> float:
        """Set one point of an offset; return the value it had [DM units].

        Parameters
        ----------
        branch : "LO" or "HO"
        index : point of the DM grid, row-major, corners counted
        value : [DM units]

        Raises
        ------
        RequestError : there is no actuator, or the offsets would exceed the limit of the command.
        StateError : no configuration is loaded, or the loop did not react. Nothing has changed.
        """
        with self._lock:
            loop = self._loop()
            changed = self._map_for(branch, loop)
            if not 0 <= index < changed.size:
                raise RequestError("idx out of range", N=changed.size)
            corners = corners_of(changed.size)
            if index in corners:
                raise RequestError(
                    f"idx {index} is a corner of the DM grid, where there is no actuator",
                    corners=list(corners),
                )
            old = float(changed[index])
            changed[index] = value
            self._put(loop, {**self._maps, branch: changed})
            return old

    def set_mode(
        self, branch: str, basis: str, index: int, amplitude: float, accumulate: bool = False
    ) -> Basis:
        """Set an offset to a mode of a basis, or add the mode to it; return the basis.

        Parameters
        ----------
        branch : "LO" or "HO"
        basis, index : see `find_shape`
        amplitude : factor of the mode's map [DM units]
        accumulate : add to the offset instead of replacing it

        Raises
        ------
        RequestError, StateError : as for `set_actuator`.
        """
        with self._lock:
            loop = self._loop()
            found, shape = find_shape(basis, index, self._beam.bases, loop.parameters)
            changed = self._map_for(branch, loop)
            if shape.size != changed.size:
                raise RequestError(
                    f"basis {found.name}: maps of {shape.size} points, the mirror has {changed.size}"
                )
            with np.errstate(over="ignore"):  # what is beyond all measure is refused below
                changed = changed + amplitude * shape if accumulate else amplitude * shape
            self._put(loop, {**self._maps, branch: changed})
            return found

    def clear(self) -> None:
        """Take all offsets away."""
        with self._lock:
            loop = self._beam.loop
            none = {branch: np.zeros_like(values) for branch, values in self._maps.items()}
            if loop is not None and all(values.size for values in none.values()):
                self._put(loop, none)
            self._maps = none

    def configure(self, loop: RealTimeLoop) -> None:
        """Give a loop that is about to start the offsets of the one before."""
        with self._lock:
            if not any(np.any(values) for values in self._maps.values()):
                return
            try:
                maps = {branch: self._map_for(branch, loop) for branch in self._maps}
                self._put(loop, maps)
            except BaldrError as error:
                self._beam.log.warning("open-loop offsets are cleared: %s", error)
                self._maps = {LO: np.zeros(0), HO: np.zeros(0)}

    def _loop(self) -> RealTimeLoop:
        loop = self._beam.loop
        if loop is None:
            raise StateError("offsets not initialized: no configuration is loaded")
        return loop

    def _map_for(self, branch: str, loop: RealTimeLoop) -> FloatArray:
        """Copy the offset of a branch; zeros before the first."""
        size = loop.parameters.mode_shapes_lo.shape[0]
        values = self._maps[branch]
        if not np.any(values):
            return np.zeros(size)
        if values.size != size:
            raise RequestError(f"they have {values.size} points, the mirror has {size}")
        return values.copy()

    def _put(self, loop: RealTimeLoop, maps: dict[str, FloatArray]) -> None:
        """Check the offsets together, as they act with both loops open, and put them in force."""
        size = loop.parameters.mode_shapes_lo.shape[0]
        lo, ho = (values if values.size else np.zeros(size) for values in (maps[LO], maps[HO]))
        limit = float(loop.slots.current("limits")[d.COMMAND_LIMIT])
        for which, values in (
            ("the LO offset", lo),
            ("the HO offset", ho),
            ("both offsets together", lo + ho),
        ):
            peak = float(np.abs(values).max(initial=0.0))
            if not peak <= limit:
                raise RequestError(
                    f"{which} would reach {peak:.4g} DM units, more than limits.command, {limit:g}"
                )
        put_in_force(
            loop,
            {d.OFFSET_EPOCH: loop.slots.switch(d.OFFSET_EPOCH) + 1},
            offset_lo=lo * WITHIN_LIMIT,
            offset_ho=ho * WITHIN_LIMIT,
        )
        self._maps = {LO: lo, HO: ho}


def corners_of(points: int) -> tuple[int, ...]:
    """Return the points without an actuator of a square DM grid."""
    side = math.isqrt(points)
    return (0, side - 1, points - side, points - 1)
