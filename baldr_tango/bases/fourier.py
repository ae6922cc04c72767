"""Products of sines and cosines on the DM grid, as the instrument's basis file has them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.names import CORNERS, GRID_SIDE

FloatArray = NDArray[np.float64]

PERIOD: Final = 24.0
"""Period of the first order, in units of which every grid spans 12: the first sine is half a wave."""

ORDERS: Final = 12
"""Functions along each axis, the constant included."""

_SPAN: Final = 12.0


def functions(points: int) -> FloatArray:
    """Functions along one axis, (12, points): 1, sin 1, cos 1, sin 2, cos 2, ..., sin 6.

    sin k and cos k of ``2 pi k x / 24``, x from -6 to 6 in `points` equal steps.
    """
    x = np.linspace(-_SPAN / 2, _SPAN / 2, points)
    order = (np.arange(ORDERS) + 1) // 2
    phase = 2.0 * np.pi * order[:, None] * x / PERIOD
    sine = np.arange(ORDERS) % 2 == 1
    return np.where(sine[:, None], np.sin(phase), np.cos(phase))


def order_of_modes() -> list[tuple[int, int]]:
    """Function along the columns (x) and along the rows (y) of each mode.

    For i = 0, 1, ...: (i, i), then (i, j) and (j, i) for each j > i; (0, 0) is piston and left out. So the
    first mode varies along the rows, the second one along the columns.
    """
    pairs = []
    for i in range(ORDERS):
        pairs.append((i, i))
        for j in range(i + 1, ORDERS):
            pairs += [(i, j), (j, i)]
    return pairs[1:]


def _products(points: int, count: int) -> FloatArray:
    """Products without their mean, (count, points, points), row and column last."""
    along = functions(points)
    maps = np.stack([np.outer(along[y], along[x]) for x, y in order_of_modes()[:count]])
    return np.asarray(maps - maps.mean(axis=(1, 2), keepdims=True))


def _normalised(maps: FloatArray) -> FloatArray:
    """Corners cleared, unit L2 norm, (count, 144)."""
    flat = maps.reshape(maps.shape[0], -1).copy()
    flat[:, list(CORNERS)] = 0.0
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def full_modes(count: int) -> FloatArray:
    """Modes on the whole 12x12 grid, (count, 144), unit L2 norm.

    The mean over all 144 points is 0; leaving out the corners gives back a little piston.
    """
    return _normalised(_products(GRID_SIDE, count))


def pinned_modes(count: int) -> FloatArray:
    """Modes on the inner 10x10 grid, each actuator of the edge as its inner neighbour, (count, 144).

    Unit L2 norm. There are more modes than the 100 inner actuators, so they are not independent.
    """
    return _normalised(np.pad(_products(GRID_SIDE - 2, count), ((0, 0), (1, 1), (1, 1)), mode="edge"))
