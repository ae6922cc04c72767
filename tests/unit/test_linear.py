"""Matrix layouts: found by looking at the matrix, equal to numpy in every case."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.kernels.linear import COLUMNS, DIAGONAL, ROWS, TAPS, Matrix, multiply
from baldr_tango.kernels.structure import choose_structure, lay_out, pack, structure_of, unpack


def sparse(rows: int, columns: int, taps: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    matrix = np.zeros((rows, columns))
    for row in matrix:
        row[rng.choice(columns, taps, replace=False)] = rng.normal(size=taps)
    return matrix


def busy_rows() -> np.ndarray:
    """Interpolation with the shares of bad pixels folded in: a few rows have many weights."""
    matrix = sparse(140, 1024, 4)
    matrix[[3, 77, 139]] = sparse(3, 1024, 11, seed=8)
    return matrix


def without(modes: int, seed: int = 6) -> np.ndarray:
    """Zonal modes of a grid of 144 points from which some smooth modes are taken out: (1 - Q Q') E."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(144, modes)))[0]
    return (np.eye(144) - q @ q.T) @ SELECTION


SELECTION = np.delete(np.eye(144), [0, 11, 132, 143], axis=1)
CASES = {
    "interpolation": (sparse(140, 1024, 4), (TAPS, 4, 0, 0)),
    "interpolation, shares of bad pixels": (busy_rows(), (TAPS, 4, 6, 0)),
    "three weights per row": (sparse(90, 300, 3), (TAPS, 4, 0, 0)),
    "diagonal": (np.diag(np.arange(140.0)), (DIAGONAL, 1, 0, 0)),
    "diagonal and one dense row": (np.eye(140) + np.eye(140)[:, [3]] * np.arange(140), (TAPS, 2, 69, 0)),
    "selection on a grid with corners": (SELECTION, (TAPS, 1, 0, 0)),
    "zonal modes without tip and tilt": (without(2), (TAPS, 1, 0, 2)),
    "the same, square": (without(3) @ SELECTION.T, (TAPS, 1, 0, 3)),
    "zonal modes without many others": (without(9), (COLUMNS, 1, 0, 0)),
    "two dense rows": (np.random.default_rng(2).normal(size=(2, 140)), (ROWS, 1, 0, 0)),
    "long dense rows": (np.random.default_rng(2).normal(size=(7, 5000)), (ROWS, 1, 0, 0)),
    "two dense columns": (np.random.default_rng(3).normal(size=(144, 2)), (COLUMNS, 1, 0, 0)),
    "three dense columns": (np.random.default_rng(3).normal(size=(144, 3)), (COLUMNS, 1, 0, 0)),
    "dense square": (np.random.default_rng(4).normal(size=(144, 142)), (COLUMNS, 1, 0, 0)),
    "all zero": (np.zeros((5, 7)), (TAPS, 1, 0, 0)),
}


def worst_error(matrix: np.ndarray) -> np.ndarray:
    """Bound of the product's error per output, for inputs up to 1, against float64.

    Weights and inputs are rounded to float32 (half a unit in the last place each) and every partial sum
    again; sums run in at least 8 lanes, and low rank adds two more terms of the size of the result.
    """
    unit = np.finfo(np.float32).eps / 2
    steps = matrix.shape[1] / 8 + 16
    return unit * steps * (np.abs(matrix).sum(axis=1) + 3 * np.abs(matrix).max(initial=0)) + 1e-30


@pytest.mark.parametrize("name", CASES)
def test_structure_is_found_and_the_product_is_numpys(name):
    matrix, structure = CASES[name]
    x = np.random.default_rng(5).uniform(-1, 1, size=matrix.shape[1]).astype(np.float32)
    packed = pack(matrix)
    assert structure_of(packed) == choose_structure(matrix) == structure
    out = np.full(matrix.shape[0], np.nan, dtype=np.float32)
    for slot in (0, 1):
        multiply(packed, slot, x, out)
        assert np.all(np.abs(out - matrix @ x.astype(np.float64)) <= worst_error(matrix))
    scale = np.abs(matrix).max(initial=0)
    np.testing.assert_allclose(unpack(packed, matrix.shape[1]), matrix, rtol=1e-7, atol=1.2e-7 * scale)


@pytest.mark.parametrize("name", ["interpolation, shares of bad pixels", "zonal modes without tip and tilt"])
def test_a_simpler_matrix_fits_into_the_structure_of_a_richer_one(name):
    matrix, structure = CASES[name]
    simple = sparse(*matrix.shape, 1, seed=11)
    parts = lay_out(simple, choose_structure(matrix))
    packed = Matrix(structure[0], *(part[np.newaxis] for part in parts))
    assert [part.shape for part in packed[1:]] == [part[:1].shape for part in pack(matrix)[1:]]
    x = np.random.default_rng(5).uniform(-1, 1, size=matrix.shape[1]).astype(np.float32)
    out = np.full(matrix.shape[0], np.nan, dtype=np.float32)
    multiply(packed, 0, x, out)
    assert np.all(np.abs(out - simple @ x.astype(np.float64)) <= worst_error(simple))


def test_a_richer_matrix_does_not_fit_into_a_simpler_structure():
    assert lay_out(busy_rows(), choose_structure(sparse(140, 1024, 4))) is None
    assert lay_out(without(3), choose_structure(without(2))) is None
