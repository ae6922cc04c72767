"""From measured frames to the contents of a calibration file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.geometry import PixelMasks
from baldr_tango.calibration.inversion import (
    usable_actuators,
    without_tip_tilt,
    zonal_reconstructor,
    zonal_shapes,
)
from baldr_tango.configuration.calibration import Calibration
from baldr_tango.names import N_ACTUATORS, N_GRID

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """What a calibration measured of one beam; P pixels, A = 140 actuators, L modes."""

    dark: FloatArray
    """(P,) level without light [ADU per frame]."""
    clear: FloatArray
    """(P,) clear pupil, dark subtracted [ADU]."""
    masked: FloatArray
    """(P,) reference with the phase mask, dark subtracted [ADU]."""
    masks: PixelMasks
    interpolation: FloatArray
    """(A, P) pixels to actuators."""
    visibility: FloatArray
    """(A,) fraction of each actuator inside the pupil."""
    mode_shapes: FloatArray
    """(144, L) low-order modes."""
    responses: FloatArray
    """(L + A, P) change of the frame, over its sum, per DM unit of each mode and each actuator."""

    def divisor(self) -> FloatArray:
        """Clear pupil for use as divisor, over the sum of the frame: constant outside the interior, (P,)."""
        interior = self.masks.interior.reshape(-1)
        filled = np.where(interior, self.clear, self.clear[interior].mean())
        return np.asarray(filled / self.clear.sum())

    def interaction_matrix(self) -> FloatArray:
        """Response of the loop's signal to each mode and each actuator, (L + A, A) [1/DM unit].

        The division by the clear pupil comes after the interpolation, as the loop has it.
        """
        return np.asarray((self.responses @ self.interpolation.T) / (self.interpolation @ self.divisor()))


def calibration_of(
    measurement: Measurement,
    *,
    beam: int,
    mask: str,
    frame_rate_hz: float,
    gain: float,
    poke: float,
    least_response: float,
    project_tip_tilt: bool,
    controller_type: str,
) -> Calibration:
    """Turn a measurement into a calibration; see `ProcedureSettings` for the arguments.

    The low-order reconstructor is the pseudo-inverse of the response to tip and tilt; the high-order one is
    1 / response of each actuator in the pupil, with `project_tip_tilt` followed by the removal of tip and
    tilt, which are the low-order loop's.

    Raises
    ------
    BackendError : the actuators in the pupil do not respond.
    """
    modes = measurement.mode_shapes.shape[1]
    matrix = measurement.interaction_matrix()
    response = np.diag(matrix[modes:])
    usable = usable_actuators(response, measurement.visibility, least_response)
    # Out of the errors as well as out of the shapes: an integrator must not collect what never reaches the
    # mirror, or it runs into its limit.
    projector = without_tip_tilt(usable, measurement.mode_shapes) if project_tip_tilt else np.eye(N_ACTUATORS)
    high = projector @ zonal_reconstructor(response, measurement.visibility, usable)
    shapes = zonal_shapes(projector)
    masks = measurement.masks
    rows, columns = masks.pupil.shape
    pixels = rows * columns
    return Calibration(
        beam=beam,
        mask=mask,
        frame_shape=(rows, columns),
        DM_flat="baldr",
        signal_space="dm",
        LO=modes,
        controller_type=controller_type,
        inverse_method_LO="pinv",
        inverse_method_HO="zonal",
        bias=np.zeros(pixels),
        dark=measurement.dark,
        I0=measurement.masked / measurement.masked.sum(),
        N0=measurement.clear,
        norm_pupil=measurement.divisor(),
        I2A=measurement.interpolation,
        I2M_LO=np.linalg.pinv(matrix[:modes]).T,
        I2M_HO=high,
        M2C=np.hstack([measurement.mode_shapes, shapes]),
        M2C_LO=measurement.mode_shapes,
        M2C_HO=shapes,
        I2rms_sec=np.eye(2),
        I2rms_ext=np.eye(2),
        crop_pixels=np.array([0, rows, 0, columns]),
        pupil_pixels=np.flatnonzero(masks.pupil),
        interior_pixels=np.flatnonzero(masks.interior),
        secondary_pixels=np.flatnonzero(masks.secondary),
        exterior_pixels=np.flatnonzero(masks.exterior),
        bad_pixels=np.zeros(0, dtype=np.int64),
        bad_pixel_mask=np.ones(pixels),
        pupil=masks.pupil.reshape(-1).astype(np.float64),
        secondary=masks.secondary.reshape(-1).astype(np.float64),
        exterior=masks.exterior.reshape(-1).astype(np.float64),
        inner_pupil_filt=masks.interior.reshape(-1).astype(np.float64),
        camera_config={"fps": f"{frame_rate_hz:.1f}", "gain": f"{gain:.1f}"},
        sza=N_GRID,
        szm=modes + N_ACTUATORS,
        szp=N_ACTUATORS,
        intrn_flx_I0=float(measurement.masked.sum()),
        IM=matrix,
        poke_amp=poke,
        build_method="double-sided-poke",
    )
