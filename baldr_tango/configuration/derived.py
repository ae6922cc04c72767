"""Parameters of the real-time loop, derived from a calibration and the settings of a beam.

This is the one place where values are derived: the loop, the commands and the simulator take them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.kalman import KalmanModel, default_model
from baldr_tango.configuration.photometry import Photometry, bad_pixels_of, photometry_of
from baldr_tango.configuration.runtime import BeamSettings, ControlSettings, LimitSettings
from baldr_tango.configuration.sanity import corner_points, reconstructor_notes
from baldr_tango.configuration.schema import Found, fault
from baldr_tango.errors import ConfigError

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ControllerSettings:
    """Gains and bounds of the controller of one loop, one value per mode (M,)."""

    kp: FloatArray
    ki: FloatArray
    kd: FloatArray
    leak: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, eq=False)
class LoopParameters:
    """What the real-time loop of one beam computes with.

    Sizes: P pixels of the frame, A signals (actuators), L and H low-order and high-order modes,
    G points of the DM map.
    """

    beam: int
    mask: str
    mode: str
    config_file: str
    config_sha256: str
    controller_type_lo: str
    """PID, LEAKY or KALMAN."""
    controller_type_ho: str
    frame_shape: tuple[int, int]
    """Rows and columns of a frame, P = rows * columns."""
    frame_rate_hz: float
    gain: float
    """Camera gain."""
    dark: FloatArray
    """(P,) pedestal and dark signal of a frame [ADU]."""
    bad_pixels: IndexArray
    """(k,) flat indices."""
    bad_pixel_rule: str
    """"neighbours": already folded into the matrices; "median": the loop repairs the frame."""
    pixels_to_actuators: FloatArray
    """(A, P) interpolation from pixels to actuators."""
    flux_weights: FloatArray
    """(P,) weight of each pixel in the flux of a frame."""
    reference: FloatArray
    """(A,) intensity with the phase mask, per unit flux."""
    clear_pupil: FloatArray
    """(A,) intensity without the phase mask, per unit flux."""
    signal_mask: NDArray[np.bool_]
    """(A,) False where there is no light to normalise by: the signal is 0 there."""
    reconstructor_lo: FloatArray
    """(L, A) signal to low-order modes [DM units]."""
    reconstructor_ho: FloatArray
    """(H, A) signal to high-order modes [DM units]."""
    mode_shapes_lo: FloatArray
    """(G, L) low-order modes on the DM map; corner rows are 0."""
    mode_shapes_ho: FloatArray
    """(G, H) high-order modes on the DM map; corner rows are 0."""
    exterior_pixels: IndexArray
    """Flat indices of the ring outside the pupil where the dot diffracts light."""
    control_lo: ControllerSettings
    control_ho: ControllerSettings
    limits: LimitSettings
    boxcar: int
    nm_per_dm_unit: float
    wavelength_nm: float
    strehl_line: tuple[float, float]
    """Slope and intercept of the measured line from secondary-pixel intensity to residual (DM rms)."""
    interaction_matrix: FloatArray | None
    """(L + A, A) measured response of the signal to each mode, then to each actuator [1/DM unit]."""
    kalman_lo: KalmanModel | None = None
    """Model for the controller type KALMAN; None: no gain."""
    kalman_ho: KalmanModel | None = None
    secondary_pixel: int = 0
    """Flat index of the centre of the secondary obstruction."""
    strehl_model: str = "residual"
    """"residual": Strehl from the high-order errors; "secondary": from `strehl_line` at `secondary_pixel`."""
    warnings: tuple[str, ...] = ()


def derive(
    calibration: Calibration,
    settings: BeamSettings,
    *,
    frame_rate_hz: float | None = None,
    gain: float | None = None,
) -> LoopParameters:
    """Derive the parameters of the loop.

    Parameters
    ----------
    frame_rate_hz : frame rate that the camera reports [Hz]; None: ``loop.frame_rate_hz``, or that of
        the calibration file if it is 0.
    gain : camera gain; None: that of the calibration file.

    Raises
    ------
    ConfigError
        When a gain vector does not fit the number of modes, or the references hold no light. What can be
        helped is put right and told in `LoopParameters.warnings`.
    """
    notes = list(calibration.warnings)
    rate = _frame_rate(calibration, settings, frame_rate_hz)
    camera_gain = calibration.gain if gain is None else gain
    if not (math.isfinite(camera_gain) and camera_gain > 0):
        raise ConfigError(f"camera gain of beam {settings.beam}: found {gain}, expected a positive number")
    bad = bad_pixels_of(calibration, notes)
    light = photometry_of(calibration, settings.loop, bad, rate, camera_gain, notes)
    notes += reconstructor_notes(calibration)
    control_lo = _controller(settings, "control_lo", settings.control_lo, calibration.I2M_LO.shape[0])
    control_ho = _controller(settings, "control_ho", settings.control_ho, calibration.I2M_HO.shape[0])
    return LoopParameters(
        beam=settings.beam,
        mask=calibration.mask,
        mode=settings.mode,
        config_file=str(calibration.file),
        config_sha256=calibration.sha256,
        controller_type_lo=settings.control_lo.type or calibration.controller_type,
        controller_type_ho=settings.control_ho.type or calibration.controller_type,
        frame_shape=calibration.frame_shape,
        frame_rate_hz=rate,
        gain=camera_gain,
        dark=light.dark,
        bad_pixels=bad,
        bad_pixel_rule=settings.loop.bad_pixels,
        pixels_to_actuators=light.pixels_to_actuators,
        flux_weights=light.flux_weights,
        reference=light.reference,
        clear_pupil=light.clear_pupil,
        signal_mask=_signal_mask(calibration, light, notes),
        reconstructor_lo=calibration.I2M_LO.copy(),
        reconstructor_ho=calibration.I2M_HO.copy(),
        mode_shapes_lo=_mode_shapes(calibration, "M2C_LO", notes),
        mode_shapes_ho=_mode_shapes(calibration, "M2C_HO", notes),
        exterior_pixels=light.exterior_pixels,
        secondary_pixel=calibration.secondary_pixel,
        strehl_model=_strehl_model(calibration, settings, notes),
        control_lo=control_lo,
        control_ho=control_ho,
        kalman_lo=default_model(control_lo.ki, control_lo.leak),
        kalman_ho=default_model(control_ho.ki, control_ho.leak),
        limits=settings.limits,
        boxcar=settings.loop.boxcar,
        nm_per_dm_unit=settings.loop.nm_per_dm_unit,
        wavelength_nm=settings.loop.wavelength_nm,
        strehl_line=(float(calibration.I2rms_sec[0, 0]), float(calibration.I2rms_sec[1, 1])),
        interaction_matrix=None if calibration.IM is None else calibration.IM.copy(),
        warnings=tuple(notes),
    )


def _frame_rate(calibration: Calibration, settings: BeamSettings, measured: float | None) -> float:
    rate = settings.loop.frame_rate_hz or calibration.frame_rate_hz if measured is None else measured
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(
            f"frame rate of beam {settings.beam}: found {measured}, expected a positive number [Hz]"
        )
    return rate


def _controller(
    settings: BeamSettings, table: str, control: ControlSettings, modes: int
) -> ControllerSettings:
    """Return one value per mode; a single number holds for all of them."""
    vectors = {}
    for name in ("kp", "ki", "kd", "leak", "lower", "upper"):
        value = np.asarray(getattr(control, name), dtype=np.float64)
        if value.ndim and value.size != modes:
            found = Found(f"{value.size} items")
            raise fault(
                settings.runtime_file, f"{table}.{name}", found, f"one number, or {modes} (one per mode)"
            )
        vectors[name] = np.broadcast_to(value, (modes,)).copy()
    return ControllerSettings(**vectors)


def lit_signals(clear_pupil: FloatArray) -> NDArray[np.bool_]:
    """(A,) False where there is no light to normalise a signal by."""
    return np.asarray(clear_pupil > 1e-6 * clear_pupil.max())


def _signal_mask(calibration: Calibration, light: Photometry, notes: list[str]) -> NDArray[np.bool_]:
    """Say which signals have light to be normalised by."""
    mask = lit_signals(light.clear_pupil)
    if dark := int((~mask).sum()):
        notes.append(
            f"{calibration.file}: {calibration.table}.norm_pupil: no light at {dark} of {mask.size}"
            " actuators: their signal is taken as 0"
        )
    return mask


def _strehl_model(calibration: Calibration, settings: BeamSettings, notes: list[str]) -> str:
    """Return the wanted model; the secondary one needs a measured line, which the identity is not."""
    wanted = settings.loop.strehl_model
    if wanted == "secondary" and np.array_equal(calibration.I2rms_sec, np.eye(2)):
        notes.append(
            f"{calibration.file}: {calibration.table}.I2rms_sec: not measured (identity): Strehl ratio from"
            " the high-order residual instead (loop.strehl_model)"
        )
        return "residual"
    return wanted


def _mode_shapes(calibration: Calibration, name: str, notes: list[str]) -> FloatArray:
    """Return modes on the DM map, with nothing at the corners, where there is no actuator."""
    shapes: FloatArray = getattr(calibration, name).copy()
    corners = corner_points(calibration)
    if found := int(np.count_nonzero(shapes[corners])):
        notes.append(
            f"{calibration.file}: {calibration.table}.{name}: {found} values at the corners of the DM map,"
            " which have no actuator: set to 0"
        )
    shapes[corners] = 0.0
    return shapes
