"""Allocate what the compiled loop works on, from the derived parameters of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import KALMAN, LEAKY, PID
from baldr_tango.kernels.injection import N_VALUES
from baldr_tango.kernels.linear import pack
from baldr_tango.telemetry.ring import TelemetryRing, capacity_for

CONTROLLER_TYPES: Final = {"PID": PID, "LEAKY": LEAKY, "KALMAN": KALMAN}
"""Controllers that the loop knows, by the name of the calibration file."""

MOST_BOXCAR_FRAMES: Final = 1000
"""Longest running mean of the signal that the parameter slots have room for."""

MOST_READS: Final = 64
"""Longest burst of non-destructive reads."""

MOST_LATENCY: Final = 1023
"""Longest latency of an injected signal [frames]."""


@dataclass(frozen=True)
class LoopArrays:
    """Everything of the compiled loop that outlives a re-opening of the streams."""

    control: NDArray[np.int64]
    parameters: d.Parameters
    state: d.State
    ring: TelemetryRing
    ring_arrays: d.Ring
    frame_shape: tuple[int, int]

    @property
    def n_pixels(self) -> int:
        """Pixels of a frame."""
        return int(self.state.image.size)

    @property
    def n_grid(self) -> int:
        """Points of the DM map."""
        return int(self.state.command.size)


def boxcar_weights(frames: int) -> NDArray[np.float32]:
    """Weights of the running mean of `frames` signals, oldest first, sum 1: ``w_j = j + 1`` normalised.

    A ramp that favours the newest, like the legacy ``j / (b-1)``, but without its zero for the oldest
    sample: every frame asked for counts, and two frames differ from one.
    """
    ramp = np.arange(1, frames + 1, dtype=np.float64)
    return (ramp / ramp.sum()).astype(np.float32)


def slope_weights(reads: int) -> NDArray[np.float32]:
    """Weights that turn equidistant reads, oldest first, into their least-squares slope per read."""
    if reads < 2:
        return np.zeros(reads, dtype=np.float32)
    t = np.arange(reads) - (reads - 1) / 2.0
    return np.asarray(t / (t @ t), dtype=np.float32)


def _burst_weights() -> NDArray[np.float32]:
    table = np.zeros((MOST_READS, MOST_READS), dtype=np.float32)
    for reads in range(1, MOST_READS + 1):
        table[reads - 1, :reads] = slope_weights(reads)
    return table


def _kalman(modes: int) -> d.Kalman:
    """Identity model with no gain: a regulator that does nothing until it is configured."""
    identity = np.eye(modes)
    return d.Kalman(
        transition=_twice(identity, np.float32),
        control=_twice(identity, np.float32),
        measurement=_twice(identity, np.float32),
        gain=_twice(np.zeros_like(identity), np.float32),
    )


def _twice(values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Two copies along a new first axis, touched and contiguous."""
    array = np.asarray(values, dtype=dtype)
    return np.ascontiguousarray(np.broadcast_to(array, (2, *array.shape)))


def _switches(parameters: LoopParameters, settings: LoopSettings) -> NDArray[np.int64]:
    row = np.zeros(d.N_SWITCHES, dtype=np.int64)
    row[d.TYPE_LO] = CONTROLLER_TYPES[parameters.controller_type_lo]
    row[d.TYPE_HO] = CONTROLLER_TYPES[parameters.controller_type_ho]
    row[d.MEDIAN_REPAIR] = parameters.bad_pixel_rule == "median"
    row[d.BOXCAR] = parameters.boxcar
    row[d.SNR_FRAMES] = settings.snr_frames
    row[d.HO_VIOLATIONS] = parameters.limits.ho_violations
    row[d.PERIOD_NS] = period_ns(parameters.frame_rate_hz)
    return _twice(row, np.int64)


def period_ns(frame_rate_hz: float) -> int:
    """Nominal time between two frames [ns]; 0 when the rate is not known."""
    return round(1e9 / frame_rate_hz) if frame_rate_hz > 0 else 0


def _limits(parameters: LoopParameters) -> NDArray[np.float64]:
    row = np.zeros(d.N_LIMITS)
    row[d.COMMAND_LIMIT] = parameters.limits.command
    row[d.LO_LIMIT] = parameters.limits.lo_command
    row[d.HO_LIMIT] = parameters.limits.ho_mode
    row[d.FLUX_LIMIT] = parameters.limits.min_flux_adu
    row[d.NM_PER_UNIT] = parameters.nm_per_dm_unit
    row[d.WAVELENGTH_NM] = parameters.wavelength_nm
    return _twice(row, np.float64)


def _inverse_clear_pupil(parameters: LoopParameters) -> NDArray[np.float64]:
    inverse = np.zeros_like(parameters.clear_pupil)
    np.divide(1.0, parameters.clear_pupil, out=inverse, where=parameters.signal_mask)
    return inverse


def build_parameters(parameters: LoopParameters, settings: LoopSettings) -> d.Parameters:
    """Pack the derived parameters into both slots, loops open."""
    n_grid = parameters.mode_shapes_lo.shape[0]
    weights = np.zeros(max(MOST_BOXCAR_FRAMES, parameters.boxcar), dtype=np.float32)
    weights[: parameters.boxcar] = boxcar_weights(parameters.boxcar)
    lo, ho = parameters.control_lo, parameters.control_ho
    return d.Parameters(
        switches=_switches(parameters, settings),
        limits=_limits(parameters),
        dark=_twice(parameters.dark, np.float32),
        flux_weights=_twice(parameters.flux_weights, np.float32),
        bad_pixels=np.ascontiguousarray(parameters.bad_pixels, dtype=np.int64),
        exterior_pixels=np.ascontiguousarray(parameters.exterior_pixels, dtype=np.int64),
        to_actuators=pack(parameters.pixels_to_actuators),
        reference=_twice(parameters.reference, np.float32),
        inverse_clear_pupil=_twice(_inverse_clear_pupil(parameters), np.float32),
        reconstructor_lo=pack(parameters.reconstructor_lo),
        reconstructor_ho=pack(parameters.reconstructor_ho),
        shapes_lo=pack(parameters.mode_shapes_lo),
        shapes_ho=pack(parameters.mode_shapes_ho),
        used_ho=_twice(np.any(parameters.reconstructor_ho != 0.0, axis=1), np.int64),
        boxcar_weights=_twice(weights, np.float32),
        set_point_lo=_twice(np.zeros_like(lo.kp), np.float64),
        kp_lo=_twice(lo.kp, np.float64),
        ki_lo=_twice(lo.ki, np.float64),
        kd_lo=_twice(lo.kd, np.float64),
        leak_lo=_twice(lo.leak, np.float64),
        lower_lo=_twice(lo.lower, np.float64),
        upper_lo=_twice(lo.upper, np.float64),
        set_point_ho=_twice(np.zeros_like(ho.kp), np.float64),
        kp_ho=_twice(ho.kp, np.float64),
        ki_ho=_twice(ho.ki, np.float64),
        kd_ho=_twice(ho.kd, np.float64),
        leak_ho=_twice(ho.leak, np.float64),
        lower_ho=_twice(ho.lower, np.float64),
        upper_ho=_twice(ho.upper, np.float64),
        burst_weights=_twice(_burst_weights(), np.float32),
        injection=_twice(np.zeros(N_VALUES), np.float64),
        inject_map=_twice(np.zeros(n_grid), np.float32),
        inject_lo=_twice(np.zeros_like(lo.kp), np.float64),
        inject_ho=_twice(np.zeros_like(ho.kp), np.float64),
        kalman_lo=_kalman(lo.kp.size),
        kalman_ho=_kalman(ho.kp.size),
        offset_lo=_twice(np.zeros(n_grid), np.float32),
        offset_ho=_twice(np.zeros(n_grid), np.float32),
    )


def build_state(n_pixels: int, n_actuators: int, n_lo: int, n_ho: int, n_grid: int) -> d.State:
    """Allocate the loop's memory, all zero."""
    return d.State(
        counters=np.zeros(d.N_COUNTERS, dtype=np.int64),
        latency_bins=np.zeros(d.N_BINS, dtype=np.int64),
        jitter_bins=np.zeros(d.N_BINS, dtype=np.int64),
        image=np.zeros(n_pixels, dtype=np.float32),
        scratch=np.zeros(n_pixels, dtype=np.float32),
        averaged=np.zeros(n_actuators, dtype=np.float32),
        integral_lo=np.zeros(n_lo),
        previous_lo=np.zeros(n_lo),
        integral_ho=np.zeros(n_ho),
        previous_ho=np.zeros(n_ho),
        violations=np.zeros(n_ho, dtype=np.int64),
        muted=np.zeros(n_ho, dtype=np.int64),
        held_lo=np.zeros(n_grid, dtype=np.float32),
        held_ho=np.zeros(n_grid, dtype=np.float32),
        command=np.zeros(n_grid, dtype=np.float32),
        last_lo=np.zeros(n_lo, dtype=np.float32),
        last_ho=np.zeros(n_ho, dtype=np.float32),
        charge=np.zeros(1),
        predicted_lo=np.zeros(n_lo, dtype=np.float32),
        predicted_ho=np.zeros(n_ho, dtype=np.float32),
        scratch_lo=np.zeros(n_lo, dtype=np.float32),
        scratch_ho=np.zeros(n_ho, dtype=np.float32),
        target_lo=np.zeros(n_lo),
        target_ho=np.zeros(n_ho),
        injected=np.zeros(n_grid, dtype=np.float32),
        inject_scalar=np.zeros(2),
        inject_delay=np.zeros(MOST_LATENCY + 1),
        mean=np.zeros(n_actuators, dtype=np.float32),
        variance=np.zeros(n_actuators, dtype=np.float32),
    )


def ring_arrays(ring: TelemetryRing) -> d.Ring:
    """Return a ring's arrays as the compiled loop takes them."""
    return d.Ring(cursor=ring.index, **ring.fields)


def build_arrays(parameters: LoopParameters, settings: LoopSettings) -> LoopArrays:
    """Allocate and touch everything the loop needs for one configuration."""
    n_actuators, n_pixels = parameters.pixels_to_actuators.shape
    n_lo = parameters.reconstructor_lo.shape[0]
    n_ho = parameters.reconstructor_ho.shape[0]
    n_grid = parameters.mode_shapes_lo.shape[0]
    ring = TelemetryRing(
        capacity_for(max(settings.ring_frames, parameters.boxcar + 2)),
        {"P": n_pixels, "A": n_actuators, "L": n_lo, "H": n_ho, "G": n_grid},
    )
    ring.horizon = settings.ring_frames
    return LoopArrays(
        control=np.zeros(d.CONTROL_WORDS, dtype=np.int64),
        parameters=build_parameters(parameters, settings),
        state=build_state(n_pixels, n_actuators, n_lo, n_ho, n_grid),
        ring=ring,
        ring_arrays=ring_arrays(ring),
        frame_shape=parameters.frame_shape,
    )
