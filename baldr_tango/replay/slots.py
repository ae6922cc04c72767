"""Both slots of the loop's parameters, filled from the arrays of a recording."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.linear import Matrix
from baldr_tango.replay.recording import Arrays
from baldr_tango.rtc.packing import FIXED, MATRICES, slotted, twice


def build(arrays: Arrays) -> d.Parameters:
    """Build the parameters from all arrays of a version, the same in both slots."""
    return d.Parameters(**{name: _member(name, arrays) for name in d.Parameters._fields})


def put(parameters: d.Parameters, version: int, changed: Arrays) -> d.Parameters:
    """Put a version into its slot: the other slot's values, and those that have changed.

    Returns
    -------
    the parameters, in other arrays where the layout has changed.
    """
    present, slot = (version - 1) & 1, version & 1
    names = {name.split(".")[0] for name in changed}
    others: dict[str, Any] = {}
    for name, member in parameters._asdict().items():
        for array in slotted(member):
            array[slot] = array[present]
        if name not in names:
            continue
        new = _member(name, changed)
        old_arrays, new_arrays = slotted(member), slotted(new)
        fits = [a.shape for a in old_arrays] == [a.shape for a in new_arrays]
        if name in FIXED or not fits or (isinstance(new, Matrix) and new.layout != member.layout):
            others[name] = new
            continue
        for array, value in zip(old_arrays, new_arrays, strict=True):
            array[slot] = value[slot]
    return parameters._replace(**others) if others else parameters


def _member(name: str, arrays: Arrays) -> Any:
    if name in MATRICES:
        parts = (arrays[f"{name}.{field}"] for field in Matrix._fields[1:])
        return Matrix(
            int(arrays[f"{name}.layout"][0]), *(np.repeat(part[np.newaxis], 2, axis=0) for part in parts)
        )
    if name in FIXED:
        return np.ascontiguousarray(arrays[name], dtype=np.int64)
    if name in ("kalman_lo", "kalman_ho"):
        return d.Kalman(*(twice(arrays[f"{name}.{part}"], np.float32) for part in d.Kalman._fields))
    return twice(arrays[name], arrays[name].dtype)
