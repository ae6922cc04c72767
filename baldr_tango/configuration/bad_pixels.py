"""Repair of bad pixels, as a linear map that can be folded into the matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


def repair_sources(bad: IndexArray, shape: tuple[int, int]) -> dict[int, IndexArray]:
    """Return, for each bad pixel, the good pixels whose mean replaces it.

    They are its good neighbours among the eight around it; inside a cluster of bad pixels, the good
    ones of the smallest square around it that has any.

    Parameters
    ----------
    bad : flat indices; at least one pixel of the frame must be good.
    shape : rows and columns of a frame.
    """
    rows, columns = shape
    good = np.ones(shape, dtype=bool)
    good.flat[bad] = False
    index = np.arange(rows * columns).reshape(shape)
    sources = {}
    for pixel in bad:
        row, column = divmod(int(pixel), columns)
        for reach in range(1, max(shape)):
            box = (
                slice(max(0, row - reach), row + reach + 1),
                slice(max(0, column - reach), column + reach + 1),
            )
            if good[box].any():
                sources[int(pixel)] = index[box][good[box]]
                break
    return sources


def fold_repair(weights: FloatArray, bad: IndexArray, shape: tuple[int, int]) -> FloatArray:
    """Return weights that give on a raw frame what `weights` give on the repaired one.

    Parameters
    ----------
    weights : (..., P), e.g. the interpolation matrix (A, P) or the ones (P,) of the flux.
    bad, shape : as for `repair_sources`.

    Returns
    -------
    (..., P); the weight of each bad pixel is 0 and its share has gone to the pixels that replace it.
    """
    folded = np.array(weights, dtype=np.float64)
    for pixel, sources in repair_sources(bad, shape).items():
        folded[..., sources] += weights[..., pixel, np.newaxis] / sources.size
    folded[..., bad] = 0.0
    return folded


def repair_with_median(frame: FloatArray, bad: IndexArray) -> FloatArray:
    """Return the (P,) frame with each bad pixel replaced by the median of the whole frame."""
    repaired = frame.copy()
    repaired[bad] = np.median(frame)
    return repaired
