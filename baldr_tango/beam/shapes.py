"""Mirror shapes that operators name: one mode of a basis, or of the loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import NAMES, Basis, find_basis
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.errors import RequestError
from baldr_tango.names import N_GRID

LOOP_MODES: Final = ("m2c_lo", "m2c_ho")
"""Names of the mode shapes of the calibration in force, scaled as its modes are."""


def find_shape(
    name: str, index: int, loaded: Mapping[str, Basis], parameters: LoopParameters | None = None
) -> tuple[Basis, NDArray[np.float64]]:
    """Look one mode up.

    Parameters
    ----------
    name : basis, in upper or lower case
    index : number of the mode, from 0
    loaded : bases read from a file, which come first
    parameters : configuration in force, whose modes have the names `LOOP_MODES`

    Returns
    -------
    basis and (144,) map.

    Raises
    ------
    RequestError : there is no such basis or mode; with the keys that the commander's reply has.
    """
    known = {**loaded, **_modes_of(parameters)}
    try:
        basis = find_basis(name, known)
    except RequestError:
        names = list(dict.fromkeys([*known, *NAMES]))
        raise RequestError("basis not found", basis=name, available=names) from None
    if not 0 <= index < basis.n_modes:
        raise RequestError("index out of range", n_modes=basis.n_modes)
    return basis, basis.mode(index)


def _modes_of(parameters: LoopParameters | None) -> dict[str, Basis]:
    if parameters is None or parameters.mode_shapes_lo.shape[0] != N_GRID:
        return {}
    shapes = (parameters.mode_shapes_lo, parameters.mode_shapes_ho)
    return {name: Basis(name, modes.T) for name, modes in zip(LOOP_MODES, shapes, strict=True)}
