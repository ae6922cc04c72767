"""Karhunen-Loeve modes of Kolmogorov turbulence on the actuators of the DM."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.names import ACTUATOR_INDEX, GRID_SIDE, N_ACTUATORS, N_GRID

FloatArray = NDArray[np.float64]

STRUCTURE: Final = 6.88
"""Factor of the structure function ``D(r) = 6.88 (r / r0)^(5/3)`` [rad^2] (Fried 1965, JOSA 55, 1427)."""


def covariance() -> FloatArray:
    """Covariance of the phase at the actuators, piston removed, (140, 140) [rad^2] for r0 = one pitch.

    The phase itself has no finite variance. Without its mean over the actuators,
    ``C = -1/2 P D P`` with ``P = 1 - 11^T / N`` and D the structure function between each two actuators
    (Wallner 1983, J. Opt. Soc. Am. 73, 1771, for the piston-removed phase).
    """
    place = np.stack(np.divmod(ACTUATOR_INDEX, GRID_SIDE), axis=-1).astype(np.float64)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    structure = STRUCTURE * distance ** (5.0 / 3.0)
    structure -= structure.mean(axis=0, keepdims=True)
    structure -= structure.mean(axis=1, keepdims=True)
    return np.asarray(-0.5 * structure)


def decompose() -> tuple[FloatArray, FloatArray]:
    """Variances, descending, (139,) [rad^2] and modes (139, 140), orthonormal, without piston.

    The modes are the eigenvectors of `covariance` (Fried 1978, J. Opt. Soc. Am. 68, 1651). The grid is the
    same after a quarter turn, so modes such as tip and tilt come in pairs of one variance, and any
    rotation of a pair would do. Each mode here is even or odd along the columns and along the rows, which
    keeps tip along the columns and tilt along the rows; tip comes first.
    """
    matrix = covariance()
    variances, vectors, classes = [], [], []
    # Odd along x before odd along y, so that tip precedes tilt.
    for number, (odd_x, odd_y) in enumerate(((True, False), (False, True), (False, False), (True, True))):
        part = _parity_basis(odd_x, odd_y)
        values, found = np.linalg.eigh(part.T @ matrix @ part)
        variances.append(values)
        vectors.append((part @ found).T)
        classes.append(np.full(values.size, number))
    values, kinds = np.concatenate(variances), np.concatenate(classes)
    # Rounded, because the two variances of a pair differ by rounding errors.
    order = np.lexsort((kinds, -np.round(values / values.max(), 11)))
    piston = int(np.argmin(np.abs(values)))
    order = order[order != piston]
    return values[order], _with_signs(np.concatenate(vectors)[order])


def modes() -> FloatArray:
    """Karhunen-Loeve modes on the DM grid, (139, 144), unit L2 norm, largest variance first."""
    maps = np.zeros((N_ACTUATORS - 1, N_GRID))
    maps[:, ACTUATOR_INDEX] = decompose()[1]
    return maps


def _parity_basis(odd_x: bool, odd_y: bool) -> FloatArray:
    """Orthonormal basis (140, k) of the maps that are even or odd along the columns (x) and rows (y)."""
    units = np.zeros((N_ACTUATORS, GRID_SIDE, GRID_SIDE))
    units.reshape(N_ACTUATORS, N_GRID)[np.arange(N_ACTUATORS), ACTUATOR_INDEX] = 1.0
    units += (-1.0 if odd_x else 1.0) * units[:, :, ::-1]
    units += (-1.0 if odd_y else 1.0) * units[:, ::-1, :]
    quarter = np.flatnonzero(np.all(np.stack(np.divmod(ACTUATOR_INDEX, GRID_SIDE)) < GRID_SIDE // 2, axis=0))
    flat = units.reshape(N_ACTUATORS, N_GRID)[quarter][:, ACTUATOR_INDEX]
    return np.asarray((flat / np.linalg.norm(flat, axis=1, keepdims=True)).T)


def _with_signs(rows: FloatArray) -> FloatArray:
    """Give each mode the sign that makes its last large value positive."""
    large = np.abs(rows) > 0.3 * np.abs(rows).max(axis=1, keepdims=True)
    last = rows.shape[1] - 1 - np.argmax(large[:, ::-1], axis=1)
    return np.asarray(rows * np.sign(rows[np.arange(rows.shape[0]), last])[:, None])
