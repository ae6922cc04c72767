"""Figures that tell a good calibration from a bad one: matrices, actuators, pixels, references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.calibration import Calibration
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.sanity import GAIN_RANGE, MIN_CORRELATION, corner_points

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

DEAD_BELOW: Final = 0.1
"""Response over the median in the pupil below which an actuator counts as dead."""

HOT_ABOVE: Final = 3.0
"""Response over the median in the pupil above which an actuator counts as hot."""

MOST_CONDITION_LO: Final = 10.0
"""Condition number of the low-order responses above which they can hardly be told apart."""

MOST_CONDITION: Final = 3000.0
"""Condition number of all controlled responses above which noise will be amplified too much."""

MOST_BAD_PIXELS: Final = 0.05
"""Share of bad pixels in the pupil that is still usual."""

CORRELATION_RANGE: Final = (0.5, 0.995)
"""Usual correlation of the frames with and without phase mask; real ones have 0.9."""

FLUX_RANGE: Final = (0.3, 3.0)
"""Usual flux with the phase mask over that without; real files have 0.94."""


@dataclass(frozen=True)
class Conditions:
    """Condition numbers of responses that the reconstructors use; None without an interaction matrix."""

    low_order: float | None = None
    high_order: float | None = None
    all: float | None = None

    def warnings(self) -> list[str]:
        """Say which responses can hardly be told apart."""
        limits = {"low-order": (self.low_order, MOST_CONDITION_LO), "all": (self.all, MOST_CONDITION)}
        return [
            f"interaction matrix: condition number of the {name} responses is {value:.3g}, more than {most:g}"
            for name, (value, most) in limits.items()
            if value is not None and not value <= most
        ]


@dataclass(frozen=True)
class Actuators:
    """Actuators by their response in the interaction matrix; numbers are those of 140."""

    in_pupil: int
    controlled: int
    dead: tuple[int, ...] = ()
    hot: tuple[int, ...] = ()

    def warnings(self) -> list[str]:
        """Name the actuators that do not answer as the others do."""
        notes = []
        if self.dead:
            notes.append(
                f"dead actuators in the pupil: {_numbers(self.dead)} (response below {DEAD_BELOW:g} x median)"
            )
        if self.hot:
            notes.append(
                f"hot actuators in the pupil: {_numbers(self.hot)} (response above {HOT_ABOVE:g} x median)"
            )
        return notes


@dataclass(frozen=True)
class BadPixels:
    """How many pixels cannot be used."""

    count: int
    share: float
    share_in_pupil: float

    def warnings(self) -> list[str]:
        """Tell when the pupil has too many of them."""
        if self.share_in_pupil <= MOST_BAD_PIXELS:
            return []
        return [f"{100 * self.share_in_pupil:.0f} % of the pixels in the pupil are bad"]


@dataclass(frozen=True)
class References:
    """Frames with (I0) and without (N0) phase mask against each other; None where it cannot be told."""

    correlation: float | None
    """Over the whole frame."""
    correlation_in_pupil: float | None
    sum_I0: float
    """[ADU], or 1 when it was normalised."""
    sum_N0: float
    """[ADU]"""
    flux_ratio: float | None
    """Flux with the phase mask over that without."""
    negative_I0: int
    """Negative pixels in the pupil."""
    negative_N0: int

    def warnings(self) -> list[str]:
        """Tell what is unusual of a phase mask in and out of the beam."""
        notes = []
        low, high = CORRELATION_RANGE
        if self.correlation is not None and self.correlation > high:
            notes.append(
                f"I0 and N0 show the same picture (correlation {self.correlation:.4f}):"
                " was the phase mask in for I0 and out for N0?"
            )
        elif self.correlation is not None and self.correlation < low:
            notes.append(f"I0 and N0 do not show the same pupil: correlation {self.correlation:.2f}")
        if self.flux_ratio is not None and not FLUX_RANGE[0] <= self.flux_ratio <= FLUX_RANGE[1]:
            notes.append(
                f"flux of I0 is {self.flux_ratio:.2g} x that of N0,"
                f" usual are {FLUX_RANGE[0]:g} to {FLUX_RANGE[1]:g}"
            )
        for name, count in (("I0", self.negative_I0), ("N0", self.negative_N0)):
            if count:
                notes.append(f"{name}: {count} pixels in the pupil are negative")
        return notes


@dataclass(frozen=True)
class LowOrderMatch:
    """Measured response of a low-order mode against that predicted from the pokes and its shape."""

    mode: int
    correlation: float
    ratio: float
    """Size of the measured response over that of the predicted one."""

    def warnings(self) -> list[str]:
        """Tell of a response that the shape cannot have caused."""
        if self.correlation < -0.5:
            text = "has the opposite sign of the response predicted from the pokes: its loop would run away"
        elif self.correlation < MIN_CORRELATION or not GAIN_RANGE[0] <= self.ratio <= GAIN_RANGE[1]:
            text = "does not fit the response predicted from the pokes and M2C_LO"
        else:
            return []
        return [
            f"low-order mode {self.mode}: the measured response {text}"
            f" (correlation {self.correlation:.2f}, ratio {self.ratio:.2f})"
        ]


def actuator_points(grid: int, actuators: int) -> NDArray[np.int64] | None:
    """Points of the DM map that have an actuator; None when map and actuators do not fit."""
    if grid == actuators:
        return np.arange(grid)
    side = math.isqrt(grid)
    if side * side != grid or grid - 4 != actuators:
        return None
    return np.delete(np.arange(grid), [0, side - 1, grid - side, grid - 1])


def conditions(parameters: LoopParameters) -> Conditions:
    """Condition numbers (2-norm) of the responses of the modes that the reconstructors use."""
    matrix = parameters.interaction_matrix
    if matrix is None:
        return Conditions()
    modes = parameters.reconstructor_lo.shape[0]
    low = np.any(parameters.reconstructor_lo != 0.0, axis=1)
    high = np.zeros(matrix.shape[0] - modes, dtype=bool)
    used = np.any(parameters.reconstructor_ho != 0.0, axis=1)
    high[: used.size] = used[: high.size]
    seen = matrix[:, parameters.signal_mask]
    return Conditions(
        _condition(seen[:modes][low]),
        _condition(seen[modes:][high]),
        _condition(seen[np.concatenate([low, high])]),
    )


def actuators(calibration: Calibration, parameters: LoopParameters) -> Actuators:
    """Find actuators in the pupil that answer far less or far more than the others.

    The response is the norm of the signal at the actuator and its neighbours, so that noise elsewhere does
    not hide a dead one.
    """
    visible = calibration.I2A @ calibration.pupil > 0.5
    controlled = int(np.any(parameters.reconstructor_ho != 0.0, axis=1).sum())
    matrix = parameters.interaction_matrix
    points = np.delete(np.arange(calibration.sza), corner_points(calibration))
    pokes = None if matrix is None else matrix[calibration.LO :]
    if pokes is None or pokes.shape != (points.size, points.size) or not visible.any():
        return Actuators(int(visible.sum()), controlled)
    rows, columns = np.divmod(points, math.isqrt(calibration.sza))
    near = (np.abs(rows[:, None] - rows) <= 1) & (np.abs(columns[:, None] - columns) <= 1)
    response = np.sqrt((pokes**2 * near).sum(axis=1))
    relative = response / max(float(np.median(response[visible])), 1e-300)
    return Actuators(
        int(visible.sum()),
        controlled,
        tuple(map(int, np.flatnonzero(visible & (relative < DEAD_BELOW)))),
        tuple(map(int, np.flatnonzero(visible & (relative > HOT_ABOVE)))),
    )


def bad_pixels(calibration: Calibration, parameters: LoopParameters) -> BadPixels:
    """Count the bad pixels that are in force."""
    bad = parameters.bad_pixels
    in_pupil = np.isin(calibration.pupil_pixels, bad)
    return BadPixels(
        int(bad.size),
        bad.size / max(calibration.I0.size, 1),
        float(in_pupil.mean()) if in_pupil.size else 0.0,
    )


def references(calibration: Calibration) -> References:
    """Compare the frames with and without phase mask as they stand in the file."""
    masked, clear, pupil = calibration.I0, calibration.N0, calibration.pupil_pixels
    sums = float(masked.sum()), float(clear.sum())
    # A normalised I0 has lost its flux; newer files keep it in a key of its own, 1 meaning unknown.
    flux = sums[0] if sums[0] > 2.0 else calibration.intrn_flx_I0
    return References(
        _correlation(masked, clear),
        _correlation(masked[pupil], clear[pupil]),
        *sums,
        flux / sums[1] if flux > 2.0 and sums[1] > 2.0 else None,
        int((masked[pupil] < 0).sum()),
        int((clear[pupil] < 0).sum()),
    )


def low_order(parameters: LoopParameters) -> tuple[LowOrderMatch, ...]:
    """Compare measured low-order responses with ``M2C_LO^T IM_pokes``, which holds for small commands."""
    matrix, shapes = parameters.interaction_matrix, parameters.mode_shapes_lo
    if matrix is None:
        return ()
    modes = shapes.shape[1]
    points = actuator_points(shapes.shape[0], matrix.shape[0] - modes)
    if points is None:
        return ()
    matches = []
    predicted = shapes[points].T @ matrix[modes:]
    for mode, (found, expected) in enumerate(zip(matrix[:modes], predicted, strict=True)):
        norms = float(np.linalg.norm(found)), float(np.linalg.norm(expected))
        correlation = float(found @ expected) / (norms[0] * norms[1]) if all(norms) else 0.0
        matches.append(LowOrderMatch(mode, correlation, norms[0] / norms[1] if norms[1] else 0.0))
    return tuple(matches)


def _condition(rows: FloatArray) -> float | None:
    """Largest over smallest singular value, may be infinite; None without rows."""
    if not rows.size:
        return None
    singular = np.linalg.svd(rows, compute_uv=False)
    if singular[-1] <= 1e-14 * singular[0]:
        return math.inf
    return float(singular[0] / singular[-1])


def _correlation(one: FloatArray, other: FloatArray) -> float | None:
    if one.size < 2 or not one.std() or not other.std():
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _numbers(found: tuple[int, ...], most: int = 12) -> str:
    shown = ", ".join(map(str, found[:most]))
    return shown if len(found) <= most else f"{shown} and {len(found) - most} more"
