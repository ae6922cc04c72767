"""Parameters of the real-time loop, derived from a calibration and the settings of a beam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.runtime import LimitSettings

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
    """"PID" or "LEAKY"."""
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
    warnings: tuple[str, ...] = ()
