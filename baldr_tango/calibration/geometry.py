"""Where things are on the detector: pupil, secondary, exterior ring, actuators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import BackendError
from baldr_tango.names import ACTUATOR_INDEX, GRID_SIDE

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

REGISTRATION_POKES = (50, 53, 86, 89)
"""Actuators (of 140) whose spots tell where the mirror is: a square around its centre."""

EXTERIOR_RADII = (7.0 / 6.0, 11.0 / 6.0)
"""Inner and outer radius of the exterior ring over that of the pupil: 7 and 11 pixels of 6."""

_SECONDARY_RADIUS = 0.3
_WINDOW = 2
_MOST_UNEXPLAINED = 0.2  # of the variance around a spot


@dataclass(frozen=True)
class PixelMasks:
    """Parts of a frame, each (rows, columns) of booleans."""

    pupil: BoolArray
    """Outer disc of the pupil, the secondary included."""
    interior: BoolArray
    """Pupil without its border and without the secondary."""
    secondary: BoolArray
    """3x3 box at the secondary obstruction."""
    exterior: BoolArray
    """Ring outside the pupil that the mask's dot illuminates."""


def pixel_masks(clear: FloatArray, masked: FloatArray, threshold: float = 0.05) -> PixelMasks:
    """Find the parts of a frame.

    Parameters
    ----------
    clear, masked : (rows, columns) dark-subtracted frames without and with the phase mask [ADU].
    threshold : change of intensity that makes a pixel of the ring one of the exterior, over the mean of the
        clear pupil.

    Raises
    ------
    BackendError : there is no pupil.
    """
    bright = _bright_disc(clear)
    grid = np.indices(clear.shape).astype(np.float64)
    rows, columns = grid[0], grid[1]
    centre = rows[bright].mean(), columns[bright].mean()
    distance = np.hypot(rows - centre[0], columns - centre[1])
    radius = float(np.sqrt(bright.sum() / np.pi))
    pupil = bright | (distance < _SECONDARY_RADIUS * radius)
    secondary = np.zeros_like(pupil)
    r, c = (int(np.floor(x + 0.5)) for x in centre)
    secondary[r - 1 : r + 2, c - 1 : c + 2] = True
    interior = pupil & ~secondary
    padded = np.pad(pupil, 1)
    for dr in (0, 1, 2):
        for dc in (0, 1, 2):
            interior &= padded[dr : dr + clear.shape[0], dc : dc + clear.shape[1]]
    ring = ~pupil & (distance >= EXTERIOR_RADII[0] * radius) & (distance <= EXTERIOR_RADII[1] * radius)
    exterior = ring & (np.abs(masked - clear) > threshold * float(clear[pupil].mean()))
    return PixelMasks(pupil, interior, secondary, exterior if exterior.any() else ring)


def _bright_disc(clear: FloatArray) -> BoolArray:
    """Pixels brighter than half the typical one, without those that lie far from the others."""
    lit = clear[clear > max(0.3 * float(np.percentile(clear, 99)), 0.0)]
    bright = clear > (0.5 * float(np.median(lit)) if lit.size else np.inf)
    found = int(bright.sum())
    if 8 <= found <= 0.8 * clear.size:
        rows, columns = np.nonzero(bright)
        distance = np.hypot(rows - np.median(rows), columns - np.median(columns))
        stray = distance > 1.5 * np.sqrt(found / np.pi)
        bright[rows[stray], columns[stray]] = False
        if stray.mean() < 0.1:
            return np.asarray(bright)
    raise BackendError(f"no pupil in the frame: {found} of {clear.size} pixels are bright, but not as a disc")


def fit_spot(image: FloatArray) -> tuple[float, float]:
    """Place of the spot in the difference of two pokes: Gaussian plus constant, by damped least squares.

    Parameters
    ----------
    image : (rows, columns), zero outside the pupil; the spot may be positive or negative.

    Returns
    -------
    row, column [pixels].

    Raises
    ------
    BackendError : no spot of a plausible width was found.
    """
    row, column = divmod(int(np.argmax(np.abs(image))), image.shape[1])
    top, left = max(row - _WINDOW, 0), max(column - _WINDOW, 0)
    patch = image[top : top + 2 * _WINDOW + 1, left : left + 2 * _WINDOW + 1]
    grid = np.indices(patch.shape).astype(np.float64)
    rows, columns = grid[0], grid[1]
    x = np.array([image[row, column], row - top, column - left, 0.8, 0.0])
    damping = 1e-3
    residual, jacobian = _spot_residual(patch, rows, columns, x)
    for _ in range(50):
        normal = jacobian.T @ jacobian
        scaled = normal + damping * np.diag(np.diag(normal) + 1e-12)
        step = np.linalg.solve(scaled, -jacobian.T @ residual)
        trial_residual, trial_jacobian = _spot_residual(patch, rows, columns, x + step)
        if trial_residual @ trial_residual < residual @ residual:
            x, residual, jacobian = x + step, trial_residual, trial_jacobian
            damping *= 0.3
            if np.abs(step[1:3]).max() < 1e-6:
                break
        else:
            damping *= 10.0
    inside = abs(x[1] + top - row) < 1.5 and abs(x[2] + left - column) < 1.5
    explained = float(residual @ residual) < _MOST_UNEXPLAINED * float(np.sum((patch - patch.mean()) ** 2))
    if not (inside and explained and 0.2 < abs(x[3]) < 3.0):
        raise BackendError(
            f"no actuator spot near pixel ({row}, {column}): fitted centre ({x[1] + top:.2f}, "
            f"{x[2] + left:.2f}), width {abs(x[3]):.2f} pixels"
        )
    return float(x[1] + top), float(x[2] + left)


def _spot_residual(
    patch: FloatArray, rows: FloatArray, columns: FloatArray, x: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Residual and Jacobian of height, row, column, width, offset."""
    dr, dc = rows - x[1], columns - x[2]
    square = dr**2 + dc**2
    shape = np.exp(-0.5 * square / x[3] ** 2)
    height = x[0] * shape
    derivatives = [shape, height * dr / x[3] ** 2, height * dc / x[3] ** 2, height * square / x[3] ** 3]
    jacobian = np.stack([*derivatives, np.ones_like(shape)], axis=-1).reshape(-1, 5)
    return (height + x[4] - patch).reshape(-1), jacobian


def register_actuators(spots: ArrayLike, tolerance: float = 0.4) -> FloatArray:
    """Place all actuators on the detector by an affine transform through four spots.

    Parameters
    ----------
    spots : (4, 2) row and column of the spots of `REGISTRATION_POKES` [pixels].
    tolerance : largest distance of a spot from the transform [pixels].

    Returns
    -------
    (140, 2) row and column of every actuator [pixels].

    Raises
    ------
    BackendError : the four spots are no parallelogram, or all but coincide.
    """
    found = np.asarray(spots, dtype=np.float64)
    centred = np.stack(np.divmod(ACTUATOR_INDEX, GRID_SIDE), axis=-1) - (GRID_SIDE - 1) / 2.0
    design = np.hstack([np.ones((centred.shape[0], 1)), centred])
    four = design[list(REGISTRATION_POKES)]
    transform, *_ = np.linalg.lstsq(four, found, rcond=None)
    worst = float(np.abs(four @ transform - found).max())
    area = abs(float(np.linalg.det(transform[1:])))
    if worst > tolerance or not 0.05 < area < 100.0:
        raise BackendError(
            f"actuator spots at {np.round(found, 2).tolist()}: {worst:.2f} pixels off an affine grid "
            f"(allowed {tolerance}), {area:.3f} square pixels per actuator"
        )
    return np.asarray(design @ transform)


def bilinear_matrix(places: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Bilinear interpolation from the pixels to some places.

    Parameters
    ----------
    places : (A, 2) row and column [pixels].
    shape : rows and columns of a frame.

    Returns
    -------
    (A, rows * columns): four weights in a row, which sum to 1.

    Raises
    ------
    BackendError : a place lies outside the frame.
    """
    corner = np.floor(places).astype(np.int64)
    if (corner < 0).any() or (corner + 1 >= np.asarray(shape)).any():
        raise BackendError(f"actuators reach beyond the frame of {shape[0]} x {shape[1]} pixels")
    fraction = places - corner
    matrix = np.zeros((places.shape[0], shape[0] * shape[1]))
    index = np.arange(places.shape[0])
    for dr in (0, 1):
        for dc in (0, 1):
            weight = np.abs(1 - dr - fraction[:, 0]) * np.abs(1 - dc - fraction[:, 1])
            matrix[index, (corner[:, 0] + dr) * shape[1] + corner[:, 1] + dc] += weight
    return matrix
