"""What a calibration says about itself: warnings that the loop can live with."""

from __future__ import annotations

import math

import numpy as np

from baldr_tango.configuration.calibration_table import Calibration

MIN_CORRELATION = 0.8
"""Least correlation of a measured low-order response with that predicted from the pokes."""

GAIN_RANGE = (0.5, 2.0)
"""Measured over predicted low-order response; real files have 0.77 to 0.80, as large modes saturate."""


def corner_points(calibration: Calibration) -> list[int]:
    """Return the points of the DM map without an actuator: its corners, if it has 4 more than signals."""
    grid, signals = calibration.sza, calibration.I2A.shape[0]
    side = math.isqrt(grid)
    if side * side != grid or grid - 4 != signals:
        return []
    return [0, side - 1, grid - side, grid - 1]


def reconstructor_notes(calibration: Calibration) -> list[str]:
    """Return warnings about modes that are not controlled, and responses that do not fit together."""
    notes = []
    for name in ("I2M_LO", "I2M_HO"):
        matrix = getattr(calibration, name)
        if zero := int((~matrix.any(axis=1)).sum()):
            notes.append(
                f"{calibration.file}: {calibration.table}.{name}: {zero} of {matrix.shape[0]} rows"
                " are all zero: these modes are not controlled"
            )
    return notes + _low_order_notes(calibration)


def _low_order_notes(calibration: Calibration) -> list[str]:
    """Compare each measured low-order response with the sum of the pokes that make up its shape.

    For small commands the signal is linear: IM_LO = M2C_LO(actuators)^T . IM_pokes. A wrong sign, a
    transposed map or exchanged tip and tilt show here.
    """
    actuators = np.delete(np.arange(calibration.sza), corner_points(calibration))
    if calibration.IM is None or actuators.size != calibration.IM.shape[0] - calibration.LO:
        return []
    measured, pokes = calibration.IM[: calibration.LO], calibration.IM[calibration.LO :]
    predicted = calibration.M2C_LO[actuators].T @ pokes
    notes = []
    for mode, (found, expected) in enumerate(zip(measured, predicted, strict=True)):
        norms = float(np.linalg.norm(found)), float(np.linalg.norm(expected))
        correlation = float(found @ expected) / (norms[0] * norms[1]) if all(norms) else 0.0
        ratio = norms[0] / norms[1] if norms[1] else math.inf
        if correlation < MIN_CORRELATION or not GAIN_RANGE[0] <= ratio <= GAIN_RANGE[1]:
            notes.append(
                f"{calibration.file}: {calibration.table}.IM: row {mode} (low-order mode) does not fit the"
                f" pokes: correlation {correlation:.2f}, ratio {ratio:.2f} with the prediction from M2C_LO"
            )
    return notes
