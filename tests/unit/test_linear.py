"""Matrix layouts: found by looking at the matrix, equal to numpy in every case."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.kernels.linear import COLUMNS, ROWS, TAPS, choose_layout, multiply, pack, unpack


def sparse(rows: int, columns: int, taps: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = np.zeros((rows, columns))
    for row in matrix:
        row[rng.choice(columns, taps, replace=False)] = rng.normal(size=taps)
    return matrix


CASES = {
    "interpolation": (sparse(140, 1024, 4), TAPS),
    "diagonal": (np.diag(np.arange(140.0)), TAPS),
    "selection on a grid with corners": (np.delete(np.eye(144), [0, 11, 132, 143], axis=1), TAPS),
    "two dense rows": (np.random.default_rng(2).normal(size=(2, 140)), ROWS),
    "two dense columns": (np.random.default_rng(3).normal(size=(144, 2)), COLUMNS),
    "dense square": (np.random.default_rng(4).normal(size=(144, 140)), COLUMNS),
    "all zero": (np.zeros((5, 7)), TAPS),
}


@pytest.mark.parametrize("name", CASES)
def test_layout_is_found_and_the_product_is_numpys(name):
    matrix, layout = CASES[name]
    x = np.random.default_rng(5).normal(size=matrix.shape[1]).astype(np.float32)
    packed = pack(matrix)
    assert packed.layout == layout
    out = np.full(matrix.shape[0], np.nan, dtype=np.float32)
    for slot in (0, 1):
        multiply(packed, slot, x, out)
        np.testing.assert_allclose(out, matrix @ x, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(unpack(packed, matrix.shape[1]), matrix.astype(np.float32))


def test_one_dense_row_makes_the_whole_matrix_dense():
    matrix = sparse(140, 140, 1)
    matrix[3] = 1.0
    assert choose_layout(matrix)[0] == COLUMNS
