"""References, dark and pixel weights of the loop, from what the calibration file holds.

Two generations of files exist. In the present one, I0 is divided by its own sum and norm_pupil by that
of N0, and dark is in ADU per frame. In the old one all are in ADU/s/gain; their I0 sums to much
more than 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.bad_pixels import fold_repair, repair_with_median
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.schema import Found, fault
from baldr_tango.configuration.settings import LoopSettings

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

OLD_UNITS_SUM = 2.0
"""Sum of I0 above which a file is of the old generation."""

NORMALISED = 0.01
"""Distance from 1 at which the sum of I0 still counts as normalised."""


@dataclass(frozen=True, eq=False)
class Photometry:
    """What frames are compared with; see `LoopParameters` for shapes and units."""

    dark: FloatArray
    pixels_to_actuators: FloatArray
    flux_weights: FloatArray
    reference: FloatArray
    clear_pupil: FloatArray
    exterior_pixels: IndexArray
    reference_image: FloatArray
    """(P,) intensity with the phase mask, per unit flux."""
    clear_image: FloatArray
    """(P,) intensity without the phase mask, for use as divisor, per unit flux."""


def bad_pixels_of(calibration: Calibration, notes: list[str]) -> IndexArray:
    """Return the bad pixels in order; a list that names every pixel is a known mistake and names none."""
    bad = np.unique(calibration.bad_pixels)
    pixels = calibration.I2A.shape[1]
    if bad.size == pixels:
        notes.append(
            f"{calibration.file}: {calibration.table}.bad_pixels: names all {pixels} pixels: taken as none"
        )
        return np.zeros(0, dtype=np.int64)
    if bad.size > pixels // 4:
        notes.append(
            f"{calibration.file}: {calibration.table}.bad_pixels: names {bad.size} of {pixels} pixels"
        )
    return bad.astype(np.int64)


def photometry_of(
    calibration: Calibration,
    loop: LoopSettings,
    bad: IndexArray,
    frame_rate_hz: float,
    gain: float,
    notes: list[str],
) -> Photometry:
    """Derive references, dark and weights; appends a warning to `notes` for whatever was put right."""
    fold = loop.bad_pixels == "neighbours" and bad.size > 0
    shape = calibration.frame_shape
    weights = np.ones(calibration.I2A.shape[1])
    matrix = calibration.I2A.copy()
    if fold:
        weights, matrix = fold_repair(weights, bad, shape), fold_repair(matrix, bad, shape)

    def repaired(frame: FloatArray) -> FloatArray:
        return repair_with_median(frame, bad) if bad.size and not fold else frame

    old = float(calibration.I0.sum()) > OLD_UNITS_SUM
    reference = _reference(calibration, repaired(calibration.I0), weights, old, notes)
    clear = _clear_pupil(calibration, repaired, weights, notes)
    exterior = np.setdiff1d(calibration.exterior_pixels, bad) if fold else calibration.exterior_pixels.copy()
    if not exterior.size:
        notes.append(
            f"{calibration.file}: {calibration.table}.exterior_pixels: no good pixel: no residual estimate"
        )
    return Photometry(
        dark=_dark(calibration, loop, gain / frame_rate_hz if old else None, notes),
        pixels_to_actuators=matrix,
        flux_weights=weights,
        reference=matrix @ reference,
        clear_pupil=matrix @ clear,
        exterior_pixels=exterior,
        reference_image=reference,
        clear_image=clear,
    )


def _reference(
    calibration: Calibration, image: FloatArray, weights: FloatArray, old: bool, notes: list[str]
) -> FloatArray:
    """Return I0 per unit flux; `image` is the repaired I0."""
    where = f"{calibration.table}.I0"
    total, flux = float(calibration.I0.sum()), float(weights @ image)
    if not flux > 0:
        raise fault(calibration.file, where, Found(f"sum {flux:g}"), "an image with light in it")
    if negative := int((calibration.I0 < 0).sum()):
        notes.append(f"{calibration.file}: {where}: {negative} pixels are negative: kept as measured")
    normalised = abs(total - 1) <= NORMALISED
    if not normalised:
        units = " [ADU/s/gain]" if old else ""
        notes.append(f"{calibration.file}: {where}: not normalised, sum {total:g}{units}: divided by its sum")
    if normalised and np.array_equal(image, calibration.I0) and (weights == 1).all():
        return image
    return image / flux


def _clear_pupil(
    calibration: Calibration,
    repaired: Callable[[FloatArray], FloatArray],
    weights: FloatArray,
    notes: list[str],
) -> FloatArray:
    """Return norm_pupil per unit flux of N0.

    A fraction of the sum of a frame is less than 1: larger values are in the units of N0.
    """
    where = f"{calibration.table}.norm_pupil"
    total, flux = float(calibration.N0.sum()), float(weights @ repaired(calibration.N0))
    clear = repaired(calibration.norm_pupil)
    if calibration.norm_pupil.max() >= 1:
        if not flux > 0:
            where = f"{calibration.table}.N0"
            raise fault(calibration.file, where, Found(f"sum {flux:g}"), "an image with light in it")
        notes.append(
            f"{calibration.file}: {where}: not normalised, values up to {clear.max():g}:"
            f" divided by the sum of N0, {flux:g}"
        )
        clear = clear / flux
    elif total > 0 and flux > 0 and flux != total:
        clear = clear * (total / flux)
    if not (calibration.I2A @ clear > 0).any():
        raise fault(calibration.file, where, Found("no light at any actuator"), "a pupil with light in it")
    return clear


def _dark(calibration: Calibration, loop: LoopSettings, scale: float | None, notes: list[str]) -> FloatArray:
    """Return pedestal and dark signal of a frame [ADU]; `scale` is gain / frame rate for old files."""
    where = f"{calibration.file}: {calibration.table}"
    has_bias, has_dark = calibration.bias.any(), calibration.dark.any()
    if not has_bias and not has_dark:
        notes.append(
            f"{where}.dark: all zero: taken as {loop.pedestal_adu:g} ADU everywhere (loop.pedestal_adu)"
        )
        return np.full(calibration.dark.size, loop.pedestal_adu)
    if scale is not None:
        notes.append(
            f"{where}.dark: in ADU/s/gain, as I0 is: taken as bias + dark * {scale:g} (gain / frame rate)"
        )
        return calibration.bias + calibration.dark * scale
    if has_bias and has_dark:
        notes.append(f"{where}.bias: not used, dark is the whole dark frame")
    elif has_bias:
        notes.append(f"{where}.dark: all zero: bias taken for it")
    return (calibration.dark if has_dark else calibration.bias).copy()
