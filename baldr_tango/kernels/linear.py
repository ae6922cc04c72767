"""Matrix times vector, in the cheapest of three layouts."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.kernels.jit import kernel

ROWS: Final = 0
"""Dense, one contiguous row per output: best when there are few outputs."""
COLUMNS: Final = 1
"""Dense, stored transposed: best when there are few inputs or many outputs."""
TAPS: Final = 2
"""Sparse: the same small number of (weight, input index) pairs for every output."""

_MOST_TAPS: Final = 8


class Matrix(NamedTuple):
    """A matrix for `multiply`, with one copy of its weights per parameter slot."""

    layout: int
    weights: NDArray[np.float32]
    """(slots, rows, columns), (slots, columns, rows) or (slots, rows, taps)."""
    taps: NDArray[np.int32]
    """(slots, rows, taps) input of each weight; (slots, 1, 1) zeros for the dense layouts."""


def choose_layout(matrix: ArrayLike) -> tuple[int, int]:
    """Look at the non-zeros of a matrix and return its best layout and number of taps per row."""
    dense = np.asarray(matrix)
    rows, columns = dense.shape
    most = int(np.count_nonzero(dense, axis=1).max(initial=0))
    if most <= _MOST_TAPS and most * 2 <= columns:
        return TAPS, max(most, 1)
    return (ROWS, 0) if rows * 4 <= columns else (COLUMNS, 0)


def pack(matrix: ArrayLike, slots: int = 2) -> Matrix:
    """Pack a matrix (rows, columns) for `multiply`; every slot holds a copy."""
    dense = np.ascontiguousarray(matrix, dtype=np.float32)
    layout, n_taps = choose_layout(dense)
    taps = np.zeros((1, 1), dtype=np.int32)
    if layout == ROWS:
        weights = dense
    elif layout == COLUMNS:
        weights = dense.T
    else:
        # Stable sort by "is zero" brings each row's non-zeros to the front, in column order.
        order = np.argsort(dense == 0.0, axis=1, kind="stable")[:, :n_taps]
        taps = order.astype(np.int32)
        weights = np.take_along_axis(dense, order, axis=1)
    return Matrix(
        layout,
        np.ascontiguousarray(np.broadcast_to(weights, (slots, *weights.shape))),
        np.ascontiguousarray(np.broadcast_to(taps, (slots, *taps.shape))),
    )


def unpack(matrix: Matrix, columns: int, slot: int = 0) -> NDArray[np.float32]:
    """Return the dense (rows, columns) matrix of one slot."""
    weights = matrix.weights[slot]
    if matrix.layout == ROWS:
        return weights.copy()
    if matrix.layout == COLUMNS:
        return np.ascontiguousarray(weights.T)
    dense = np.zeros((weights.shape[0], columns), dtype=np.float32)
    # Padding taps carry weight 0, so adding instead of assigning keeps the real ones.
    np.add.at(dense, (np.arange(weights.shape[0])[:, None], matrix.taps[slot]), weights)
    return dense


@kernel
def copy(source: Any, out: Any) -> None:
    """Copy an array into another of the same size (a slice assignment would need memory to be allocated)."""
    for i in range(out.size):
        out[i] = source[i]


@kernel
def multiply(matrix: Any, slot: int, x: Any, out: Any) -> None:
    """Compute ``out = matrix @ x``.

    matrix : a packed `Matrix`; slot : which copy of its weights
    x : (columns,) float32
    out : (rows,) float32, overwritten
    """
    weights = matrix.weights[slot]
    if matrix.layout == TAPS:
        taps = matrix.taps[slot]
        for i in range(weights.shape[0]):
            total = np.float32(0.0)
            for k in range(weights.shape[1]):
                total += weights[i, k] * x[taps[i, k]]
            out[i] = total
    elif matrix.layout == ROWS:
        for i in range(weights.shape[0]):
            total = np.float32(0.0)
            for j in range(weights.shape[1]):
                total += weights[i, j] * x[j]
            out[i] = total
    else:
        out[:] = np.float32(0.0)
        for j in range(weights.shape[0]):
            factor = x[j]
            for i in range(weights.shape[1]):
                out[i] += weights[j, i] * factor
