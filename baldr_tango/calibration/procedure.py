"""Calibration of an instrument, real or virtual, through its streams.

Dark, clear pupil, reference, registration of the mirror, interaction matrix, reconstructors; all beams at
the same time. The result is a calibration file of each beam.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from baldr_tango.calibration.geometry import (
    REGISTRATION_POKES,
    bilinear_matrix,
    fit_spot,
    pixel_masks,
    register_actuators,
)
from baldr_tango.calibration.inversion import tip_tilt_shapes
from baldr_tango.calibration.measurement import BeamBench
from baldr_tango.calibration.result import Measurement, calibration_of
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.runtime import BeamSettings, RuntimeConfig
from baldr_tango.errors import BackendError
from baldr_tango.names import N_ACTUATORS, from_grid

FloatArray = NDArray[np.float64]
Progress = Callable[[float, str], None]
_T = TypeVar("_T")


class InstrumentControl(Protocol):
    """What a calibration asks of the instrument besides frames and pokes; calls return when it is done."""

    def set_lamp(self, on: bool) -> None:
        """Switch the light source on or off."""

    def move_mask(self, beam: int, in_: bool) -> None:
        """Move the phase mask of a beam in or out."""

    def set_turbulence(self, on: bool) -> None:
        """Let turbulence in or keep it out; does nothing where there is none to switch."""


@dataclass(frozen=True)
class ProcedureSettings:
    """How a calibration is made; numbers of frames are per average."""

    dark_frames: int = 300
    reference_frames: int = 400
    registration_frames: int = 50
    mode_frames: int = 100
    poke_frames: int = 20
    skip_frames: int = 3
    """Frames let pass after each poke, until the mirror has moved."""
    poke: float = 0.05
    """Distance of the two signs of an actuator's poke [DM units]."""
    mode_poke: float = 0.01
    """The same for tip and tilt, whose edge moves further [DM units rms]."""
    least_response: float = 0.3
    """Response below which an actuator is not controlled, over the median in the pupil."""
    project_tip_tilt: bool = True
    """Take tip and tilt out of the high-order modes."""
    controller_type: str = "LEAKY"
    """Controller that the file asks for. The sensor does not see piston; a leak keeps it from drifting."""
    semaphore: int = 7
    """Semaphore of the camera stream to wait on; not the one of the real-time loop."""

    @property
    def frames(self) -> int:
        """Frames of a calibration of one beam."""
        skip = self.skip_frames
        return (
            self.dark_frames
            + 2 * self.reference_frames
            + 3 * skip
            + 2 * len(REGISTRATION_POKES) * (self.registration_frames + skip)
            + 4 * (self.mode_frames + skip)
            + 2 * N_ACTUATORS * (self.poke_frames + skip)
        )


def calibrate(
    config: RuntimeConfig,
    control: InstrumentControl,
    *,
    frame_rate_hz: float,
    gain: float,
    beams: Sequence[int] | None = None,
    settings: ProcedureSettings | None = None,
    progress: Progress | None = None,
) -> dict[int, Path]:
    """Measure some beams and write their calibration files.

    The loops must be open. Afterwards the poke channels are as they were, the lamp is on, the masks are in,
    and turbulence is as the runtime configuration has it at the start.

    Parameters
    ----------
    frame_rate_hz, gain : of the camera, noted in the file.
    beams : all beams of `config` when not given.
    progress : called in this thread with a fraction (0 to 1) and a text.

    Returns
    -------
    File of each beam: ``calibration.file`` of the runtime configuration, or a new dated file if that is a
    directory.

    Raises
    ------
    BackendError : a stream is missing, the camera stopped, or the measurement makes no sense.
    ConfigError : a file of the same name holds something else.
    """
    chosen = tuple(config.beams if beams is None else beams)
    how = settings or ProcedureSettings()
    say = progress or _silent
    measurements = measure(config, control, chosen, how, say)
    files = {}
    for k, (beam, measurement) in enumerate(measurements.items()):
        say(0.95 + 0.05 * k / len(measurements), f"beam {beam}: writing the calibration")
        target = config.for_beam(beam)
        calibration = calibration_of(
            measurement,
            beam=beam,
            mask=target.mask,
            frame_rate_hz=frame_rate_hz,
            gain=gain,
            poke=how.poke,
            least_response=how.least_response,
            project_tip_tilt=how.project_tip_tilt,
            controller_type=how.controller_type,
        )
        files[beam] = write_calibration(_file_of(target), calibration, beam, target.mask)
    say(1.0, "calibrated")
    return files


def measure(
    config: RuntimeConfig,
    control: InstrumentControl,
    beams: Sequence[int],
    settings: ProcedureSettings,
    progress: Progress,
) -> dict[int, Measurement]:
    """Measure some beams at the same time; see `calibrate`."""
    cancelled = threading.Event()
    with ExitStack() as stack:
        benches = {
            beam: stack.enter_context(BeamBench(config.for_beam(beam).streams, settings.semaphore, cancelled))
            for beam in beams
        }
        crew = stack.enter_context(_Crew(benches, settings, cancelled, progress))
        stack.callback(control.set_turbulence, config.simulator.turbulence)
        stack.callback(_move_masks, control, beams, True)
        stack.callback(control.set_lamp, True)
        control.set_turbulence(False)
        control.set_lamp(False)
        skip = settings.skip_frames
        dark = crew.all("dark", lambda bench: bench.average(settings.dark_frames, skip))
        control.set_lamp(True)
        _move_masks(control, beams, False)
        clear = crew.all("clear pupil", lambda bench: bench.average(settings.reference_frames, skip))
        _move_masks(control, beams, True)
        masked = crew.all("reference", lambda bench: bench.average(settings.reference_frames, skip))
        start = {
            beam: StartFrames(dark[beam], clear[beam] - dark[beam], masked[beam] - dark[beam])
            for beam in beams
        }
        return crew.each("interaction matrix", lambda beam: respond(benches[beam], start[beam], settings))


@dataclass(frozen=True)
class StartFrames:
    """Frames of a beam before anything is poked: (P,) each [ADU]."""

    dark: FloatArray
    clear: FloatArray
    masked: FloatArray


def respond(bench: BeamBench, start: StartFrames, settings: ProcedureSettings) -> Measurement:
    """Register the mirror and measure the response to each mode and each actuator."""
    shape = bench.camera.shape
    masks = pixel_masks(start.clear.reshape(shape), start.masked.reshape(shape))

    def difference(command: FloatArray, poke: float, frames: int) -> FloatArray:
        """Frame at +poke/2 minus frame at -poke/2, each over its own sum, per DM unit."""
        images = []
        for sign in (0.5, -0.5):
            bench.poke(sign * poke * command)
            image = bench.average(frames, settings.skip_frames) - start.dark
            images.append(image / image.sum())
        return (images[0] - images[1]) / poke

    actuators = np.eye(N_ACTUATORS)
    spots = [
        fit_spot(
            difference(actuators[k], settings.poke, settings.registration_frames).reshape(shape) * masks.pupil
        )
        for k in REGISTRATION_POKES
    ]
    interpolation = bilinear_matrix(register_actuators(spots), (shape[0], shape[1]))
    visibility = interpolation @ masks.pupil.reshape(-1)
    modes = tip_tilt_shapes(visibility > 0.5)
    low = [difference(from_grid(mode), settings.mode_poke, settings.mode_frames) for mode in modes.T]
    high = [difference(actuator, settings.poke, settings.poke_frames) for actuator in actuators]
    bench.poke(np.zeros(N_ACTUATORS))
    return Measurement(
        dark=start.dark,
        clear=start.clear,
        masked=start.masked,
        masks=masks,
        interpolation=interpolation,
        visibility=visibility,
        mode_shapes=modes,
        responses=np.array([*low, *high]),
    )


@dataclass
class _Crew:
    """One thread per beam; joint steps, with progress told in the caller's thread."""

    benches: dict[int, BeamBench]
    settings: ProcedureSettings
    cancelled: threading.Event
    progress: Progress
    pool: ThreadPoolExecutor = field(init=False)

    def __enter__(self) -> _Crew:
        self.pool = ThreadPoolExecutor(len(self.benches), thread_name_prefix="calibration")
        return self

    def __exit__(self, *_: object) -> None:
        self.cancelled.set()
        self.pool.shutdown()

    def all(self, step: str, task: Callable[[BeamBench], _T]) -> dict[int, _T]:
        """Run `task` on every bench."""
        return self.each(step, lambda beam: task(self.benches[beam]))

    def each(self, step: str, task: Callable[[int], _T]) -> dict[int, _T]:
        """Run `task` for every beam; the first failure ends all, and names its beam."""
        jobs: dict[int, Future[_T]] = {beam: self.pool.submit(task, beam) for beam in self.benches}
        pending = set(jobs.values())
        while pending:
            finished, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            self.progress(0.95 * self._done(), step)
            for beam, job in jobs.items():
                if job in finished and (error := job.exception()) is not None:
                    self.cancelled.set()
                    raise BackendError(f"beam {beam}: {step}: {error}") from error
        return {beam: job.result() for beam, job in jobs.items()}

    def _done(self) -> float:
        seen = min(bench.frames_seen for bench in self.benches.values())
        return min(1.0, seen / self.settings.frames)


def _file_of(settings: BeamSettings) -> Path:
    path = settings.calibration_file
    if not path.is_dir():
        return path
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H-%M-%S")
    return path / f"baldr_config_{settings.beam}_{settings.mode}_{now}.toml"


def _move_masks(control: InstrumentControl, beams: Sequence[int], in_: bool) -> None:
    for beam in beams:
        control.move_mask(beam, in_)


def _silent(fraction: float, text: str) -> None:
    """Say nothing."""
