"""Structure of a matrix, found by looking at its numbers, and its arrays in that structure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.kernels.linear import COLUMNS, DIAGONAL, ROWS, TAPS, Matrix

_WIDTHS: Final = (8, 4, 2, 1)
"""Pairs per row to choose from, the first of equally good ones."""
_GATHER_COST: Final = 4
"""A weight that has to find its input costs as much as this many in a dense row."""
_FURTHER_COST: Final = 4
"""A further row costs as much as this many more weights."""
_MOST_RANK: Final = 4
_WORTH_FACTORING: Final = 4096
"""Elements of the smallest dense matrix that is searched for structure."""


class Structure(NamedTuple):
    """What a matrix is made of: its layout and the sizes of the parts."""

    layout: int
    taps: int = 1
    further: int = 0
    rank: int = 0


def choose_structure(matrix: ArrayLike) -> Structure:
    """Look at the numbers of a matrix (rows, columns) and return its best structure."""
    dense = np.asarray(matrix)
    rows, columns = dense.shape
    sparse = _sparse(dense)
    if sparse is not None:
        return sparse
    factors = _factors(dense)
    if factors is not None:
        return factors[0]
    return Structure(ROWS if rows * 4 <= columns else COLUMNS)


def _sparse(dense: NDArray[Any]) -> Structure | None:
    """Structure of a diagonal or sparse matrix; None when it is dense."""
    rows, columns = dense.shape
    counts = np.count_nonzero(dense, axis=1)
    if rows == columns and counts.max(initial=0) <= 1 and np.count_nonzero(np.diag(dense)) == counts.sum():
        return Structure(DIAGONAL)
    further = {width: int(np.maximum(-(-counts // width), 1).sum()) - rows for width in _WIDTHS}
    cost = {width: width * rows + (width + _FURTHER_COST) * further[width] for width in _WIDTHS}
    width = min(_WIDTHS, key=lambda width: cost[width])
    if cost[width] * _GATHER_COST > rows * columns:
        return None
    return Structure(TAPS, width, further[width])


def _factors(dense: NDArray[Any]) -> tuple[Structure, NDArray[Any], NDArray[Any], NDArray[Any]] | None:
    """Split a matrix into a selection and a rest of low rank, exact to float32; None when it is not one.

    Zonal modes without tip and tilt are of this kind: ``(1 - Q Q') E``. The range of the rest is found with
    a few random vectors (Halko, Martinsson & Tropp 2011, SIAM Rev. 53, 217).

    Returns
    -------
    structure : of the whole.
    selection : (rows, columns), left : (rank, rows), right : (rank, columns), float64.
    """
    if dense.size < _WORTH_FACTORING or 4 * dense.shape[0] <= dense.shape[1]:
        return None
    whole = dense.astype(np.float64)
    selection = np.rint(whole)
    sparse = _sparse(selection)
    if sparse is None:
        return None
    rest = whole - selection
    probes = np.random.default_rng(1).normal(size=(rest.shape[1], _MOST_RANK + 2))
    range_of_rest = np.linalg.qr(rest @ probes)[0]
    u, s, vt = np.linalg.svd(range_of_rest.T @ rest, full_matrices=False)
    tolerance = np.finfo(np.float32).eps * np.abs(whole).max()
    for rank in range(1, _MOST_RANK + 1):
        left, right = (range_of_rest @ u[:, :rank] * s[:rank]).T, vt[:rank]
        if np.abs(rest - left.T @ right).max() <= tolerance:
            # In the layout TAPS, so that another matrix of this kind can take its place.
            taps = Structure(TAPS) if sparse.layout == DIAGONAL else sparse
            return taps._replace(rank=rank), selection, left, right
    return None


def lay_out(matrix: ArrayLike, structure: Structure) -> tuple[NDArray[Any], ...] | None:
    """Lay out a matrix in a structure: the arrays of one slot of a `Matrix`; None when it does not fit."""
    dense = np.asarray(matrix)
    rows, columns = dense.shape
    layout, width, further, rank = structure
    none, nowhere = np.zeros((1, 1), dtype=np.uint32), np.zeros(0, dtype=np.uint32)
    left, right = np.zeros((rank, rows), np.float32), np.zeros((rank, columns), np.float32)
    if layout != TAPS:
        weights = {ROWS: dense, COLUMNS: dense.T, DIAGONAL: np.diag(dense)[np.newaxis]}[layout]
        return weights.astype(np.float32), none, nowhere, left, right
    own = choose_structure(dense)
    if own.layout not in (TAPS, DIAGONAL) or own.rank > rank:
        return None
    if own.rank > 0:
        factors = _factors(dense)
        assert factors is not None
        _, dense, left[: own.rank], right[: own.rank] = factors
    counts = np.count_nonzero(dense, axis=1)
    pieces = np.maximum(-(-counts // width), 1) - 1
    needed = int(pieces.sum())
    if needed > further:
        return None
    output, column = np.nonzero(dense)
    within = np.arange(output.size) - (np.cumsum(counts) - counts)[output]
    piece, tap = np.divmod(within, width)
    first = rows + np.cumsum(pieces) - pieces  # place of each output's first further row
    place = np.where(piece == 0, output, first[output] + piece - 1)
    weights = np.zeros((width, rows + further), dtype=np.float32)
    taps = np.zeros((width, rows + further), dtype=np.uint32)
    weights[tap, place] = dense[output, column]
    taps[tap, place] = column
    continued = np.zeros(further, dtype=np.uint32)  # padding adds nothing to output 0
    continued[:needed] = np.repeat(np.arange(rows), pieces)
    return weights, taps, continued, left, right


def pack(matrix: ArrayLike, slots: int = 2) -> Matrix:
    """Pack a matrix (rows, columns) for `multiply`; every slot holds a copy."""
    structure = choose_structure(matrix)
    parts = lay_out(matrix, structure)
    assert parts is not None
    return Matrix(
        structure.layout,
        *(np.repeat(part[np.newaxis], slots, axis=0) for part in parts),
    )


def structure_of(matrix: Matrix) -> Structure:
    """Return the structure that a matrix was packed in."""
    is_sparse = matrix.layout == TAPS
    taps = matrix.weights.shape[1] if is_sparse else 1
    return Structure(matrix.layout, taps, matrix.continued.shape[1], matrix.left.shape[1])


def unpack(matrix: Matrix, columns: int, slot: int = 0) -> NDArray[np.float32]:
    """Return the dense (rows, columns) matrix of one slot."""
    weights, continued = matrix.weights[slot], matrix.continued[slot]
    if matrix.layout == ROWS:
        return weights.copy()
    if matrix.layout == COLUMNS:
        return np.ascontiguousarray(weights.T)
    if matrix.layout == DIAGONAL:
        return np.diag(weights[0])
    rows = weights.shape[1] - continued.size
    outputs = np.concatenate([np.arange(rows), continued])
    dense = np.zeros((rows, columns), dtype=np.float32)
    # Padding carries weight 0, so adding instead of assigning keeps the real ones.
    np.add.at(dense, (np.broadcast_to(outputs, weights.shape), matrix.taps[slot]), weights)
    return dense + matrix.left[slot].T @ matrix.right[slot]
