"""Hadamard patterns on the DM grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_PRIME = 11


def order_12() -> FloatArray:
    """Hadamard matrix of order 12, first row and column +1, by Paley's first construction.

    ``H = I + S`` with S the bordered Jacobsthal matrix of quadratic residues modulo 11, a prime of the
    form 4k + 3 (Paley 1933, J. Math. Phys. 12, 311).
    """
    squares = {k * k % _PRIME for k in range(1, _PRIME)}
    residue = np.array([0 if k == 0 else 1 if k in squares else -1 for k in range(_PRIME)])
    place = np.arange(_PRIME)
    matrix = np.zeros((_PRIME + 1, _PRIME + 1))
    matrix[0, 1:] = 1.0
    matrix[1:, 0] = -1.0
    matrix[1:, 1:] = residue[(place[None, :] - place[:, None]) % _PRIME]
    matrix += np.eye(_PRIME + 1)
    return np.asarray(matrix * matrix[:, :1] * matrix[:1, :] * matrix[0, 0])


def full() -> FloatArray:
    """Hadamard matrix of order 144, (144, 144), row 0 is piston.

    The Kronecker product of two Hadamard matrices is one again (Sylvester 1867, Phil. Mag. 34, 461).
    """
    return np.asarray(np.kron(order_12(), order_12()), dtype=np.float64)


def modes(count: int) -> FloatArray:
    """Rows 1, 2, ... on the DM grid, (count, 144); values +1 and -1.

    Rows are orthogonal on all 144 points. The four corners have no actuator, so on the mirror the inner
    product of two modes is up to 4 in absolute value, of 140.
    """
    return full()[1 : count + 1]
