"""Allocate what the compiled loop works on, from the derived parameters of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.kalman import KalmanModel
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.control import KALMAN, LEAKY, PID
from baldr_tango.kernels.frame import N_SUMS
from baldr_tango.kernels.injection import N_VALUES
from baldr_tango.rtc.packing import pack_member
from baldr_tango.telemetry.ring import TelemetryRing, capacity_for

CONTROLLER_TYPES: Final = {"PID": PID, "LEAKY": LEAKY, "KALMAN": KALMAN}
"""Controllers that the loop knows, by the name of the calibration file."""

_LINE_BYTES: Final = 64  # of the cache


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
    sample: every frame asked for counts, and two frames differ from one. `kernels.frame.boxcar` computes
    them as it goes.
    """
    ramp = np.arange(1, frames + 1, dtype=np.float64)
    return (ramp / ramp.sum()).astype(np.float32)


def _kalman(model: KalmanModel | None, modes: int) -> d.Kalman:
    """Matrices of a regulator; without a model one that does nothing."""
    if model is None:
        identity = np.eye(modes, dtype=np.float32)
        return d.Kalman(identity, identity, identity, np.zeros_like(identity))
    matrices = (model.transition, model.control, model.measurement, model.gain)
    return d.Kalman(*(matrix.astype(np.float32) for matrix in matrices))


def _switches(parameters: LoopParameters, settings: LoopSettings) -> NDArray[np.int64]:
    row = np.zeros(d.N_SWITCHES, dtype=np.int64)
    row[d.TYPE_LO] = CONTROLLER_TYPES[parameters.controller_type_lo]
    row[d.TYPE_HO] = CONTROLLER_TYPES[parameters.controller_type_ho]
    row[d.MEDIAN_REPAIR] = parameters.bad_pixel_rule == "median"
    row[d.BOXCAR] = parameters.boxcar
    row[d.SNR_FRAMES] = settings.snr_frames
    row[d.HO_VIOLATIONS] = parameters.limits.ho_violations
    row[d.PERIOD_NS] = period_ns(parameters.frame_rate_hz)
    row[d.WRONG_PIXELS] = parameters.limits.wrong_pixels
    row[d.FROZEN_FRAMES] = parameters.limits.frozen_frames
    row[d.RUNAWAY_LEVEL] = parameters.limits.runaway
    row[d.WRITE_FAILURES] = parameters.limits.write_failures
    row[d.STREHL_PIXEL] = parameters.secondary_pixel if parameters.strehl_model == "secondary" else -1
    return row


def period_ns(frame_rate_hz: float) -> int:
    """Nominal time between two frames [ns]; 0 when the rate is not known."""
    return round(1e9 / frame_rate_hz) if frame_rate_hz > 0 else 0


def _limits(parameters: LoopParameters) -> NDArray[np.float64]:
    row = np.zeros(d.N_LIMITS)
    row[d.COMMAND_LIMIT] = parameters.limits.command
    row[d.LO_LIMIT] = parameters.limits.lo_command
    row[d.HO_LIMIT] = parameters.limits.ho_mode
    row[d.FLUX_LIMIT] = parameters.limits.min_flux_adu
    row[d.SATURATION] = parameters.limits.saturation_adu
    row[d.NEGATIVE] = parameters.limits.negative_adu
    row[d.COMMAND_RMS] = parameters.limits.command_rms
    row[d.NM_PER_UNIT] = parameters.nm_per_dm_unit
    row[d.WAVELENGTH_NM] = parameters.wavelength_nm
    row[d.STREHL_SLOPE] = strehl_slope(parameters.strehl_line, parameters.frame_rate_hz, parameters.gain)
    row[d.STREHL_INTERCEPT] = parameters.strehl_line[1]
    return row


def strehl_slope(line: tuple[float, float], frame_rate_hz: float, gain: float) -> float:
    """Slope of the line of the Strehl estimate for the intensity of a frame [DM units rms per ADU].

    The file has it for ADU/s/gain, and the intensity of a frame is ``ADU * fps / gain`` of those.
    """
    return line[0] * frame_rate_hz / gain


def _flux_weights(parameters: LoopParameters) -> NDArray[np.float64]:
    """Share of each pixel in the flux; 0 for bad pixels, which the loop repairs before it sums or counts."""
    weights = parameters.flux_weights
    if parameters.bad_pixel_rule == "median" and parameters.bad_pixels.size:
        weights = weights.copy()
        weights[parameters.bad_pixels] = 0.0
    return weights


def _inverse_clear_pupil(parameters: LoopParameters) -> NDArray[np.float64]:
    inverse = np.zeros_like(parameters.clear_pupil)
    np.divide(1.0, parameters.clear_pupil, out=inverse, where=parameters.signal_mask)
    return inverse


def dense_parameters(parameters: LoopParameters, settings: LoopSettings) -> dict[str, Any]:
    """Lay out the derived parameters as the members of `loop_data.Parameters`, one slot, nothing packed.

    Matrices are dense (rows, columns); both loops are open; offsets, set points and injection are 0.
    """
    n_grid = parameters.mode_shapes_lo.shape[0]
    lo, ho = parameters.control_lo, parameters.control_ho
    return {
        "switches": _switches(parameters, settings),
        "limits": _limits(parameters),
        "dark": parameters.dark,
        "flux_weights": _flux_weights(parameters),
        "bad_pixels": parameters.bad_pixels,
        "exterior_pixels": parameters.exterior_pixels,
        "to_actuators": parameters.pixels_to_actuators,
        "reference": parameters.reference,
        "inverse_clear_pupil": _inverse_clear_pupil(parameters),
        "reconstructor_lo": parameters.reconstructor_lo,
        "reconstructor_ho": parameters.reconstructor_ho,
        "shapes_lo": parameters.mode_shapes_lo,
        "shapes_ho": parameters.mode_shapes_ho,
        "used_ho": np.any(parameters.reconstructor_ho != 0.0, axis=1),
        "set_point_lo": np.zeros_like(lo.kp),
        "kp_lo": lo.kp,
        "ki_lo": lo.ki,
        "kd_lo": lo.kd,
        "leak_lo": lo.leak,
        "lower_lo": lo.lower,
        "upper_lo": lo.upper,
        "set_point_ho": np.zeros_like(ho.kp),
        "kp_ho": ho.kp,
        "ki_ho": ho.ki,
        "kd_ho": ho.kd,
        "leak_ho": ho.leak,
        "lower_ho": ho.lower,
        "upper_ho": ho.upper,
        "injection": np.zeros(N_VALUES),
        "inject_map": np.zeros(n_grid),
        "inject_lo": np.zeros_like(lo.kp),
        "inject_ho": np.zeros_like(ho.kp),
        "inject_shape_lo": np.zeros(n_grid),
        "inject_shape_ho": np.zeros(n_grid),
        "kalman_lo": _kalman(parameters.kalman_lo, lo.kp.size),
        "kalman_ho": _kalman(parameters.kalman_ho, ho.kp.size),
        "offset_lo": np.zeros(n_grid),
        "offset_ho": np.zeros(n_grid),
    }


def build_parameters(parameters: LoopParameters, settings: LoopSettings) -> d.Parameters:
    """Pack the derived parameters into both slots, loops open."""
    dense = dense_parameters(parameters, settings)
    return d.Parameters(**{name: pack_member(name, value) for name, value in dense.items()})


def compare(old: LoopParameters, new: LoopParameters, settings: LoopSettings) -> dict[str, Any]:
    """Return what differs between two sets of derived parameters, as arguments of `ParameterSlots.change`."""
    before, after = dense_parameters(old, settings), dense_parameters(new, settings)
    changed: dict[str, Any] = {}
    for name, value in after.items():
        if name in ("switches", "limits"):
            columns = np.flatnonzero(value != before[name])
            changed[name] = {int(column): value[column] for column in columns}
        elif isinstance(value, d.Kalman):
            if not all(map(np.array_equal, value, before[name])):
                changed[name] = value
        elif value is not before[name] and not np.array_equal(value, before[name]):
            changed[name] = value
    return changed


def memory_layout(
    n_pixels: int, n_actuators: int, n_lo: int, n_ho: int, n_grid: int
) -> dict[str, tuple[int, type]]:
    """Members of `loop_data.State` that outlive a frame, in order: elements and type by name."""
    return {
        "counters": (d.N_COUNTERS, np.int64),
        "integral_lo": (n_lo, np.float64),
        "previous_lo": (n_lo, np.float64),
        "integral_ho": (n_ho, np.float64),
        "previous_ho": (n_ho, np.float64),
        "violations": (n_ho, np.int64),
        "muted": (n_ho, np.int64),
        "actuator_violations": (n_grid, np.int64),
        "held_lo": (n_grid, np.float32),
        "held_ho": (n_grid, np.float32),
        "command": (n_grid, np.float32),
        "last_lo": (n_lo, np.float32),
        "last_ho": (n_ho, np.float32),
        "burst": (N_SUMS, np.float64),
        "burst_total": (n_pixels, np.float64),
        "burst_moment": (n_pixels, np.float64),
        "predicted_lo": (n_lo, np.float32),
        "predicted_ho": (n_ho, np.float32),
        "target_lo": (n_lo, np.float64),
        "target_ho": (n_ho, np.float64),
        "injected": (n_grid, np.float32),
        "mean": (n_actuators, np.float32),
        "variance": (n_actuators, np.float32),
    }


def touched(size: int, dtype: DTypeLike) -> NDArray[Any]:
    """Zeros (size,) whose pages are there: those of `numpy.zeros` come with the first write, in the loop."""
    return np.full(size, 0, dtype=dtype)


def build_state(n_pixels: int, n_actuators: int, n_lo: int, n_ho: int, n_grid: int) -> d.State:
    """Allocate and touch the loop's memory, all zero; what outlives a frame in one piece, by cache lines."""
    layout = memory_layout(n_pixels, n_actuators, n_lo, n_ho, n_grid)
    memory = touched(sum(_words(*what) for what in layout.values()), np.int64)
    members: dict[str, Any] = _views(memory, layout)
    return d.State(
        latency_bins=touched(d.N_BINS, np.int64),
        jitter_bins=touched(d.N_BINS, np.int64),
        stamps=touched(d.N_STAMPS, np.int64),
        stage_bins=touched(d.N_STAGES * d.N_BINS, np.int64).reshape(d.N_STAGES, d.N_BINS),
        stage_max=touched(d.N_STAGES, np.int64),
        image=touched(n_pixels, np.float32),
        scratch=touched(n_pixels, np.float32),
        averaged=touched(n_actuators, np.float32),
        scratch_lo=touched(n_lo, np.float32),
        scratch_ho=touched(n_ho, np.float32),
        memory=memory,
        checkpoint=touched(memory.size + d.CHECKPOINT_EXTRA, np.int64),
        **members,
    )


def _words(n: int, kind: type) -> int:
    """Words that a member takes: whole cache lines."""
    return -(-n * np.dtype(kind).itemsize // _LINE_BYTES) * (_LINE_BYTES // 8)


def _views(memory: NDArray[np.int64], layout: dict[str, tuple[int, type]]) -> dict[str, NDArray[Any]]:
    members: dict[str, NDArray[Any]] = {}
    first = 0
    for name, (n, kind) in layout.items():
        words = _words(n, kind)
        members[name] = memory[first : first + words].view(kind)[:n]
        first += words
    return members


def state_members(state: d.State, memory: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the members that outlive a frame, by name, as views of a copy of ``state.memory``."""
    sizes = (state.image.size, state.mean.size, state.last_lo.size, state.last_ho.size, state.command.size)
    return _views(memory, memory_layout(*sizes))


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
        control=touched(d.CONTROL_WORDS, np.int64),
        parameters=build_parameters(parameters, settings),
        state=build_state(n_pixels, n_actuators, n_lo, n_ho, n_grid),
        ring=ring,
        ring_arrays=ring_arrays(ring),
        frame_shape=parameters.frame_shape,
    )
