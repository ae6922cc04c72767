"""Vocabulary shared by every floor: loop states, servo constants and the DM grid."""

from __future__ import annotations

import enum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

GRID_SIDE: Final = 12
"""Actuators along one side of the deformable mirror."""

N_GRID: Final = GRID_SIDE * GRID_SIDE
"""Points of the DM map, row-major, corners included."""

CORNERS: Final = (0, 11, 132, 143)
"""Grid points without an actuator."""

N_ACTUATORS: Final = N_GRID - len(CORNERS)
"""Actuators of the deformable mirror."""

ACTUATOR_INDEX: Final[NDArray[np.int64]] = np.delete(np.arange(N_GRID), CORNERS)
"""(140,) grid index of each actuator."""


class LoopState(enum.IntEnum):
    """State of the tip/tilt or the high-order loop; the numbers are the commander's."""

    OPEN = 0
    CLOSED = 1


class RtcState(enum.IntEnum):
    """What the real-time thread of a beam is doing."""

    UNCONFIGURED = 0
    STARTING = 1
    RUNNING = 2
    PAUSED = 3
    STOPPED = 4
    FAULT = 5


SERVO_RUN: Final = 0
"""Main servo mode while the real-time thread runs."""

SERVO_STOP: Final = -1
"""Main servo mode after ``stop_baldr``."""


def to_grid(actuators: ArrayLike) -> NDArray[np.float64]:
    """Place actuator values on the DM grid.

    Parameters
    ----------
    actuators : (140,) one value per actuator.

    Returns
    -------
    (144,) row-major 12x12 map; the four corners are 0.
    """
    grid = np.zeros(N_GRID)
    grid[ACTUATOR_INDEX] = actuators
    return grid


def from_grid(grid: ArrayLike) -> NDArray[np.float64]:
    """Take the 140 actuator values out of a (144,) or (12, 12) DM map."""
    return np.asarray(grid, dtype=np.float64).reshape(N_GRID)[ACTUATOR_INDEX]
