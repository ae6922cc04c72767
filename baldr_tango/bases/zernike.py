"""Zernike polynomials on the DM grid."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.names import GRID_SIDE

FloatArray = NDArray[np.float64]

FIRST: Final = 2
"""Noll index of the first mode: piston, j = 1, is left out."""


def noll(j: int) -> tuple[int, int]:
    """Radial order n and azimuthal order m of Noll's index j >= 1; m < 0 means sine.

    Within one n, m grows with j; even j is the cosine, odd j the sine (Noll 1976, J. Opt. Soc. Am.
    66, 207, table I).
    """
    n = (math.isqrt(8 * j - 7) - 1) // 2
    place = j - n * (n + 1) // 2 - 1
    m = 2 * ((place + 1) // 2) if n % 2 == 0 else 2 * (place // 2) + 1
    return n, m if j % 2 == 0 else -m


def radial(n: int, m: int, rho: FloatArray) -> FloatArray:
    """Radial polynomial R_n^m (Noll 1976, equation 2)."""
    result = np.zeros_like(rho)
    for s in range((n - m) // 2 + 1):
        factor = (-1) ** s * math.comb(n - s, s) * math.comb(n - 2 * s, (n - m) // 2 - s)
        result += factor * rho ** (n - 2 * s)
    return result


def polynomial(j: int, x: FloatArray, y: FloatArray) -> FloatArray:
    """Zernike polynomial Z_j, unit rms over the unit disc (Noll 1976, equation 1).

    Parameters
    ----------
    j : Noll index, from 1
    x, y : coordinates in units of the radius; theta is counted from x towards y
    """
    n, m = noll(j)
    values = math.sqrt(n + 1) * radial(n, abs(m), np.hypot(x, y))
    if m == 0:
        return values
    angle = abs(m) * np.arctan2(y, x)
    return math.sqrt(2.0) * values * (np.cos(angle) if m > 0 else np.sin(angle))


def modes(count: int) -> FloatArray:
    """Z_2, Z_3, ... on the DM grid, (count, 144): x along the columns, y along the rows.

    The unit circle touches the centres of the outermost rows and columns; modes are 0 outside it and have
    unit L2 norm. Only 88 actuators lie inside, so no more than 88 modes are independent.
    """
    half = (GRID_SIDE - 1) / 2.0
    y, x = (np.indices((GRID_SIDE, GRID_SIDE)).reshape(2, -1) - half) / half
    inside = np.hypot(x, y) <= 1.0
    maps = np.stack([polynomial(j, x, y) * inside for j in range(FIRST, FIRST + count)])
    return np.asarray(maps / np.linalg.norm(maps, axis=1, keepdims=True))
