"""Matrix times vector, in the cheapest of four layouts, plus what is left of low rank."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.jit import kernel

ROWS: Final = 0
"""Dense, one contiguous row per output: best when there are few outputs."""
COLUMNS: Final = 1
"""Dense, stored transposed: best when there are few inputs or many outputs."""
TAPS: Final = 2
"""Sparse: (weight, input index) pairs, the same small number for every output; outputs with more go on in
further rows."""
DIAGONAL: Final = 3

_LONG_ROW: Final = 4096
"""Inputs from which on four rows share one pass over the input, which no longer stays in the first cache."""


class Matrix(NamedTuple):
    """A matrix for `multiply`: structure plus ``left' right``, with one copy of its numbers per slot."""

    layout: int
    weights: NDArray[np.float32]
    """(slots, rows, columns), (slots, columns, rows), (slots, taps, rows + further), (slots, 1, rows)."""
    taps: NDArray[np.uint32]
    """As `weights`: input of each weight of the layout TAPS; (slots, 1, 1) zeros otherwise."""
    continued: NDArray[np.uint32]
    """(slots, further rows) output that each further row belongs to."""
    left: NDArray[np.float32]
    """(slots, rank, rows)"""
    right: NDArray[np.float32]
    """(slots, rank, columns)"""


@kernel
def copy(source: Any, out: Any) -> None:
    """Copy an array into another of the same size (a slice assignment would need memory to be allocated)."""
    for i in range(out.size):
        out[i] = source[i]


@kernel
def scale(x: Any, factor: Any, out: Any) -> None:
    """``out = factor * x``."""
    for i in range(out.size):
        out[i] = factor * x[i]


@kernel
def add_scaled(x: Any, factor: Any, out: Any) -> None:
    """``out += factor * x``."""
    for i in range(out.size):
        out[i] += factor * x[i]


@kernel
def _by_rows(weights: Any, x: Any, out: Any) -> None:
    """``out = weights @ x``, row by row; of long rows four at a time, so that `x` is read once for them all.

    The four run through a quarter of the matrix each: memory that is read on and on is fetched ahead.
    """
    done = 0
    if x.size >= _LONG_ROW:
        quarter = out.size // 4
        for i in range(quarter):
            k = quarter + i
            m = 2 * quarter + i
            n = 3 * quarter + i
            a = np.float32(0.0)
            b = np.float32(0.0)
            c = np.float32(0.0)
            e = np.float32(0.0)
            for j in range(x.size):
                value = x[j]
                a += weights[i, j] * value
                b += weights[k, j] * value
                c += weights[m, j] * value
                e += weights[n, j] * value
            out[i] = a
            out[k] = b
            out[m] = c
            out[n] = e
        done = 4 * quarter
    for i in range(done, out.size):
        total = np.float32(0.0)
        for j in range(x.size):
            total += weights[i, j] * x[j]
        out[i] = total


@kernel
def _by_columns(weights: Any, x: Any, out: Any) -> None:
    """``out = weights' @ x``, four columns at a time: the output is loaded and stored a quarter as often."""
    if x.size == 2:  # tip and tilt
        for i in range(out.size):
            out[i] = weights[0, i] * x[0] + weights[1, i] * x[1]
        return
    out[:] = np.float32(0.0)
    for block in range(x.size // 4):
        j = 4 * block
        a = x[j]
        b = x[j + 1]
        c = x[j + 2]
        e = x[j + 3]
        for i in range(out.size):
            out[i] += (
                weights[j, i] * a + weights[j + 1, i] * b + weights[j + 2, i] * c + weights[j + 3, i] * e
            )
    for j in range(x.size // 4 * 4, x.size):
        factor = x[j]
        for i in range(out.size):
            out[i] += weights[j, i] * factor


@kernel
def _by_taps(weights: Any, taps: Any, continued: Any, x: Any, out: Any) -> None:
    """Sparse product; outputs with many weights are continued in the rows after the last output."""
    if weights.shape[0] == 4:  # bilinear interpolation
        for i in range(out.size):
            out[i] = (
                weights[0, i] * x[taps[0, i]]
                + weights[1, i] * x[taps[1, i]]
                + weights[2, i] * x[taps[2, i]]
                + weights[3, i] * x[taps[3, i]]
            )
    else:
        for i in range(out.size):
            out[i] = weights[0, i] * x[taps[0, i]]
        for k in range(1, weights.shape[0]):
            for i in range(out.size):
                out[i] += weights[k, i] * x[taps[k, i]]
    for r in range(continued.size):
        total = np.float32(0.0)
        for k in range(weights.shape[0]):
            total += weights[k, out.size + r] * x[taps[k, out.size + r]]
        out[continued[r]] += total


@kernel
def _by_diagonal(weights: Any, x: Any, out: Any) -> None:
    """``out = weights[0] * x``."""
    for i in range(out.size):
        out[i] = weights[0, i] * x[i]


@kernel
def _add_low_rank(left: Any, right: Any, x: Any, out: Any) -> None:
    """``out += left' (right @ x)``. left : (rank, rows), right : (rank, columns)."""
    for k in range(left.shape[0]):
        factor = np.float32(0.0)
        for j in range(x.size):
            factor += right[k, j] * x[j]
        for i in range(out.size):
            out[i] += left[k, i] * factor


@kernel
def multiply(matrix: Any, slot: int, x: Any, out: Any) -> None:
    """Compute ``out = matrix @ x``.

    matrix : a packed `Matrix`; slot : which copy of its weights
    x : (columns,) float32
    out : (rows,) float32, overwritten
    """
    if matrix.layout == TAPS:
        _by_taps(matrix.weights[slot], matrix.taps[slot], matrix.continued[slot], x, out)
    elif matrix.layout == DIAGONAL:
        _by_diagonal(matrix.weights[slot], x, out)
    elif matrix.layout == ROWS:
        _by_rows(matrix.weights[slot], x, out)
    else:
        _by_columns(matrix.weights[slot], x, out)
    if matrix.left.shape[1] > 0:
        _add_low_rank(matrix.left[slot], matrix.right[slot], x, out)
