"""Mirror shapes that operators name: one mode of a basis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases import NAMES, Basis, find_basis
from baldr_tango.errors import RequestError


def find_shape(name: str, index: int, loaded: Mapping[str, Basis]) -> tuple[Basis, NDArray[np.float64]]:
    """Look one mode up.

    Parameters
    ----------
    name : basis, in upper or lower case
    index : number of the mode, from 0
    loaded : bases read from a file, which come first

    Returns
    -------
    basis and (144,) map.

    Raises
    ------
    RequestError : there is no such basis or mode; with the keys that the commander's reply has.
    """
    try:
        basis = find_basis(name, loaded)
    except RequestError:
        known = list(dict.fromkeys([*loaded, *NAMES]))
        raise RequestError("basis not found", basis=name, available=known) from None
    if not 0 <= index < basis.n_modes:
        raise RequestError("index out of range", n_modes=basis.n_modes)
    return basis, basis.mode(index)
