"""The linear plant: frames as the interaction matrix of a calibration file predicts them.

Built backwards from what the real-time loop computes, so that its signal is the interaction matrix times
the command: dark subtraction, flux, pixels to actuators, ``(d - reference) / clear_pupil``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.calibration import Calibration
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.photometry import OLD_UNITS_SUM
from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import LinearPlant
from baldr_tango.names import ACTUATOR_INDEX, N_ACTUATORS, N_GRID
from baldr_tango.simulator.optical import DRIFT_CORNER_HZ


def responding_pixels(parameters: LoopParameters) -> NDArray[np.int64]:
    """Return the flat index of every pixel that reaches an actuator."""
    return np.flatnonzero(np.any(parameters.pixels_to_actuators != 0.0, axis=0))


def pixels_from_signals(parameters: LoopParameters) -> NDArray[np.float64]:
    """Invert the loop's way from pixels to signals.

    Minimum-norm inverse over the pixels that reach an actuator, under the condition that the flux does not
    change: of all images with this signal and no flux, the faintest.

    Returns
    -------
    (n, A) change of the `responding_pixels` per unit signal, per unit flux.
    """
    pixels = responding_pixels(parameters)
    forward = np.vstack([parameters.pixels_to_actuators[:, pixels], parameters.flux_weights[None, pixels]])
    clear = np.where(parameters.signal_mask, parameters.clear_pupil, 0.0)
    wanted = np.vstack([np.diag(clear), np.zeros((1, clear.size))])
    return np.asarray(np.linalg.pinv(forward) @ wanted)


def frame_flux(calibration: Calibration, parameters: LoopParameters, flux_adu: float) -> float:
    """Light of one frame [ADU].

    That of the calibration, at this frame rate and gain, if its reference is in ADU/s/gain (its sum is far
    above 1), else `flux_adu`.
    """
    total = float(calibration.I0.sum())
    if total > OLD_UNITS_SUM:
        return total * parameters.gain / parameters.frame_rate_hz
    return flux_adu


def _interaction(calibration: Calibration, parameters: LoopParameters) -> NDArray[np.float64]:
    matrix = parameters.interaction_matrix
    where = f"{calibration.file}: [{calibration.table}] IM"
    if matrix is None:
        raise ConfigError(f"{where}: missing, but the linear plant is built from it")
    shape = (calibration.LO + N_ACTUATORS, parameters.clear_pupil.size)
    if matrix.shape != shape or parameters.mode_shapes_lo.shape[0] != N_GRID:
        raise ConfigError(f"{where}: found shape {matrix.shape}, expected {shape} and {N_GRID} DM points")
    return np.asarray(matrix[calibration.LO :])


def linear_plant(
    settings: SimulatorSettings,
    calibrations: Sequence[Calibration],
    parameters: Sequence[LoopParameters],
) -> LinearPlant:
    """Build the linear plant of some beams from their calibrations and what the loop derives from them.

    Raises
    ------
    ConfigError : a calibration has no interaction matrix of every actuator, or not as many low-order modes
        as ``disturbance_lo``.
    """
    beams = len(calibrations)
    pixels = calibrations[0].I0.size
    supports = [responding_pixels(p) for p in parameters]
    widest = max(support.size for support in supports)
    reference = np.empty((beams, pixels), dtype=np.float32)
    clear = np.empty((beams, pixels), dtype=np.float32)
    support = np.zeros((beams, widest), dtype=np.int64)
    response = np.zeros((beams, N_GRID, widest), dtype=np.float32)
    static = np.empty((beams, N_GRID))
    weights = np.zeros((beams, N_GRID))
    for k, (calibration, loop) in enumerate(zip(calibrations, parameters, strict=True)):
        n = supports[k].size
        inverse = pixels_from_signals(loop)
        support[k, :n] = supports[k]
        response[k, ACTUATOR_INDEX, :n] = (inverse @ _interaction(calibration, loop).T).T
        reference[k] = _reference_image(calibration, loop, inverse)
        clear[k] = calibration.N0 / calibration.N0.sum()
        disturbance = np.asarray(settings.disturbance_lo)
        if disturbance.size != calibration.LO:
            raise ConfigError(
                f"[simulator] disturbance_lo: found {disturbance.size} values, expected {calibration.LO}, "
                f"the low-order modes of {calibration.file}"
            )
        static[k] = loop.mode_shapes_lo @ disturbance
        in_pupil = calibration.I2A @ calibration.pupil > 0.5
        weights[k, ACTUATOR_INDEX] = in_pupil / in_pupil.sum()
    return LinearPlant(
        reference=reference,
        clear=clear,
        support=support,
        response=response,
        static=static,
        varying=np.zeros((beams, 2, N_GRID)),
        varying_rms=np.array([settings.disturbance_rms]),
        corner_hz=DRIFT_CORNER_HZ,
        weights=weights,
        nm_per_dm_unit=settings.nm_per_dm_unit,
        wavenumber=2.0 * math.pi / settings.wavelength_nm,
    )


def _reference_image(
    calibration: Calibration, loop: LoopParameters, inverse: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Frame with the mask in, per unit flux, whose signal is zero.

    The file's own reference, corrected by the little that the repair of bad pixels changes.
    """
    image = calibration.I0 / calibration.I0.sum()
    light = np.where(loop.signal_mask, loop.clear_pupil, 1.0)
    flux = loop.flux_weights @ image
    signal = np.where(
        loop.signal_mask, (loop.pixels_to_actuators @ image / flux - loop.reference) / light, 0.0
    )
    image[responding_pixels(loop)] -= inverse @ signal
    return image / flux


def no_linear_plant() -> LinearPlant:
    """Return an empty plant of the same types, for a loop that runs the other one."""
    return LinearPlant(
        reference=np.zeros((0, 0), dtype=np.float32),
        clear=np.zeros((0, 0), dtype=np.float32),
        support=np.zeros((0, 0), dtype=np.int64),
        response=np.zeros((0, 0, 0), dtype=np.float32),
        static=np.zeros((0, 0)),
        varying=np.zeros((0, 0, 0)),
        varying_rms=np.zeros(1),
        corner_hz=1.0,
        weights=np.zeros((0, 0)),
        nm_per_dm_unit=1.0,
        wavenumber=1.0,
    )
