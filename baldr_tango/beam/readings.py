"""How each published value is read off a beam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from baldr_tango.beam.garbage import collector
from baldr_tango.beam.statistics import Figures
from baldr_tango.errors import RequestError
from baldr_tango.interface import VALUES
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import SERVO_RUN, SERVO_STOP, RtcState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from baldr_tango.beam.beam import Beam
    from baldr_tango.beam.state import BeamState
    from baldr_tango.telemetry.writer import TelemetryStatus


class Moment:
    """A beam at one moment: everything is looked up when it is needed, and at most once per reading."""

    def __init__(self, beam: Beam) -> None:
        self.beam = beam
        self.loop = beam.loop
        self.figures: Figures = beam.figures
        # Not cached_property: before Python 3.12 all readers of all beams share its lock.
        self._state: BeamState | None = None
        self._telemetry: TelemetryStatus | None = None
        self._counters: NDArray[np.int64] | None = None

    @property
    def state(self) -> BeamState:
        """What the beam is doing."""
        if self._state is None:
            self._state = self.beam.state()
        return self._state

    @property
    def telemetry(self) -> TelemetryStatus:
        """What the telemetry thread is doing."""
        if self._telemetry is None:
            self._telemetry = self.beam.telemetry_status()
        return self._telemetry

    @property
    def counters(self) -> NDArray[np.int64]:
        """Counters of the loop (N_COUNTERS,); zeros without a configuration."""
        if self._counters is None:
            self._counters = self.loop.counters if self.loop else np.zeros(d.N_COUNTERS, dtype=np.int64)
        return self._counters

    def newest(self, field: str) -> Any:
        """Newest value of a telemetry field; empty without a configuration."""
        return self.loop.arrays.ring.newest(field) if self.loop else np.zeros(0)

    def parameter(self, name: str, default: Any) -> Any:
        """One derived parameter of the configuration in force."""
        return getattr(self.loop.parameters, name) if self.loop else default


def _controller_type(moment: Moment) -> str:
    lo, ho = moment.parameter("controller_type_lo", ""), moment.parameter("controller_type_ho", "")
    if not lo:
        return "unknown"
    return str(lo) if lo == ho else f"{lo}/{ho}"


def _limit(name: str, moment: Moment) -> float:
    return float(moment.beam.calibration_limits.get(name, 0.0))


def _frame(moment: Moment) -> Any:
    return (
        moment.newest("img").reshape(moment.loop.arrays.frame_shape) if moment.loop else np.zeros((1, 1), int)
    )


def _dm_map(moment: Moment) -> Any:
    if moment.loop is None:
        return np.zeros((1, 1))
    command = moment.loop.arrays.state.command.astype(np.float64)
    side = round(command.size**0.5)
    return command.reshape(side, side)


def _command(moment: Moment) -> Any:
    return moment.loop.arrays.state.command.astype(np.float64) if moment.loop else np.zeros(0)


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _counter(index: int, moment: Moment) -> int:
    return int(moment.counters[index])


def _figure(name: str, moment: Moment) -> Any:
    return getattr(moment.figures, name)


def _percentile(name: str, which: str, moment: Moment) -> float:
    return float(getattr(getattr(moment.figures, name), which))


def _vector(field: str, moment: Moment) -> Any:
    return moment.newest(field).astype(np.float64)


def _memory(name: str, moment: Moment) -> Any:
    """One of the loop's own arrays."""
    return getattr(moment.loop.arrays.state, name).copy() if moment.loop else np.zeros(0, np.int64)


def _judged(moment: Moment, name: str, form: Callable[[Any], Any] | None = None) -> Any:
    """One result of the report on the calibration; None while there is none."""
    report = moment.beam.judgement.newest
    value = None if report is None else getattr(report, name)
    return value if form is None or value is None else form(value)


READERS: Final[dict[str, Callable[[Moment], Any]]] = {
    "TT_state": lambda m: m.state.lo,
    "HO_state": lambda m: m.state.ho,
    "mode": lambda m: m.parameter("mode", "unknown"),
    "phasemask": lambda m: m.parameter("mask", "unknown"),
    "frequency": lambda m: float(m.parameter("frame_rate_hz", 0.0)),
    "configured": lambda m: int(m.loop is not None),
    "ctrl_type": _controller_type,
    "config_file": lambda m: m.parameter("config_file", "unknown"),
    "inj_enabled": lambda m: int(m.beam.injection.is_on),
    "auto_loop": lambda m: int(m.beam.automation.rules.auto_close),
    "close_on_strehl": partial(_limit, "close_on_strehl_limit"),
    "open_on_strehl": partial(_limit, "open_on_strehl_limit"),
    "close_on_snr": lambda m: m.beam.automation.rules.close_on_snr,
    "open_on_snr": partial(_limit, "open_on_flux_limit"),
    "TT_offsets": lambda m: int(m.beam.offsets.tip_tilt_is_set),
    "boxcar": lambda m: m.beam.processing.boxcar,
    "burst_reads": lambda m: m.beam.processing.reads,
    "injection": lambda m: m.beam.injection.summary,
    "rtc_state": lambda m: m.state.rtc,
    "fault_reason": lambda m: m.state.fault,
    "warnings": lambda m: "\n".join(m.parameter("warnings", ())),
    "camera_state": lambda m: m.beam.camera.state.text,
    "camera_fps": lambda m: m.beam.camera.state.fps,
    "camera_gain": lambda m: m.beam.camera.state.gain,
    "camera_nbreadworeset": lambda m: m.beam.camera.state.nbreadworeset,
    "mask_state": lambda m: m.beam.mask.state.text,
    "mask_x": lambda m: m.beam.mask.state.x_um,
    "mask_y": lambda m: m.beam.mask.state.y_um,
    "calibration_warnings": lambda m: _judged(m, "warnings", "\n".join) or "",
    "predicted_stable": lambda m: _judged(m, "predicted_stable"),
    "gain_margin": lambda m: _judged(m, "gain_margin"),
    "frames": partial(_counter, d.FRAMES),
    "lost_frames": partial(_counter, d.LOST),
    "stale_wakeups": partial(_counter, d.STALE),
    "skipped_frames": partial(_counter, d.SKIPPED),
    "torn_frames": partial(_counter, d.TORN),
    "read_errors": partial(_counter, d.READ_ERRORS),
    "wrong_format_frames": partial(_counter, d.WRONG_FORMAT),
    "no_flux_frames": partial(_counter, d.NO_FLUX),
    "saturated_frames": partial(_counter, d.SATURATED),
    "saturated_pixels": partial(_counter, d.SATURATED_PIXELS),
    "negative_frames": partial(_counter, d.NEGATIVES),
    "frozen_frames": partial(_counter, d.FROZEN),
    "not_finite_frames": partial(_counter, d.NOT_FINITE),
    "camera_restarts": partial(_counter, d.CAMERA_RESTARTS),
    "lo_restarts": partial(_counter, d.LO_LIMITED),
    "ho_resets": partial(_counter, d.HO_LIMITED),
    "command_violations": partial(_counter, d.COMMAND_LIMITED),
    "runaway_level": partial(_counter, d.RUNAWAY),
    "faults": partial(_counter, d.TRIPS),
    "limited_modes": partial(_counter, d.LIMITED),
    "muted_modes": partial(_counter, d.MUTED),
    "automation": lambda m: m.beam.automation.text,
    "open_on_dm": partial(_limit, "open_on_dm_limit"),
    "job_name": lambda m: m.beam.jobs.status.name,
    "job_state": lambda m: m.beam.jobs.status.state,
    "job_fraction": lambda m: m.beam.jobs.status.fraction,
    "job_step": lambda m: m.beam.jobs.status.error or m.beam.jobs.status.step,
    "job_time_left": lambda m: m.beam.jobs.status.time_left_s,
    "write_errors": partial(_counter, d.WRITE_ERRORS),
    "stream_reopens": lambda m: m.loop.reopens if m.loop else 0,
    "frame_rate": partial(_figure, "frame_rate"),
    **{
        f"{name}_{which}": partial(_percentile, name, which)
        for name in ("latency", "jitter")
        for which in ("p50", "p99", "p999", "start_p50", "start_p99", "start_p999")
    },
    "latency_window_max": partial(_percentile, "latency", "max"),
    "jitter_window_max": partial(_percentile, "jitter", "max"),
    "latency_max": lambda m: _counter(d.LATENCY_MAX_NS, m) / 1000.0,
    "jitter_max": lambda m: _counter(d.JITTER_MAX_NS, m) / 1000.0,
    "waiting": lambda m: m.loop.waiting.mode if m.loop and m.loop.waiting else "",
    "flux": partial(_figure, "flux"),
    "snr": lambda m: float(m.newest("snr")) if m.loop else 0.0,
    "strehl": partial(_figure, "strehl"),
    "rmse_est": partial(_figure, "rmse_est"),
    "residual_rms": partial(_figure, "residual_rms"),
    "tip_tilt_rms": partial(_figure, "tip_tilt_rms"),
    "dm_rms": lambda m: _rms(_command(m)),
    "dm_peak": lambda m: float(np.abs(_command(m)).max(initial=0.0)),
    "telemetry_on": lambda m: m.telemetry.recording,
    "telemetry_file": lambda m: str(m.telemetry.file or ""),
    "telemetry_frames": lambda m: m.telemetry.frames_written,
    "telemetry_overruns": lambda m: m.telemetry.overruns,
    "telemetry_error": lambda m: m.telemetry.error,
    "telemetry_capacity": lambda m: m.beam.saving.capacity,
    "saved_telemetry": lambda m: m.beam.saving.saved_file,
    "save_error": lambda m: m.beam.saving.error,
    "gc_collections": lambda m: collector.collections,
    "gc_pause_max": lambda m: collector.longest_ms,
    "e_LO": partial(_vector, "e_LO"),
    "u_LO": partial(_vector, "u_LO"),
    "e_HO": partial(_vector, "e_HO"),
    "u_HO": partial(_vector, "u_HO"),
    "signal": partial(_vector, "signal"),
    "dm_command": _command,
    "ho_violations": partial(_memory, "violations"),
    "actuator_violations": partial(_memory, "actuator_violations"),
    "frame": _frame,
    "dm_map": _dm_map,
}
"""Every value of `interface.VALUES` by name."""


def read_values(beam: Beam, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Read values of a beam by name; without names all but the large ones.

    Raises
    ------
    RequestError : there is no value of that name.
    """
    wanted = [value.name for value in VALUES if not value.slow] if names is None else list(names)
    moment = Moment(beam)
    try:
        return {name: READERS[name](moment) for name in wanted}
    except KeyError as error:
        raise RequestError(f"no value {error.args[0]!r}; there are {', '.join(READERS)}") from None


def servo_mode(rtc: RtcState) -> int:
    """Main servo mode as the commander reports it."""
    return SERVO_STOP if rtc == RtcState.STOPPED else SERVO_RUN
