"""Tables of the runtime file, each key declared once: default, meaning, unit, allowed range."""

# ruff: noqa: RUF009 - `key` returns a dataclass field, which is what a default may be

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from baldr_tango.configuration.schema import Gain, key


@dataclass(frozen=True)
class InstrumentSettings:
    """Table ``[instrument]``: which beams there are and under which names."""

    beams: tuple[int, ...] = key(
        (1, 2, 3, 4), "Beams that this instrument has.", minimum=1, maximum=4, length=(1, 4)
    )
    tango_prefix: str = key("asgard/baldr", "Tango domain and family; beam n is the device <prefix>/n.")
    server_instance: str = key("main", "Instance name of the Tango device server BaldrRTC.")
    state: Path = key(
        Path("~/.local/state/baldr"), "Directory of everything that is written; {state} in other paths."
    )
    server_cpus: tuple[int, ...] = key(
        (),
        "CPUs of all that the device server does beside its loops; empty: one that no loop uses.",
        minimum=0,
        maximum=4095,
    )


@dataclass(frozen=True)
class StreamSettings:
    """Table ``[streams]``: the shared-memory streams of a beam; {beam} stands for its number."""

    directory: str = key(
        "", "Directory of the streams; empty: $MILK_SHM_DIR if it exists, else /dev/shm, else /tmp."
    )
    camera: str = key("baldr{beam}", "Stream of wavefront-sensor frames.")
    dm_command: str = key("dm{beam}disp02", "DM channel that the real-time loop writes.")
    dm_combined: str = key("dm{beam}", "Stream of the summed DM channels, which wakes the DM server.")
    semaphore: int = key(
        1, "Semaphore of the streams on which the loop waits and posts.", minimum=0, maximum=9
    )
    silent_after_s: float = key(
        0.5, "Time without a frame after which the camera counts as silent.", unit="s", above=0, maximum=60
    )


@dataclass(frozen=True)
class EndpointSettings:
    """Table ``[endpoints]``: where ZMQ servers listen."""

    commander_host: str = key("127.0.0.1", "Interface on which the commander of each beam listens.")
    commander_first_port: int = key(
        6662, "Commander port of beam 1; beam n has this plus n - 1.", minimum=1, maximum=65532
    )
    camera: str = key("tcp://127.0.0.1:6667", "Endpoint of the camera server.")
    mds: str = key("tcp://127.0.0.1:5555", "Endpoint of the multi-device server (MDS).")
    dm_server: str = key("tcp://127.0.0.1:6666", "Endpoint of the DM server.")
    timeout_s: float = key(1.0, "Longest wait for an answer of a peer server.", unit="s", above=0, maximum=60)
    camera_timeout_s: float = key(
        3.0,
        "Longest wait for an answer of the camera server, whose serial line takes about a second.",
        unit="s",
        above=0,
        maximum=60,
    )


@dataclass(frozen=True)
class CalibrationSettings:
    """Table ``[calibration]``: which calibration file a beam loads."""

    file: Path = key(
        Path("{state}/calibration/baldr_config_{beam}.toml"),
        "Calibration file; a directory is searched for the newest baldr_config_<beam>_<mode>_*.toml.",
    )
    mask: str = key("H3", "Phase mask: name of the table inside the calibration file.")
    mode: str = key("bright", "Observing mode.", choices=("bright", "faint"))


@dataclass(frozen=True)
class LoopSettings:
    """Table ``[loop]``: signal processing of the real-time loop."""

    bad_pixels: str = key(
        "neighbours",
        "Repair of bad pixels: mean of the good neighbours, or median of the frame (slower).",
        choices=("neighbours", "median"),
    )
    boxcar: int = key(
        1, "Frames of the running weighted mean of the signal; 1: none.", minimum=1, maximum=1000
    )
    pedestal_adu: float = key(
        1000.0, "Dark level taken where the calibration file has none.", unit="ADU", minimum=0, maximum=1e6
    )
    frame_rate_hz: float = key(
        1000.0,
        "Frame rate assumed when the camera server does not answer; 0: that of the calibration file.",
        unit="Hz",
        minimum=0,
        maximum=10000,
    )
    nm_per_dm_unit: float = key(
        7000.0, "Optical path difference of one DM unit.", unit="nm", above=0, maximum=1e6
    )
    wavelength_nm: float = key(
        1650.0, "Wavelength at which the Strehl ratio is quoted.", unit="nm", above=0, maximum=1e5
    )
    strehl_model: str = key(
        "residual",
        "Strehl estimate: from the high-order residual, or from the light behind the secondary obstruction"
        " through the measured line I2rms_sec of the calibration.",
        choices=("residual", "secondary"),
    )
    basis_file: str = key(
        "",
        "FITS file of DM bases, with extensions BASIS:<name>; they go before the generated ones of that name."
        " Empty: only those.",
    )
    snr_frames: int = key(
        1000,
        "Frames over which the signal-to-noise ratio is estimated.",
        unit="frames",
        minimum=2,
        maximum=1000000,
    )
    ring_frames: int = key(
        4096, "Frames that the telemetry ring in memory holds.", unit="frames", minimum=16, maximum=1000000
    )


@dataclass(frozen=True)
class ControlSettings:
    """Tables ``[control_lo]`` and ``[control_ho]``: the controller of one loop.

    A gain is one number for all modes, or a list with one number per mode.
    """

    type: str = key(
        "",
        "Controller; empty: the one named by the calibration file.",
        choices=("", "PID", "LEAKY", "KALMAN"),
    )
    kp: Gain = key(0.0, "Proportional gain (PID).")
    ki: Gain = key(0.3, "Integral gain (PID); gain K (LEAKY and, to begin with, KALMAN).")
    kd: Gain = key(0.0, "Derivative gain (PID).")
    leak: Gain = key(0.99, "Fraction of the integral kept per frame (alpha of LEAKY).", minimum=0, maximum=1)
    lower: Gain = key(-2.0, "Lower bound of integral and output.", unit="DM units")
    upper: Gain = key(2.0, "Upper bound of integral and output.", unit="DM units")


@dataclass(frozen=True)
class LimitSettings:
    """Table ``[limits]``: when the loop protects the mirror."""

    command: float = key(
        0.4, "Largest absolute DM command; beyond it the loops open.", unit="DM units", above=0, maximum=1
    )
    lo_command: float = key(
        0.3,
        "Largest absolute tip/tilt map; beyond it that controller restarts.",
        unit="DM units",
        above=0,
        maximum=1,
    )
    ho_mode: float = key(
        0.1,
        "Largest absolute high-order mode; beyond it that mode restarts.",
        unit="DM units",
        above=0,
        maximum=1,
    )
    min_flux_adu: float = key(
        1000.0,
        "Smallest flux of a frame that is used; below it the frame is skipped and counted.",
        unit="ADU",
        minimum=0,
        maximum=1e9,
    )
    ho_violations: int = key(
        100, "Violations after which a high-order mode is switched off.", minimum=1, maximum=1000000000
    )
    saturation_adu: float = key(
        65535.0, "Value from which on a raw pixel is saturated.", unit="ADU", above=0, maximum=1e10
    )
    negative_adu: float = key(
        500.0, "Distance below the dark from which on a pixel is negative.", unit="ADU", above=0, maximum=1e10
    )
    wrong_pixels: int = key(
        10,
        "Saturated or negative pixels, bad pixels apart, that a frame may have; with more it is skipped.",
        minimum=0,
        maximum=1000000000,
    )
    frozen_frames: int = key(
        20,
        "Repetitions of the same pixels in a row after which frames are skipped; 0: never.",
        unit="frames",
        minimum=0,
        maximum=1000000000,
    )
    command_rms: float = key(
        0.2,
        "Largest rms of the controllers' command; more counts as running away.",
        unit="DM units",
        above=0,
        maximum=1,
    )
    runaway: int = key(
        1000,
        "Level of running away at which the loops open; 0: never. Each frame takes 1 off, each high-order"
        " mode beyond its limit adds 1, a command beyond command_rms 10, a restart of tip/tilt 20.",
        minimum=0,
        maximum=1000000000,
    )
    write_failures: int = key(
        10,
        "Commands in a row that cannot be written before the loops open; 0: any number.",
        minimum=0,
        maximum=1000000000,
    )


@dataclass(frozen=True)
class AutomationSettings:
    """Table ``[automation]``: loops that close and open by themselves.

    A threshold below 0 is that of the calibration file. Between the threshold for closing and the one for
    opening nothing happens.
    """

    auto_close: bool = key(False, "Close the loops when it is worth it.")
    auto_open: bool = key(False, "Open the loops when they do not work.")
    loops: str = key("both", "Loops that are closed and opened.", choices=("both", "lo", "ho"))
    close_on_strehl: float = key(
        -1.0, "Strehl estimate above which the loops close; below 0: the file's.", minimum=-1, maximum=100
    )
    open_on_strehl: float = key(
        -1.0, "Strehl estimate below which the loops open; below 0: the file's.", minimum=-1, maximum=100
    )
    close_on_snr: float = key(
        2.0, "Signal-to-noise ratio above which the loops close.", minimum=0, maximum=1e9
    )
    open_on_snr: float = key(
        -1.0,
        "Signal-to-noise ratio below which the loops open; below 0: the file's open_on_flux_limit.",
        minimum=-1,
        maximum=1e9,
    )
    open_on_dm: float = key(
        -1.0,
        "Largest absolute DM command above which the loops open; 0: none; below 0: the file's.",
        unit="DM units",
        minimum=-1,
        maximum=1,
    )
    dwell_close_s: float = key(
        2.0, "Time for which closing must be worth it.", unit="s", minimum=0, maximum=3600
    )
    dwell_open_s: float = key(
        0.5, "Time for which there must be a reason to open.", unit="s", minimum=0, maximum=3600
    )
    smooth_s: float = key(
        0.3, "Time constant with which the readings are smoothed.", unit="s", minimum=0, maximum=60
    )


@dataclass(frozen=True)
class RealtimeSettings:
    """Table ``[realtime]``: scheduling of the real-time thread."""

    priority: int = key(50, "SCHED_FIFO priority; 0: normal scheduling.", minimum=0, maximum=99)
    cpus: tuple[int, ...] = key((), "CPUs on which the thread may run; empty: all.", minimum=0, maximum=4095)
    lock_memory: bool = key(True, "Lock the process in memory.")
    waiting: str = key(
        "semaphore",
        "How the thread waits for a frame: asleep on the semaphore, polling the camera's counter all the"
        " time, or polling for spin_us before it goes to sleep.",
        choices=("semaphore", "spin", "spin_then_wait"),
    )
    spin_us: float = key(
        100.0, "Time that spin_then_wait polls for each frame.", unit="us", minimum=1, maximum=100000
    )
    window_s: int = key(
        10,
        "Time over which percentiles of latency and jitter are taken beside those since the start.",
        unit="s",
        minimum=1,
        maximum=600,
    )


TELEMETRY_DEFAULT_FIELDS = (
    "frame",
    "time_ns",
    "latency_ns",
    "LO_servo_mode",
    "HO_servo_mode",
    "flags",
    "img",
    "signal",
    "e_LO",
    "u_LO",
    "e_HO",
    "u_HO",
    "c_inj",
    "command",
    "flux",
    "rmse_est",
    "snr",
    "strehl",
    "version",
)


@dataclass(frozen=True)
class TelemetrySettings:
    """Table ``[telemetry]``: what is recorded, where, and how much."""

    record: bool = key(False, "Record from the start.")
    directory: Path = key(
        Path("{state}/telemetry"), "Directory; each beam writes into its sub-directory beamN."
    )
    fields: tuple[str, ...] = key(
        TELEMETRY_DEFAULT_FIELDS, "Telemetry fields that are recorded; raw images are thinned by image_every."
    )
    image_every: int = key(
        100,
        "Record one raw image of this many frames; 1: all, for `baldr replay`; 0: none.",
        unit="frames",
        minimum=0,
        maximum=1000000,
    )
    chunk_s: float = key(0.5, "Time between two writes to disk.", unit="s", above=0, maximum=60)
    file_mb: float = key(256.0, "Size at which a new file is begun.", unit="MB", above=0, maximum=1e6)
    file_s: float = key(600.0, "Age at which a new file is begun.", unit="s", above=0, maximum=1e6)
    keep_files: int = key(
        0, "Files kept per beam, the oldest are deleted; 0: all.", minimum=0, maximum=1000000
    )
    min_free_mb: float = key(
        1024.0, "Free disk space below which recording stops.", unit="MB", minimum=0, maximum=1e9
    )
    compression: str = key("none", "Compression of the files.", choices=("none", "lzf", "gzip"))


@dataclass(frozen=True)
class SimulatorSettings:
    """Table ``[simulator]``: the virtual instrument."""

    plant: str = key(
        "optical",
        "Zernike wavefront sensor with turbulence, or linear: interaction matrix of the calibration.",
        choices=("optical", "linear"),
    )
    rate_hz: float = key(
        1000.0,
        "Frame rate; 0: that of the calibration file of the first beam (linear plant only).",
        unit="Hz",
        minimum=0,
        maximum=10000,
    )
    seed: int = key(1, "Seed of every random number.", minimum=0, maximum=2**31 - 1)
    drop_every: int = key(
        0,
        "Rehearsal of a fault: leave out one frame of this many; 0: none.",
        unit="frames",
        minimum=0,
        maximum=2**31 - 1,
    )

    wavelength_nm: float = key(1650.0, "Wavelength of the wavefront sensor.", unit="nm", above=0, maximum=1e5)
    telescope_diameter_m: float = key(1.8, "Diameter of the telescope.", unit="m", above=0, maximum=100)
    pupil_pixels: float = key(
        12.0, "Diameter of the pupil on the detector.", unit="pixels", above=0, maximum=512
    )
    secondary_ratio: float = key(
        0.14, "Diameter of the secondary obstruction over that of the pupil.", minimum=0, maximum=0.9
    )
    mask_diameter_lambda_over_d: float = key(
        1.06,
        "Diameter of the dot of mask H3 (N'Diaye et al. 2013); the others in proportion to theirs in um.",
        unit="lambda/D",
        above=0,
        maximum=10,
    )
    mask_depth_rad: float = key(
        math.pi / 2,
        "Phase shift of the dot of mask H3 at wavelength_nm; the others in proportion to their depth in um.",
        unit="rad",
        minimum=-7,
        maximum=7,
    )
    dm_coupling: float = key(
        0.15, "Height of an actuator's influence function at its neighbour.", above=0, maximum=0.9
    )
    dm_pitch_pixels: float = key(
        1.2, "Distance of two actuators on the detector.", unit="pixels", above=0, maximum=64
    )
    dm_flat: float = key(0.5, "Flat of the mirror.", unit="DM units", minimum=0, maximum=1)
    nm_per_dm_unit: float = key(
        7000.0, "Optical path difference of one DM unit.", unit="nm", above=0, maximum=1e6
    )

    turbulence: bool = key(True, "Turbulence at the start.")
    residual_rms_nm: float = key(
        110.0, "Wavefront error that the first stage leaves.", unit="nm", minimum=0, maximum=10000
    )
    wind_speed_m_s: float = key(10.0, "Speed of the frozen turbulence.", unit="m/s", minimum=0, maximum=100)
    outer_scale_m: float = key(25.0, "Outer scale of the turbulence.", unit="m", above=0, maximum=10000)
    first_stage_actuators: int = key(
        9, "Actuators of the first stage across the pupil.", minimum=1, maximum=100
    )
    first_stage_rejection: float = key(
        0.9, "Fraction of the amplitude that the first stage removes inside its band.", minimum=0, maximum=1
    )
    tip_tilt_rms_nm: float = key(
        60.0, "Tip/tilt that the first stage leaves.", unit="nm", minimum=0, maximum=10000
    )
    vibration_hz: tuple[float, ...] = key(
        (), "Frequencies of tip/tilt vibrations.", unit="Hz", above=0, maximum=5000
    )
    vibration_nm: tuple[float, ...] = key(
        (), "Amplitudes of these vibrations.", unit="nm rms", minimum=0, maximum=10000
    )

    flux_adu: float = key(60000.0, "Sum of one frame without pedestal.", unit="ADU", minimum=0, maximum=1e9)
    read_noise_adu: float = key(2.0, "Read noise of a pixel.", unit="ADU rms", minimum=0, maximum=1e5)
    electrons_per_adu: float = key(
        1.0, "Photo-electrons per ADU, which sets the photon noise.", unit="e/ADU", above=0, maximum=1e5
    )
    pedestal_adu: float = key(1000.0, "Level of a dark frame.", unit="ADU", minimum=0, maximum=1e6)
    magnitude: float = key(
        3.0, "Magnitude of the star that gives flux_adu.", unit="mag", minimum=-10, maximum=30
    )

    cube_directory: Path = key(
        Path("{state}/cubes"), "Directory of the frame cubes that the camera server writes in save mode."
    )
    cube_frames: int = key(5000, "Frames of a cube.", unit="frames", minimum=1, maximum=100000)
    cube_max_mb: float = key(
        2000.0, "Size of all cubes at which saving ends.", unit="MB", minimum=0, maximum=1e9
    )

    stage_speed_um_s: float = key(
        2000.0, "Speed of the phase-mask stages.", unit="um/s", above=0, maximum=1e9
    )
    quirk_cli_delay_s: float = key(
        0.0,
        "Rehearsal of a habit: time that the camera's command line takes; nothing else is answered then.",
        unit="s",
        minimum=0,
        maximum=10,
    )
    quirk_nul_endings: bool = key(
        False, "Rehearsal of a habit: replies of the control servers end with a NUL."
    )
    quirk_post_first: bool = key(False, "Rehearsal of a habit: frames are posted before they are counted.")
    quirk_silent_start: bool = key(
        False, "Rehearsal of a habit: no frame comes before the camera server is told split_mode 1."
    )
    quirk_recreate: str = key(
        "off",
        "Rehearsal of a habit: what crop_mode does to the camera streams; camera_server: a new file for the"
        " first beam, the others in place.",
        choices=("off", "new_file", "in_place", "camera_server"),
    )
    quirk_fps_junk: bool = key(
        False, "Rehearsal of a habit: the camera answers the question for its frame rate without a number."
    )

    disturbance_lo: tuple[float, ...] = key(
        (0.0, 0.0),
        "Static disturbance of each low-order mode (linear plant).",
        unit="DM units",
        minimum=-1,
        maximum=1,
    )
    disturbance_rms: float = key(
        0.01,
        "Varying disturbance of each actuator (linear plant).",
        unit="DM units rms",
        minimum=0,
        maximum=1,
    )
