"""What one sees of the virtual instrument while it runs: means of the truth, mirrors, wavefronts."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import RequestError
from baldr_tango.kernels import plants
from baldr_tango.names import GRID_SIDE
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.engine import Engine
from baldr_tango.simulator.optics import FRAME_SIDE
from baldr_tango.simulator.truth import TruthMeans, means_of

MEAN_S: Final = 1.0
"""Time over which the truth is averaged [s]."""

_STEP_S: Final = 0.05


class View:
    """Reads the arrays that the compiled loop writes; never makes it wait."""

    def __init__(self, model: InstrumentModel, engine: Engine) -> None:
        self._model = model
        self._engine = engine
        self._lock = threading.Lock()
        self._past: deque[tuple[float, NDArray[np.float64]]] = deque()

    def truth(self) -> list[TruthMeans | None]:
        """Averages of each beam over the last second or so; None before there was a frame."""
        now, sums = time.monotonic(), self._engine.truth.copy()
        with self._lock:
            past = self._past
            if past and past[-1][1][0, plants.SUM_FRAMES] > sums[0, plants.SUM_FRAMES]:
                past.clear()  # the instrument was started anew
            if not past or now - past[-1][0] >= _STEP_S:
                past.append((now, sums))
            # The oldest one is just old enough.
            while len(past) > 1 and now - past[1][0] >= MEAN_S:
                past.popleft()
            before = past[0][1]
        return [_means(new, old) for new, old in zip(sums, before, strict=True)]

    def dm_map(self, beam: int) -> NDArray[np.float64]:
        """Command of the mirror of a beam about its flat, (12, 12) [DM units]."""
        return self._engine.command[self._index(beam)].reshape(GRID_SIDE, GRID_SIDE).copy()

    def dm_opd(self, beam: int) -> NDArray[np.float64]:
        """Path difference that the mirror of a beam makes [nm]; see `opd` for its shape."""
        command = self._engine.command[self._index(beam)].copy()
        if self._model.is_linear:
            return (self._model.linear.nm_per_dm_unit * command).reshape(GRID_SIDE, GRID_SIDE)
        return self._frame(command @ self._model.optical.influence.astype(np.float64))

    def opd(self, beam: int) -> NDArray[np.float64]:
        """Wavefront error of a beam behind its mirror [nm].

        Optical plant: (32, 32), on the camera's pixels, NaN outside the pupil. Linear plant: (12, 12), on
        the mirror's actuators.
        """
        opd = self._engine.opd[self._index(beam)].astype(np.float64)
        return opd.reshape(GRID_SIDE, GRID_SIDE) if self._model.is_linear else self._frame(opd)

    def _frame(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        frame = np.full(FRAME_SIDE * FRAME_SIDE, math.nan)
        frame[self._model.optical.pixels] = values
        return frame.reshape(FRAME_SIDE, FRAME_SIDE)

    def _index(self, beam: int) -> int:
        if beam not in self._engine.beams:
            raise RequestError(f"beam {beam}: this instrument has {', '.join(map(str, self._engine.beams))}")
        return self._engine.beams.index(beam)


def _means(new: NDArray[np.float64], old: NDArray[np.float64]) -> TruthMeans | None:
    return means_of(new - old) or means_of(new)
