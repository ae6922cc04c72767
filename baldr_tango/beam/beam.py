"""A beam as a whole: built, asked, told and taken down through one class."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from baldr_tango import __version__
from baldr_tango.bases import Basis, load_bases
from baldr_tango.beam.automation import Automation, limits_in_force
from baldr_tango.beam.camera_following import CameraFollower
from baldr_tango.beam.changes import APPLY_TIMEOUT_S
from baldr_tango.beam.faults import trip_text
from baldr_tango.beam.housekeeping import Housekeeping
from baldr_tango.beam.injection import Injection
from baldr_tango.beam.interaction_procedure import Interaction
from baldr_tango.beam.jobs import Jobs
from baldr_tango.beam.judgement import Judgement
from baldr_tango.beam.live_configuration import LiveConfiguration
from baldr_tango.beam.mask_following import MaskFollower
from baldr_tango.beam.offsets import Offsets
from baldr_tango.beam.processing import Processing
from baldr_tango.beam.readings import read_values
from baldr_tango.beam.references import References
from baldr_tango.beam.saving import Saving
from baldr_tango.beam.self_test import prepare_self_test
from baldr_tango.beam.state import BeamState, StateChange, after
from baldr_tango.beam.statistics import Figures
from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import BeamSettings
from baldr_tango.errors import BackendError, BaldrError, StateError
from baldr_tango.interface import status_names
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import LoopState, RtcState
from baldr_tango.peers import CameraClient, MdsClient
from baldr_tango.rtc import RealTimeLoop, lock_memory
from baldr_tango.rtc.compilation import is_compiling
from baldr_tango.telemetry import TelemetryWriter
from baldr_tango.telemetry.ring import TelemetryRing
from baldr_tango.telemetry.writer import TelemetryStatus

LOADING_STOP_S: Final = 5.0
"""Longest wait for a configuration that is being loaded."""

COMPILING_STOP_S: Final = 0.2
"""The same while the compiler is busy, for which that may wait."""

STOP_S: Final = 1.0
"""Longest wait for the real-time thread at the end: a few frames."""


class Beam:
    """One telescope beam: wavefront sensor, controller, deformable mirror.

    All methods may be called from any thread. None of them waits for the loop for longer than
    `APPLY_TIMEOUT_S`; `load` reads a calibration file, which takes some tenths of a second.

    Parameters
    ----------
    settings : everything that the runtime configuration says about this beam
    log : logger; "baldr.beamN" by default
    """

    def __init__(self, settings: BeamSettings, *, log: logging.Logger | None = None) -> None:
        self.settings = settings
        self.name = f"beam{settings.beam}"
        self.log = log or logging.getLogger(f"baldr.{self.name}")
        self.on_exit: list[Callable[[], None]] = []
        """Called, in a thread of their own, when the command ``exit`` was given."""
        self.on_change: list[Callable[[StateChange], None]] = []
        """Called at each transition; must be quick."""
        self.exclusive = threading.RLock()
        """Held while a command changes the beam: one at a time."""
        self.loop: RealTimeLoop | None = None
        self.calibration: Calibration | None = None
        """Calibration in force."""
        self.calibration_limits: Mapping[str, float] = {}
        """Limits and flags of the calibration file that are only reported."""
        self.judgement: Judgement = Judgement(self)
        """What the calibration is worth, and whether the loops will be stable."""
        self.housekeeping = Housekeeping(self)
        self.camera: CameraFollower = CameraFollower(self)
        """What the camera server says, and what follows from it."""
        self.mask: MaskFollower = MaskFollower(self)
        """Where the phase mask stands."""
        self.live: LiveConfiguration = LiveConfiguration(self)
        """What the file said and operators have changed since."""
        self.saving: Saving = Saving(self, self._describe)
        """Telemetry capacity, save path and save format, and the saving itself."""
        self.jobs: Jobs = Jobs(self.log, self.name)
        """Long commands."""
        self.references: References = References(self)
        """Dark and references, measured with the loop's frames."""
        self.automation: Automation = Automation(self)
        """Loops that close and open by themselves."""
        self.interaction: Interaction = Interaction(self)
        """Interaction matrices and the reconstructors made of them."""
        self.bases: dict[str, Basis] = {}
        """Mirror shapes loaded from a file, by name; they come before those that the product makes."""
        self.injection: Injection = Injection(self)
        """Signal added to the mirror or to the set points."""
        self.offsets: Offsets = Offsets(self)
        """Maps on the mirror while a loop is open."""
        self.processing: Processing = Processing(self)
        """Boxcar and bursts of reads."""
        self._telemetry: TelemetryWriter | None = None
        self._camera: CameraClient | None = None
        self._mds: MdsClient | None = None
        self._failure = ""
        self._busy = ""
        self._starter: threading.Thread | None = None
        self._closing = threading.Event()
        self._loaded = threading.Event()

    # Life cycle

    def start(self) -> None:
        """Bring the beam up in the background: configuration, streams, kernels, telemetry."""
        if self._starter is not None and self._starter.is_alive():
            return
        self._closing.clear()
        if self.settings.realtime.lock_memory:
            lock_memory(self.log)
        self.judgement.start()
        self._camera = CameraClient(self.settings.camera_endpoint, self.settings.camera_timeout_s)
        self._mds = MdsClient(self.settings.mds_endpoint, self.settings.timeout_s)
        self.camera.start()
        self.mask.start(self._mds)
        self._busy = "reading the configuration"
        self.housekeeping.start()
        self._loaded.clear()
        self._starter = threading.Thread(target=self._start, name=f"start-{self.name}", daemon=True)
        self._starter.start()

    def _start(self) -> None:
        try:
            if self.settings.loop.basis_file:
                self.bases = load_bases(self.settings.loop.basis_file)
            self.load(self.settings.calibration_file, self.settings.mask)
            self._loaded.set()
            if not self._closing.is_set():
                prepare_self_test()
        except BaldrError as error:
            self._failure = str(error)
            self.log.error("configuration failed: %s", error)
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"
            self.log.exception("configuration failed")
        finally:
            self._loaded.set()

    def close(self) -> None:
        """Stop everything in reverse order; bounded, and harmless when called twice."""
        self._closing.set()
        if not self.jobs.close(2.0):
            self.log.error("%s did not end in time", self.jobs.status.name)
        self.judgement.stop()
        self.camera.stop()
        if self._starter is not None:
            # Nothing interrupts the compiler, and who waits for it starts nothing any more.
            self._loaded.wait(COMPILING_STOP_S if is_compiling() else LOADING_STOP_S)
        if self.loop is not None:
            # A loop that is being compiled has no streams, and will not open any.
            compiling = self.loop.is_compiling
            if not self.loop.stop(0.0 if compiling else STOP_S) and not compiling:
                self.log.error("the real-time thread did not stop in time")
        if self._telemetry is not None:
            self._telemetry.stop(2.0)
        self.saving.close(2.0)
        self.housekeeping.stop()
        self.mask.stop()
        for client in (self._camera, self._mds):
            if client is not None:
                client.close()
        self._camera = self._mds = None

    def request_exit(self) -> None:
        """Stop the beam and tell whoever runs it, after the reply to this request has gone."""

        def leave() -> None:
            for callback in list(self.on_exit):
                callback()

        self.stop_rtc()
        threading.Thread(target=leave, name=f"exit-{self.name}", daemon=True).start()

    # Configuration

    def load(self, path: str | Path, mask: str | None = None) -> LoopParameters:
        """Load a calibration file and start the loop on it, both loops open.

        Parameters
        ----------
        path : calibration file, TOML or JSON
        mask : phase mask, the table inside the file; by default the one in force

        Raises
        ------
        ConfigError : the file is wrong; the configuration in force stays as it is.
        """
        used_mask = mask or (self.loop.parameters.mask if self.loop else self.settings.mask)
        calibration = load_calibration(path, self.settings.beam, used_mask)
        parameters = derive(calibration, self.settings, **self.camera.for_loading())
        for note in parameters.warnings:
            self.log.warning("%s", note)
        with self.exclusive:
            if self._closing.is_set():
                raise StateError(f"{self.name} is being closed")
            self._replace_loop(parameters)
            self.calibration = calibration
            self.calibration_limits = limits_in_force(calibration, self.settings.automation)
            self._failure = ""
            self._busy = ""
        self.judgement.look()
        self.log.info("configured from %s, mask %s, %.6g Hz", path, used_mask, parameters.frame_rate_hz)
        return parameters

    def _replace_loop(self, parameters: LoopParameters) -> None:
        """Stop the old loop, build and start the new one, hand its ring to telemetry."""
        new = RealTimeLoop(parameters, self.saving.settings(), self.log)
        self.saving.look_back(new)
        if self.loop is not None and not self.loop.stop():
            raise BackendError("the real-time thread did not stop; the configuration stays as it was")
        for feature in (self.injection, self.offsets, self.processing):
            feature.configure(new)
        self.loop = new
        self.housekeeping.watch(new)
        if self._telemetry is None:
            self._telemetry = TelemetryWriter(
                new.arrays.ring,
                self.settings.telemetry,
                self.settings.beam,
                self._describe,
                log=self.log,
                journal=lambda ring: self._loop().journal(ring),
            )
            self._telemetry.start()
        else:
            self._telemetry.replace_ring(new.arrays.ring)
        new.start()
        if self._closing.is_set():
            # `close` did not wait, since the compiler was busy: it may not have seen this loop.
            new.stop()
            self._telemetry.stop(2.0)
            raise StateError(f"{self.name} is being closed")

    # State

    @property
    def figures(self) -> Figures:
        """Rates and averages of the last second."""
        return self.housekeeping.figures

    def state(self) -> BeamState:
        """Tell what the beam is doing now; never waits."""
        loop = self.loop
        if loop is None:
            failed = bool(self._failure)
            return BeamState(
                RtcState.UNCONFIGURED if failed or not self._busy else RtcState.STARTING,
                LoopState.OPEN,
                LoopState.OPEN,
                fault=self._failure,
                busy="" if failed else self._busy,
            )
        # One word: a change of both loops is seen whole.
        loops = int(loop.arrays.state.counters[d.LOOPS])
        if not loop.has_streams:
            # Nobody is there to take an opening over, but it holds.
            loops &= loop.slots.switch(d.CLOSE_LO) | loop.slots.switch(d.CLOSE_HO) << 1
        rtc, fault, busy = self._rtc_state(loop)
        return BeamState(
            rtc,
            LoopState(loops & 1),
            LoopState(loops >> 1),
            alarm=self.housekeeping.alarms if rtc != RtcState.STOPPED else (),
            fault=fault,
            busy=busy,
            notes=loop.waiting.notes if loop.waiting is not None and loop.is_alive else (),
        )

    def _rtc_state(self, loop: RealTimeLoop) -> tuple[RtcState, str, str]:
        counters = loop.arrays.state.counters
        trip = int(counters[d.TRIP])
        if trip:
            return RtcState.FAULT, trip_text(trip, flat=counters[d.FLAT_PENDING] == 0), ""
        if not loop.is_alive:
            if loop.has_failed:
                return RtcState.FAULT, "the real-time thread ended by an error; see the log", ""
            return (RtcState.STOPPED, "", "") if loop.has_started else (RtcState.STARTING, "", loop.phase)
        if not loop.is_ready:
            return RtcState.STARTING, "", loop.phase
        if loop.slots.switch(d.PAUSE):
            return RtcState.PAUSED, "", loop.problem
        return RtcState.RUNNING, "", loop.problem

    def read(self, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Read published values by name; without names all but the large ones. Never waits."""
        return read_values(self, names)

    def status(self) -> dict[str, Any]:
        """Return the 15 status keys, and a few that tell what those cannot."""
        names = (*status_names(), "rtc_state", "fault_reason", "lost_frames", "telemetry_on")
        values = self.read(names)
        rtc = RtcState(values["rtc_state"])
        values["rtc_state"] = rtc.name
        values["paused"] = rtc == RtcState.PAUSED
        return {name: int(v) if isinstance(v, LoopState) else v for name, v in values.items()}

    def telemetry_status(self) -> TelemetryStatus:
        """Tell what the telemetry thread is doing."""
        return self._telemetry.status() if self._telemetry is not None else TelemetryStatus()

    # Commands

    def set_loops(
        self, lo: LoopState | None = None, ho: LoopState | None = None, *, force: bool = False
    ) -> BeamState:
        """Open or close the loops, both at the same frame; None leaves one as it is.

        Parameters
        ----------
        force : close loops even if they are predicted unstable.

        Raises
        ------
        StateError : closing is not possible now (no streams, a fault) or predicted unstable, or the loop
            did not react.
        """
        wanted = {d.CLOSE_LO: lo, d.CLOSE_HO: ho}
        closing = LoopState.CLOSED in (lo, ho)
        with self.exclusive:
            now = self.state()
            rtc = now.rtc
            after(rtc, "close" if closing else "open")
            if closing:
                self._check_streams()
                if not force:
                    self._check_closing(now, lo, ho)
            if rtc not in (RtcState.UNCONFIGURED, RtcState.STOPPED):
                self._switch({k: int(v) for k, v in wanted.items() if v is not None})
            return self.state()

    def _check_streams(self) -> None:
        """Refuse to close a loop without streams, after a moment for streams that are opened again."""
        loop = self._loop()
        deadline = time.monotonic() + APPLY_TIMEOUT_S
        while not loop.has_streams:
            if loop.problem or time.monotonic() > deadline:
                raise StateError(f"cannot close: {loop.problem or 'the streams are being opened'}")
            time.sleep(0.001)

    def _check_closing(self, now: BeamState, lo: LoopState | None, ho: LoopState | None) -> None:
        """Refuse a change of the loops after which those that are closed are predicted unstable."""
        then_lo, then_ho = now.lo if lo is None else lo, now.ho if ho is None else ho
        if (then_lo, then_ho) != (now.lo, now.ho):
            closed = LoopState.CLOSED
            self.judgement.check_closing(lo == closed, ho == closed, then_lo == closed, then_ho == closed)

    def pause(self) -> None:
        """Stop processing frames; controllers and mirror keep their state."""
        self._switch_on_event("pause", {d.PAUSE: 1})

    def resume(self) -> None:
        """Go on after a pause with the next fresh frame."""
        self._switch_on_event("resume", {d.PAUSE: 0})

    def reset_fault(self) -> None:
        """Acknowledge a tripped safety limit: the loop goes on with both loops open."""
        with self.exclusive:
            rtc = self.state().rtc
            after(rtc, "reset")
            loop = self._loop()
            if loop.has_failed:
                self.load(loop.parameters.config_file)
                return
            generation = loop.slots.switch(d.RESET) + 1
            if rtc == RtcState.FAULT:
                self.injection.switch_off()
                self._switch({d.CLOSE_LO: 0, d.CLOSE_HO: 0, d.RESET: generation})

    def update(self, parameters: LoopParameters, **more: Any) -> None:
        """Have the loop compute with other parameters, and wait until it does; see `RealTimeLoop.update`."""
        loop = self._loop()
        with self.exclusive:
            before = loop.parameters
            self._wait_adopted(loop, loop.update(parameters, timeout_s=APPLY_TIMEOUT_S, **more))
            self.injection.follow(before, parameters)

    def stop_rtc(self) -> None:
        """End the real-time thread: loops open, mirror flat; bounded, with or without frames."""
        with self.exclusive:
            after(self.state().rtc, "stop")
            if self.loop is None:
                return
            if not self.loop.stop():
                raise BackendError("the real-time thread did not stop in time")
            self._clear_switches(self.loop)
            self.injection.switch_off()

    def start_rtc(self) -> None:
        """Start the real-time thread again after `stop_rtc`, loops open."""
        with self.exclusive:
            after(self.state().rtc, "start")
            self._loop().start()

    def record(self, on: bool) -> TelemetryStatus:
        """Begin or end recording telemetry."""
        if self._telemetry is None:
            raise StateError("no telemetry before a configuration is loaded")
        self._telemetry.record(on)
        return self._telemetry.status()

    def save_telemetry(self) -> None:
        """Put what the ring holds on the disk without waiting for it."""
        if self._telemetry is not None:
            self._telemetry.save(0.0)

    def follow_ring(self, ring: TelemetryRing) -> None:
        """Have the recording go on with the ring that the loop fills now."""
        if self._telemetry is not None:
            self._telemetry.replace_ring(ring, continued=True)

    def camera_client(self) -> CameraClient:
        """Return the client of the camera server; `StateError` when the beam is closed."""
        if self._camera is None:
            raise StateError("the beam is closed")
        return self._camera

    def send_camera(self, text: str) -> str:
        """Send a text to the camera's command line; return the server's reply as it is."""
        return self.camera_client().cli_raw(text)

    def send_mds(self, text: str) -> str:
        """Send a text to the multi-device server; return its reply as it is."""
        if self._mds is None:
            raise StateError("the beam is closed")
        return self._mds.raw(text)

    # Internals

    def open_after_trip(self) -> None:
        """Bring the requested loop states in line with the loop, which has opened itself."""
        self.injection.switch_off()
        loop = self.loop
        if loop is not None:
            self._clear_switches(loop)

    @staticmethod
    def _clear_switches(loop: RealTimeLoop) -> None:
        loop.slots.change(switches={d.CLOSE_LO: 0, d.CLOSE_HO: 0, d.PAUSE: 0})

    def _loop(self) -> RealTimeLoop:
        if self.loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return self.loop

    def _switch_on_event(self, event: str, switches: dict[int, int]) -> None:
        with self.exclusive:
            after(self.state().rtc, event)
            self._switch(switches)

    def _switch(self, switches: dict[int, int]) -> None:
        loop = self._loop()
        self._wait_adopted(loop, loop.slots.change(switches=switches, timeout_s=APPLY_TIMEOUT_S))

    @staticmethod
    def _wait_adopted(loop: RealTimeLoop, version: int) -> None:
        if not loop.slots.wait_adopted(version, APPLY_TIMEOUT_S):
            raise StateError(f"the real-time loop did not react within {APPLY_TIMEOUT_S:g} s")

    def _describe(self) -> dict[str, Any]:
        """Describe a recording: what was measured, with what, how."""
        loop = self._loop()
        p = loop.parameters
        slots = loop.slots
        text: dict[str, Any] = {
            "beam": p.beam,
            "mask": p.mask,
            "mode": p.mode,
            "config_file": p.config_file,
            "config_sha256": p.config_sha256,
            "runtime_file": str(self.settings.runtime_file),
            "runtime_sha256": self.settings.runtime_sha256,
            "frame_rate_hz": p.frame_rate_hz,
            "camera_gain": p.gain,
            "controller_type_lo": p.controller_type_lo,
            "controller_type_ho": p.controller_type_ho,
            "boxcar": slots.switch(d.BOXCAR),
            "nm_per_dm_unit": p.nm_per_dm_unit,
            "wavelength_nm": p.wavelength_nm,
            "software": f"baldr-tango {__version__}",
        }
        for name in (
            "dark",
            "reference",
            "kp_lo",
            "ki_lo",
            "kd_lo",
            "leak_lo",
            "kp_ho",
            "ki_ho",
            "kd_ho",
            "leak_ho",
        ):
            text[name] = slots.current(name)
        text["clear_pupil"] = p.clear_pupil
        for loop_name, kind, model in (
            ("lo", p.controller_type_lo, p.kalman_lo),
            ("ho", p.controller_type_ho, p.kalman_ho),
        ):
            if kind == "KALMAN" and model is not None:
                text[f"kalman_gain_{loop_name}"] = model.gain.diagonal()
        return text

    def wait_until(self, condition: Callable[[BeamState], bool], timeout_s: float) -> bool:
        """Wait until the beam's state fulfils a condition; False when it has not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition(self.state()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True
