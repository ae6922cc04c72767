"""Optics of the Zernike wavefront sensor and of the deformable mirror.

The sensor (N'Diaye et al. 2013, A&A 555, A94): a phase disc of a little more than one Airy core in the
focal plane delays the core, and in the pupil image that wave interferes with the rest,

    E_out = E + (exp(i theta) - 1) E_ref,

where E_ref is the entrance field low-passed by the disc. Lengths are in pixels of the camera frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import ConfigError
from baldr_tango.names import CORNERS, GRID_SIDE, N_GRID

FRAME_SIDE = 32
"""Pixels along one side of a wavefront-sensor frame."""

_EDGE_SAMPLES = 16


@dataclass(frozen=True)
class Pupil:
    """Entrance pupil on the camera's pixels."""

    side: int
    """Pixels along one side of the frame."""
    diameter: float
    """Outer diameter [pixels]."""
    amplitude: NDArray[np.float64]
    """(side, side) field transmission, 0 to 1: the open fraction of each pixel."""
    pixels: NDArray[np.int64]
    """(p,) flat index of the pixels that receive light."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """(p,) field transmission of the pixels that receive light."""
        return self.amplitude.reshape(-1)[self.pixels]

    @property
    def centre(self) -> float:
        """Row and column of the optical axis [pixels]."""
        return (self.side - 1) / 2.0

    @property
    def rows(self) -> NDArray[np.float64]:
        """(p,) row of each pixel from the axis [pixels]."""
        return (self.pixels // self.side).astype(np.float64) - self.centre

    @property
    def columns(self) -> NDArray[np.float64]:
        """(p,) column of each pixel from the axis [pixels]."""
        return (self.pixels % self.side).astype(np.float64) - self.centre

    def tilts(self) -> NDArray[np.float64]:
        """(2, p) tip (along the columns) and tilt (along the rows), zero mean and unit rms over the pupil."""
        shapes = np.stack([self.columns, self.rows])
        weights = self.weights / self.weights.sum()
        shapes -= (shapes @ weights)[:, None]
        return np.asarray(shapes / np.sqrt(shapes**2 @ weights)[:, None])


def circular_pupil(diameter: float, secondary_ratio: float, side: int = FRAME_SIDE) -> Pupil:
    """Make a round pupil with a round central obstruction, its edges anti-aliased.

    Parameters
    ----------
    diameter : outer diameter [pixels].
    secondary_ratio : diameter of the obstruction over `diameter`.
    side : pixels along one side of the frame; the pupil is centred in it.

    Raises
    ------
    ConfigError : the pupil is larger than the frame, or nothing of it is open.
    """
    if not 2.0 <= diameter <= side or not 0.0 <= secondary_ratio < 1.0:
        raise ConfigError(
            f"pupil_pixels {diameter}, secondary_ratio {secondary_ratio}: allowed are 2 to {side} pixels "
            "and a ratio of 0 to below 1"
        )
    step = (np.arange(side * _EDGE_SAMPLES) + 0.5) / _EDGE_SAMPLES - side / 2.0
    radius = np.hypot(step[:, None], step[None, :])
    is_open = (radius <= diameter / 2.0) & (radius >= secondary_ratio * diameter / 2.0)
    amplitude = is_open.reshape(side, _EDGE_SAMPLES, side, _EDGE_SAMPLES).mean(axis=(1, 3))
    return Pupil(side, diameter, amplitude, np.flatnonzero(amplitude > 0.0))


def bessel_j1(x: ArrayLike) -> NDArray[np.float64]:
    """Bessel function J1, by the trapezoidal rule on Bessel's integral (Abramowitz & Stegun 9.1.21).

    Converges faster than any power of the node count; 1e-13 for abs(x) up to 60.
    """
    nodes = (np.arange(128) + 0.5) * np.pi / 128
    argument = np.asarray(x, dtype=np.float64)[..., None]
    return np.asarray(np.cos(nodes - argument * np.sin(nodes)).mean(axis=-1))


def reference_wave_kernel(
    pupil: Pupil, mask_diameter: float, points: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Operator from the field on the pupil pixels to the wave that passed the mask's disc.

    The focal plane is integrated in closed form: a disc of radius a [lambda/D] has the Fourier transform
    a J1(2 pi a r) / r (r in units of D), so no focal-plane sampling enters.

    Parameters
    ----------
    mask_diameter : diameter of the disc [lambda/D].
    points : (n, 2) row and column from the axis [pixels]; the frame's pixels when not given.

    Returns
    -------
    (n, p) real matrix.
    """
    if points is None:
        axis = np.arange(pupil.side) - pupil.centre
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    distance = np.hypot(
        points[:, 0, None] - pupil.rows[None, :], points[:, 1, None] - pupil.columns[None, :]
    ) / (pupil.diameter)
    values, inverse = np.unique(np.round(distance, 12), return_inverse=True)
    a = mask_diameter / 2.0
    safe = np.where(values > 0.0, values, 1.0)
    profile = np.where(values > 0.0, a * bessel_j1(2.0 * np.pi * a * safe) / safe, np.pi * a**2)
    return np.asarray(profile[inverse].reshape(distance.shape) / pupil.diameter**2)


@dataclass(frozen=True)
class ReferenceWave:
    """Low-rank form of `reference_wave_kernel`: E_ref = spread.T @ (project @ E)."""

    project: NDArray[np.float32]
    """(r, p) field on the pupil pixels -> coefficients."""
    spread: NDArray[np.float32]
    """(r, side * side) coefficients -> field on the frame."""
    error: float
    """Largest singular value left out over the largest kept."""


def reference_wave(pupil: Pupil, mask_diameter: float, accuracy: float = 1e-4) -> ReferenceWave:
    """Factorise the reference-wave operator.

    The disc passes only about pi/4 (mask_diameter)**2 modes, so a dozen terms reproduce the operator to
    `accuracy` (relative, in the operator norm, for fields weighted with the pupil's transmission).
    """
    weights = pupil.weights
    left, values, right = np.linalg.svd(
        reference_wave_kernel(pupil, mask_diameter) * weights, full_matrices=False
    )
    rank = int(np.count_nonzero(values > accuracy * values[0]))
    error = float(values[rank] / values[0]) if rank < values.size else 0.0
    return ReferenceWave(
        project=np.ascontiguousarray(right[:rank] / weights, dtype=np.float32),
        spread=np.ascontiguousarray((left[:, :rank] * values[:rank]).T, dtype=np.float32),
        error=error,
    )


def influence_functions(
    pupil: Pupil, pitch: float, coupling: float, points: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Gaussian influence functions of the 12x12 mirror, centred on the pupil.

    ``coupling ** ((distance / pitch) ** 2)``: 1 at the actuator, `coupling` at its neighbour.

    Parameters
    ----------
    pitch : distance of two actuators [pixels].
    coupling : displacement at the neighbour's place, 0 to 1.
    points : (n, 2) row and column from the axis [pixels]; the pupil's pixels when not given.

    Returns
    -------
    (144, n) one row per grid point; the rows of the four corners are zero.
    """
    if not pitch > 0.0 or not 0.0 < coupling < 1.0:
        raise ConfigError(
            f"DM pitch {pitch} pixels, coupling {coupling}: allowed are > 0 and between 0 and 1"
        )
    if points is None:
        points = np.stack([pupil.rows, pupil.columns], axis=-1)
    grid = (np.arange(GRID_SIDE) - (GRID_SIDE - 1) / 2.0) * pitch
    along_rows = coupling ** (((grid[:, None] - points[None, :, 0]) / pitch) ** 2)
    along_columns = coupling ** (((grid[:, None] - points[None, :, 1]) / pitch) ** 2)
    shapes = (along_rows[:, None, :] * along_columns[None, :, :]).reshape(N_GRID, -1)
    shapes[list(CORNERS)] = 0.0
    return np.asarray(shapes)
