"""Every value a beam publishes: status keys first, then counters, figures of merit, spectra, images.

A value exists once, here, with its type, unit and meaning. Tango attributes, the ``status`` reply and
the manual's tables are derived from this list.
"""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import Final, Literal

from baldr_tango.names import LoopState, RtcState


@dataclass(frozen=True)
class Value:
    """One published value."""

    name: str
    kind: type
    """bool, int, float or str; an `enum.IntEnum` adds labels while the number stays the same."""
    doc: str
    unit: str = ""
    label: str = ""
    format: str = ""
    shape: Literal["scalar", "spectrum", "image"] = "scalar"
    max_dim: tuple[int, int] = (1, 0)
    """Largest x and y size of a spectrum or an image."""
    minimum: float | None = None
    maximum: float | None = None
    warning: tuple[float | None, float | None] = (None, None)
    alarm: tuple[float | None, float | None] = (None, None)
    archive_change: float | None = None
    """Smallest change worth archiving (numbers only); 0 archives every publication that differs."""
    status_key: bool = False
    """One of the commander's 15 status keys."""
    expert: bool = False
    slow: bool = False
    """Large: published at the image rate."""

    @property
    def enum(self) -> type[enum.IntEnum] | None:
        """The enumeration, if the value is one."""
        return self.kind if issubclass(self.kind, enum.IntEnum) else None


def _status(name: str, kind: type, doc: str, **more: object) -> Value:
    return Value(name, kind, doc, status_key=True, **more)  # type: ignore[arg-type]


def _spectrum(name: str, doc: str, size: int, unit: str = "", **more: object) -> Value:
    return Value(name, float, doc, unit, shape="spectrum", max_dim=(size, 0), format="%9.5f", **more)  # type: ignore[arg-type]


def _times(name: str, doc: str) -> tuple[Value, ...]:
    """Percentiles of a time: of the newest seconds, and since the start."""
    shares = (("p50", "median", 1.0), ("p99", "99th percentile", 5.0), ("p999", "99.9th percentile", 10.0))
    window, start = "last realtime.window_s seconds", "since start"
    title = name.capitalize()
    rows = [
        *(
            (which, f"{title} {which}", f"{share} of the {doc}, {window}", change)
            for which, share, change in shares
        ),
        ("window_max", f"{title} recent max", f"largest {doc}, {window}", 10.0),
        *(
            (f"start_{which}", f"{title} {which}, all", f"{share} of the {doc}, {start}", change)
            for which, share, change in shares
        ),
        ("max", f"{title} max", f"largest {doc}, {start}", 10.0),
    ]
    return tuple(
        Value(f"{name}_{which}", float, text, "us", label, "%8.1f", archive_change=change)
        for which, label, text, change in rows
    )


def _counts(name: str, doc: str, label: str) -> Value:
    return Value(name, int, doc, label=label, shape="spectrum", max_dim=(_MOST_MODES, 0), expert=True)


_LARGEST_FRAME: Final = 256
_MOST_MODES: Final = 4096

VALUES: Final[tuple[Value, ...]] = (
    _status("TT_state", LoopState, "tip/tilt loop: 0 open, 1 closed", label="Tip/tilt loop"),
    _status("HO_state", LoopState, "high-order loop: 0 open, 1 closed", label="High-order loop"),
    _status("mode", str, "observing mode: bright or faint", label="Observing mode"),
    _status("phasemask", str, "phase mask whose calibration is loaded", label="Phase mask"),
    _status(
        "frequency",
        float,
        "camera frame rate that the loop was derived for",
        unit="Hz",
        label="Frame rate",
        format="%8.2f",
        minimum=0.0,
        archive_change=0.1,
    ),
    _status("configured", int, "1 when a reconstructor is loaded", label="Configured", minimum=0, maximum=1),
    _status("ctrl_type", str, "controller type: PID, LEAKY or KALMAN", label="Controller type"),
    _status("config_file", str, "calibration file in force", label="Calibration file"),
    _status("inj_enabled", int, "1 while a signal is injected", label="Injection", minimum=0, maximum=1),
    _status(
        "auto_loop",
        int,
        "1 when loops close by themselves",
        label="Automation",
        minimum=0,
        maximum=1,
    ),
    _status(
        "close_on_strehl",
        float,
        "Strehl limit above which automation closes",
        label="Close on Strehl",
        format="%6.3f",
        archive_change=0.001,
    ),
    _status(
        "open_on_strehl",
        float,
        "Strehl limit below which automation opens",
        label="Open on Strehl",
        format="%6.3f",
        archive_change=0.001,
    ),
    _status(
        "close_on_snr",
        float,
        "SNR limit above which automation closes",
        label="Close on SNR",
        format="%6.2f",
        archive_change=0.01,
    ),
    _status(
        "open_on_snr",
        float,
        "SNR limit below which automation opens",
        label="Open on SNR",
        format="%6.2f",
        archive_change=0.01,
    ),
    _status(
        "TT_offsets",
        int,
        "1 when tip/tilt offsets are set; they act while that loop is open",
        label="Tip/tilt offsets",
        minimum=0,
        maximum=1,
    ),
    Value("rtc_state", RtcState, "what the real-time thread is doing", label="RTC state"),
    Value("fault_reason", str, "why the loops were opened by a safety limit, or empty", label="Fault"),
    Value("warnings", str, "what the loaded configuration deserves to be looked at for", label="Warnings"),
    Value("camera_state", str, "camera server: up, or since when it has not answered", label="Camera server"),
    Value(
        "camera_fps",
        float,
        "frame rate that the camera server told last",
        unit="Hz",
        label="Camera frame rate",
        format="%8.2f",
        minimum=0.0,
        archive_change=0.1,
    ),
    Value(
        "camera_gain",
        float,
        "detector gain that the camera server told last",
        label="Camera gain",
        format="%6.1f",
        minimum=0.0,
        archive_change=0.1,
    ),
    Value(
        "camera_nbreadworeset",
        int,
        "non-destructive reads between two resets that the camera server told last",
        label="Reads without reset",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "mask_state",
        str,
        "phase mask in the beam: its name once this server has moved it there, unnamed position, moving, or"
        " unknown when the MDS does not answer",
        label="Mask in the beam",
    ),
    Value(
        "mask_x",
        float,
        "position of the phase-mask stage BMX",
        unit="um",
        label="Mask x",
        format="%9.1f",
        archive_change=1.0,
    ),
    Value(
        "mask_y",
        float,
        "position of the phase-mask stage BMY",
        unit="um",
        label="Mask y",
        format="%9.1f",
        archive_change=1.0,
    ),
    Value(
        "calibration_warnings",
        str,
        "what the calibration in force deserves to be looked at for; calibration_report tells all",
        label="Calibration warnings",
    ),
    Value(
        "predicted_stable",
        bool,
        "both loops will be stable when they are closed with the gains in force",
        label="Predicted stable",
    ),
    Value(
        "gain_margin",
        float,
        "largest factor on all gains that keeps both closed loops stable, as predicted",
        label="Gain margin",
        format="%8.2f",
        minimum=0.0,
        archive_change=0.01,
    ),
    Value(
        "frames",
        int,
        "frames processed since start",
        label="Frames",
        minimum=0,
        archive_change=1000,
    ),
    Value(
        "lost_frames",
        int,
        "frames that the camera counted and the loop did not see",
        label="Lost frames",
        minimum=0,
        archive_change=0,
    ),
    Value("stale_wakeups", int, "wake-ups without a new frame", label="Stale wake-ups", expert=True),
    Value(
        "skipped_frames",
        int,
        "frames not used, for whatever reason; the mirror kept its command",
        label="Skipped frames",
        archive_change=0,
    ),
    Value(
        "torn_frames", int, "frames given up because the camera kept overwriting them", label="Torn frames"
    ),
    Value(
        "read_errors",
        int,
        "frames that could not be read from the camera stream",
        label="Read errors",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "wrong_format_frames",
        int,
        "frames not used because the camera stream had changed its shape or type",
        label="Misfit frames",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "no_flux_frames",
        int,
        "frames not used because their flux was not above its limit, negative or not finite",
        label="Frames without flux",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "saturated_frames",
        int,
        "frames not used because too many pixels were saturated",
        label="Saturated frames",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "saturated_pixels",
        int,
        "saturated pixels of the newest frame, bad pixels apart",
        label="Saturated pixels",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "negative_frames",
        int,
        "frames not used because too many pixels were far below the dark",
        label="Negative frames",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "frozen_frames",
        int,
        "frames with the very pixels of the frame before",
        label="Frozen frames",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "not_finite_frames",
        int,
        "frames not used because the signal or an error was not finite",
        label="Not finite frames",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "lo_restarts",
        int,
        "times the tip/tilt controller was restarted by its limit",
        label="LO restarts",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "ho_resets",
        int,
        "times a high-order mode was reset by its limit",
        label="HO resets",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "command_violations",
        int,
        "commands beyond their limit or not finite, none of which was written",
        label="Command violations",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "runaway_level",
        int,
        "how much the closed loops run into their limits; see limits.runaway",
        label="Runaway level",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "faults",
        int,
        "times a safety rule has opened the loops",
        label="Safety faults",
        minimum=0,
        archive_change=0,
    ),
    Value(
        "limited_modes",
        int,
        "times a mode or the tip/tilt map was reset by its limit",
        label="Limited modes",
        archive_change=0,
    ),
    Value(
        "camera_restarts",
        int,
        "times the camera's counter began again",
        label="Camera restarts",
        minimum=0,
        expert=True,
    ),
    Value("muted_modes", int, "high-order modes muted after too many violations", label="Muted modes"),
    Value("automation", str, "whether loops close and open by themselves", label="Automation state"),
    Value(
        "open_on_dm",
        float,
        "largest DM command above which automation opens; 0: none",
        label="Open on stroke",
        format="%6.3f",
        archive_change=0.001,
    ),
    Value("job_name", str, "long command that is running or ran last, or empty", label="Job"),
    Value("job_state", str, "idle, running, done, failed or cancelled", label="Job state"),
    Value(
        "job_fraction",
        float,
        "how much of the job is done, 0 to 1",
        label="Job progress",
        format="%5.3f",
        minimum=0.0,
        maximum=1.0,
        archive_change=0.05,
    ),
    Value("job_step", str, "what the job is doing, or why it failed", label="Job step"),
    Value(
        "job_time_left",
        float,
        "time that the job still takes, as far as is known",
        unit="s",
        label="Job time left",
        format="%8.1f",
        minimum=0.0,
    ),
    Value("write_errors", int, "mirror commands that could not be written", label="DM write errors"),
    Value("stream_reopens", int, "times the streams were opened again", label="Stream re-opens"),
    Value(
        "frame_rate",
        float,
        "frames per second over the last second",
        unit="Hz",
        label="Measured rate",
        format="%8.2f",
        archive_change=1.0,
    ),
    *_times("latency", "time from wake-up to command written"),
    *_times("jitter", "departure of the frame interval from the nominal period"),
    Value(
        "waiting",
        str,
        "how the loop waits for frames: semaphore, spin or spin_then_wait; empty without streams",
        label="Waiting",
        expert=True,
    ),
    Value(
        "flux",
        float,
        "sum of the dark-subtracted frame (ADU)",
        label="Flux",
        format="%10.0f",
        archive_change=100.0,
    ),
    Value(
        "snr",
        float,
        "mean over actuators of temporal mean over standard deviation",
        label="SNR",
        format="%7.2f",
        archive_change=0.1,
    ),
    Value(
        "strehl",
        float,
        "Strehl ratio, extended Marechal approximation; see loop.strehl_model",
        label="Strehl estimate",
        format="%6.3f",
        minimum=0.0,
        maximum=1.0,
        archive_change=0.005,
    ),
    Value(
        "rmse_est",
        float,
        "mean of the exterior pixels (ADU)",
        label="Exterior flux",
        format="%8.2f",
        archive_change=1.0,
    ),
    Value(
        "residual_rms",
        float,
        "rms of the high-order modal errors, as optical path difference",
        unit="nm",
        label="HO residual",
        format="%7.1f",
        archive_change=1.0,
    ),
    Value(
        "tip_tilt_rms",
        float,
        "rms of the two tip/tilt errors over the last second (DM units)",
        label="Tip/tilt residual",
        format="%9.5f",
        archive_change=0.0001,
    ),
    Value(
        "dm_rms",
        float,
        "rms of the newest DM command (DM units)",
        label="DM rms",
        format="%8.4f",
        archive_change=0.0001,
    ),
    Value(
        "dm_peak",
        float,
        "largest absolute value of the newest DM command (DM units)",
        label="DM peak",
        format="%8.4f",
        warning=(None, 0.35),
        archive_change=0.001,
    ),
    Value(
        "boxcar",
        int,
        "frames of the running mean of the signal; 1: none",
        label="Boxcar",
        minimum=1,
        archive_change=0,
    ),
    Value(
        "burst_reads",
        int,
        "non-destructive reads per reset that a slope is fitted to; 1: every frame stands for itself",
        label="Reads per reset",
        minimum=1,
        archive_change=0,
    ),
    Value("injection", str, "the injected signal, or empty", label="Injected signal"),
    Value("telemetry_on", bool, "telemetry is being written", label="Telemetry"),
    Value("telemetry_file", str, "telemetry file being written, or the last one", label="Telemetry file"),
    Value(
        "telemetry_frames",
        int,
        "frames written to telemetry files",
        label="Frames written",
        archive_change=1000,
    ),
    Value(
        "telemetry_overruns",
        int,
        "frames that left the ring before they were written",
        label="Telemetry overruns",
        archive_change=0,
    ),
    Value("telemetry_error", str, "why telemetry cannot be written, or empty", label="Telemetry error"),
    Value(
        "telemetry_capacity",
        int,
        "newest frames in memory that are saved, polled and averaged",
        label="Telemetry capacity",
        archive_change=0,
    ),
    Value("saved_telemetry", str, "file last written by save_telemetry", label="Saved telemetry"),
    Value("save_error", str, "why save_telemetry wrote no file, or empty", label="Save error"),
    Value(
        "gc_collections",
        int,
        "collections of garbage in this process since a beam was configured last",
        label="Garbage collections",
        archive_change=100,
        expert=True,
    ),
    Value(
        "gc_pause_max",
        float,
        "longest of these collections: replies and telemetry wait that long, the loop does not",
        unit="ms",
        label="Longest collection",
        format="%7.2f",
        archive_change=1.0,
        expert=True,
    ),
    _spectrum("e_LO", "newest tip/tilt errors (DM units)", _MOST_MODES, label="LO errors"),
    _spectrum(
        "u_LO", "newest tip/tilt controller outputs (DM units)", _MOST_MODES, label="LO outputs", expert=True
    ),
    _spectrum("e_HO", "newest high-order errors (DM units)", _MOST_MODES, label="HO errors"),
    _spectrum(
        "u_HO",
        "newest high-order controller outputs (DM units)",
        _MOST_MODES,
        label="HO outputs",
        expert=True,
    ),
    _spectrum("signal", "newest sensor signal per actuator", _MOST_MODES, label="Signal"),
    _spectrum(
        "dm_command",
        "newest map in the DM channel, corners included (DM units)",
        _MOST_MODES,
        label="DM command",
    ),
    _counts("ho_violations", "violations per high-order mode since the loop was closed", "HO violations"),
    _counts(
        "actuator_violations",
        "times a point of the DM map was beyond limits.command when that opened the loops",
        "Actuator violations",
    ),
    Value(
        "frame",
        int,
        "newest camera frame (ADU)",
        label="Frame",
        shape="image",
        max_dim=(_LARGEST_FRAME, _LARGEST_FRAME),
        slow=True,
    ),
    Value(
        "dm_map",
        float,
        "newest DM command on the mirror's grid (DM units)",
        label="DM map",
        format="%8.4f",
        shape="image",
        max_dim=(64, 64),
        slow=True,
    ),
)


@functools.cache
def status_names() -> tuple[str, ...]:
    """The 15 status keys in the commander's order."""
    return tuple(value.name for value in VALUES if value.status_key)
