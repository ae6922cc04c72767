"""From an interaction matrix to reconstructors and mode shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import BackendError
from baldr_tango.names import ACTUATOR_INDEX, GRID_SIDE, N_ACTUATORS, N_GRID

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def tip_tilt_shapes(in_pupil: BoolArray) -> FloatArray:
    """Tip (along the columns) and tilt (along the rows) on the DM map.

    Zero mean and unit rms over the actuators of the pupil, continued outside; corners zero.

    Parameters
    ----------
    in_pupil : (140,) True for actuators in the pupil.

    Returns
    -------
    (144, 2).
    """
    rows, columns = np.divmod(ACTUATOR_INDEX, GRID_SIDE)
    shapes = np.zeros((N_GRID, 2))
    for mode, place in enumerate((columns, rows)):
        inside = place[in_pupil]
        shapes[ACTUATOR_INDEX, mode] = (place - inside.mean()) / inside.std()
    return shapes


def usable_actuators(response: FloatArray, visibility: FloatArray, least: float) -> BoolArray:
    """Actuators that a zonal reconstructor can control.

    Parameters
    ----------
    response : (140,) diagonal of the interaction matrix of the pokes.
    visibility : (140,) fraction of each actuator inside the pupil.
    least : response below which an actuator is left out, over the median of those in the pupil.

    Raises
    ------
    BackendError : the actuators in the pupil do not respond.
    """
    inside = visibility > 0.5
    typical = float(np.median(response[inside])) if inside.any() else 0.0
    if typical == 0.0 or not np.isfinite(typical):
        raise BackendError(f"the {int(inside.sum())} actuators in the pupil do not respond to pokes")
    return np.asarray(inside & (response / typical > least))


def zonal_reconstructor(response: FloatArray, visibility: FloatArray, usable: BoolArray) -> FloatArray:
    """Diagonal reconstructor m / IM of each actuator, zero for those that are not usable, (140, 140)."""
    safe = np.where(usable, response, 1.0)
    return np.diag(np.where(usable, visibility / safe, 0.0))


def without_tip_tilt(usable: BoolArray, tip_tilt: FloatArray) -> FloatArray:
    """Projector (140, 140) that takes tip and tilt out of the usable actuators and leaves the others."""
    projector = np.eye(N_ACTUATORS)
    used = np.flatnonzero(usable)
    basis, _ = np.linalg.qr(tip_tilt[ACTUATOR_INDEX[used]])
    projector[np.ix_(used, used)] -= basis @ basis.T
    return projector


def zonal_shapes(projector: FloatArray) -> FloatArray:
    """Shape of each zonal mode on the DM map, (144, 140).

    projector : (140, 140) what of a pattern of actuators may reach the mirror; corners stay zero.
    """
    shapes = np.zeros((N_GRID, N_ACTUATORS))
    shapes[ACTUATOR_INDEX] = projector
    return shapes
