"""Reconstructors from a measured interaction matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.inversion import usable_actuators, zonal_reconstructor
from baldr_tango.errors import BackendError, RequestError

FloatArray = NDArray[np.float64]

METHODS: Final = ("zonal", "pinv", "svd_truncation", "map")
"""How the high-order reconstructor is made."""

LEAST_RESPONSE: Final = 0.3
"""Response of an actuator, over the median in the pupil, below which it is not controlled."""


@dataclass(frozen=True, eq=False)
class Reconstructors:
    """Reconstructors of both loops; A signals, L low-order modes, H actuators."""

    low: FloatArray
    """(L, A) [DM units]"""
    high: FloatArray
    """(H, A) [DM units]; rows of actuators that are not controlled are 0."""
    matrix: FloatArray
    """(L + H, A) response of the signal to each low-order mode and each actuator [1/DM unit]."""
    method: str
    controlled: int
    """Actuators that are controlled."""
    kept: int
    """Singular values that were inverted for the high orders."""


def compute_reconstructors(
    response: FloatArray,
    low_order_shapes: FloatArray,
    visibility: FloatArray,
    method: str = "zonal",
    *,
    keep: int = 0,
    regularisation: float = 1.0,
    least_response: float = LEAST_RESPONSE,
) -> Reconstructors:
    """Invert the response to single actuators.

    With the signal ``s = D u`` of the commands u, D the transposed response of the controlled actuators:

    * zonal: ``diag(visibility / D_kk)``, as the instrument's calibration;
    * pinv: the pseudo-inverse of D;
    * svd_truncation: the same of its `keep` largest singular values only;
    * map: ``(D^T D + r I)^-1 D^T`` (Tikhonov), the maximum a posteriori estimate for white noise of variance
      sigma^2 and uncorrelated commands of variance ``sigma^2 / r`` (Law and Lane 1996, Opt. Commun. 126, 19).

    The low orders, whose response follows from that of the actuators, are inverted by the pseudo-inverse.

    Parameters
    ----------
    response : (H, A) change of the signal per actuator [1/DM unit]
    low_order_shapes : (H, L) values of the low-order modes at the actuators
    visibility : (H,) fraction of each actuator inside the pupil
    keep : singular values kept by svd_truncation
    regularisation : r of map [1/DM unit^2]; 1 stands for unit covariances, as the legacy has it
    least_response : see `LEAST_RESPONSE`

    Raises
    ------
    RequestError : there is no such method, or one of its numbers is out of range.
    BackendError : the actuators in the pupil do not respond.
    """
    if method not in METHODS:
        raise RequestError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    if response.shape[0] != response.shape[1]:
        raise RequestError(f"response of shape {response.shape}: expected one signal per actuator")
    usable = usable_actuators(np.diag(response), visibility, least_response)
    controlled = int(usable.sum())
    low = low_order_shapes.T @ response
    high = np.zeros_like(response)
    kept = controlled
    if method == "zonal":
        high = zonal_reconstructor(np.diag(response), visibility, usable)
    else:
        forward = response[usable].T
        u, values, vt = np.linalg.svd(forward, full_matrices=False)
        if method == "svd_truncation":
            if not 1 <= keep <= values.size:
                raise RequestError(f"keep: expected 1 to {values.size} singular values, found {keep}")
            kept = keep
        if method == "map":
            if not regularisation > 0:
                raise RequestError(f"regularisation: expected more than 0, found {regularisation:g}")
            inverse = values / (values**2 + regularisation)
        else:
            floor = values[0] * max(forward.shape) * np.finfo(np.float64).eps
            if not values[kept - 1] > floor:
                raise BackendError(
                    f"only {int((values > floor).sum())} of {values.size} singular values are not zero"
                )
            inverse = np.where(np.arange(values.size) < kept, 1.0 / np.maximum(values, floor), 0.0)
        high[usable] = (vt.T * inverse) @ u.T
    return Reconstructors(
        low=np.linalg.pinv(low).T,
        high=high,
        matrix=np.vstack([low, response]),
        method=method,
        controlled=controlled,
        kept=kept,
    )
