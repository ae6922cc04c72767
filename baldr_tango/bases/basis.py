"""What a basis is, and the look-up by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import fourier, hadamard, kolmogorov, zernike
from baldr_tango.errors import RequestError
from baldr_tango.names import CORNERS, GRID_SIDE, N_ACTUATORS, N_GRID, to_grid

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Basis:
    """A family of DM maps.

    Raises
    ------
    ValueError : the maps do not have 144 points.
    """

    name: str
    modes: FloatArray
    """(n_modes, 144) row-major 12x12 maps: index 12 * row + column; read-only, corners 0."""
    doc: str = ""
    """One line: what the modes are and how they are scaled."""

    def __post_init__(self) -> None:
        """Own the maps, with nothing at the corners."""
        modes = np.array(self.modes, dtype=np.float64, order="C")
        if modes.ndim != 2 or modes.shape[1] != N_GRID:
            raise ValueError(f"basis {self.name}: expected shape (modes, {N_GRID}), found {modes.shape}")
        modes[:, list(CORNERS)] = 0.0
        modes.setflags(write=False)
        object.__setattr__(self, "modes", modes)

    @property
    def n_modes(self) -> int:
        """Number of modes."""
        return int(self.modes.shape[0])

    def mode(self, index: int) -> FloatArray:
        """Map of one mode, (144,), read-only; `RequestError` when there is no such mode."""
        if not 0 <= index < self.n_modes:
            raise RequestError(
                f"basis {self.name}: mode {index} does not exist; allowed are 0 to {self.n_modes - 1}"
            )
        return self.modes[index]

    def image(self, index: int) -> FloatArray:
        """Map of one mode as (12, 12) rows and columns."""
        return self.mode(index).reshape(GRID_SIDE, GRID_SIDE)


def _zonal() -> FloatArray:
    """One actuator at a time."""
    return np.stack([to_grid(row) for row in np.eye(N_ACTUATORS)])


_FAMILIES: Final[dict[str, tuple[Callable[[], FloatArray], str]]] = {
    "zonal": (_zonal, "mode k is actuator k of 140, value 1"),
    "zernike": (
        lambda: zernike.modes(N_ACTUATORS),
        "Zernike polynomials in Noll's order from j = 2 on the circle of 12 actuators, unit L2 norm",
    ),
    "hadamard": (
        lambda: hadamard.modes(N_ACTUATORS),
        "rows of a Hadamard matrix of order 144, values +1 and -1",
    ),
    "fourier_10x10": (
        lambda: fourier.pinned_modes(N_ACTUATORS),
        "products of sines and cosines on the inner 10x10 actuators, edge as its neighbours, unit L2 norm",
    ),
    "fourier_12x12": (
        lambda: fourier.full_modes(N_ACTUATORS),
        "products of sines and cosines on the whole grid, unit L2 norm",
    ),
    "kl": (kolmogorov.modes, "Karhunen-Loeve modes of Kolmogorov turbulence on the actuators, unit L2 norm"),
}

NAMES: Final = tuple(_FAMILIES)
"""Families that the product makes itself."""


def basis(name: str) -> Basis:
    """Return a basis that the product makes itself; upper and lower case are the same.

    Raises
    ------
    RequestError : there is none of that name.
    """
    return find_basis(name, {})


def find_basis(name: str, loaded: Mapping[str, Basis]) -> Basis:
    """Look a basis up among loaded ones first, then among those that the product makes.

    Parameters
    ----------
    name : in upper or lower case
    loaded : by name, as `load_bases` returns them

    Raises
    ------
    RequestError : there is none of that name.
    """
    key = name.lower()
    for known, found in loaded.items():
        if known.lower() == key:
            return found
    if key in _FAMILIES:
        return _generate(key)
    known = ", ".join(dict.fromkeys([*loaded, *NAMES]))
    raise RequestError(f"basis {name!r} does not exist; there are {known}")


@cache
def _generate(key: str) -> Basis:
    make, doc = _FAMILIES[key]
    return Basis(key, make(), doc)
