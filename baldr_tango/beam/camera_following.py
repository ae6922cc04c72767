"""A beam follows what the camera is set to: frame rate and gain, and what is derived from them."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.errors import BaldrError
from baldr_tango.kernels import loop_data as d
from baldr_tango.peers import CameraMonitor, CameraState, PeerState, camera_monitor
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

RATE_RESOLUTION: Final = 1e-4
"""Relative difference of two frame rates below which they are the same."""

DEPARTURE: Final = 0.02
"""Relative difference of the measured from the nominal frame rate that is looked into."""

COUNTING_ERROR: Final = 2.0
"""Difference in the number of frames that says nothing [frames]."""

DEPARTED_FOR_S: Final = 1.0
"""Time that a departure lasts before the camera is asked about it [s]."""

WINDOW_S: Final = 0.5
"""Time over which frames are counted [s]."""

POLL_S: Final = 0.02
"""Time between two looks for the first answers of the camera [s]."""

RETRY_S: Final = 1.0
"""Pause after a change that the loop did not take [s]."""


class CameraFollower:
    """What one beam knows of the camera, and what it does when that changes.

    The monitor is shared with the other beams; the work is done by this beam's housekeeping, so a beam
    whose loop does not react holds up no other.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._monitor: CameraMonitor | None = None
        self._retry_at = 0.0
        self._rate = RateWatch()
        self._told = ""

    def start(self) -> None:
        """Begin to follow."""
        settings = self._beam.settings
        self._monitor = camera_monitor(settings.camera_endpoint, settings.camera_timeout_s)

    def stop(self) -> None:
        """Leave the monitor to the other beams."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    @property
    def state(self) -> CameraState:
        """What the camera server said last; never waits."""
        monitor = self._monitor
        return monitor.state if monitor is not None else CameraState()

    def for_loading(self) -> dict[str, float]:
        """Frame rate and gain as arguments of `derive`; those that the camera never told are missing.

        Waits for the first answers of a camera server that is there.
        """
        monitor = self._monitor
        if monitor is None:
            return {}
        deadline = time.monotonic() + 2 * self._beam.settings.camera_timeout_s
        while not monitor.state.rounds and monitor.health.state is not PeerState.DOWN:
            # Somebody may be closing the beam meanwhile.
            if self._monitor is not monitor or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        state = monitor.state
        if state.fps is None:
            self._beam.log.warning(
                "camera server: %s; using the configured frame rate until it answers",
                state.reason or monitor.health.reason or "no answer yet",
            )
        found = {"frame_rate_hz": state.fps, "gain": state.gain}
        return {name: value for name, value in found.items() if value is not None}

    def look(self, now: float) -> None:
        """Take over what has changed; ask when the frames do not come as they should. Never waits long.

        now : CLOCK_MONOTONIC [s].
        """
        loop, calibration, monitor = self._beam.loop, self._beam.calibration, self._monitor
        if loop is None or calibration is None or monitor is None:
            return
        if now >= self._retry_at and differs(loop.parameters, monitor.state):
            self._follow(calibration, monitor.state)
        if self._rate.departs(loop, now):
            monitor.ask()
            self._tell(
                f"{self._rate.measured_hz:.5g} frames/s instead of {loop.parameters.frame_rate_hz:.5g}"
            )
        elif not self._rate.has_departed:
            self._told = ""

    def _tell(self, text: str) -> None:
        if not self._told:
            self._beam.log.warning("%s: asking the camera server", text)
        self._told = text

    def _follow(self, calibration: Calibration, state: CameraState) -> None:
        # A command that holds the beam may take seconds; housekeeping comes back in a moment.
        if not self._beam.exclusive.acquire(blocking=False):
            return
        try:
            loop = self._beam.loop
            if loop is not None and calibration is self._beam.calibration:
                self._apply(loop, calibration, state)
        except BaldrError as error:
            self._retry_at = time.monotonic() + RETRY_S
            self._beam.log.error("the camera's settings were not taken over: %s", error)
        finally:
            self._beam.exclusive.release()

    def _apply(self, loop: RealTimeLoop, calibration: Calibration, state: CameraState) -> None:
        old = loop.parameters
        rate = old.frame_rate_hz if state.fps is None else state.fps
        gain = old.gain if state.gain is None else state.gain
        settings = self._beam.settings
        before = derive(calibration, settings, frame_rate_hz=old.frame_rate_hz, gain=old.gain)
        after = derive(calibration, settings, frame_rate_hz=rate, gain=gain)
        arrays: dict[str, Any] = {}
        for name in _different_arrays(before, after):
            if np.array_equal(getattr(old, name), getattr(before, name)):
                arrays[name] = getattr(after, name)
            else:
                # Measured or set by an operator: nothing derived replaces that.
                self._beam.log.warning("%s is not that of the calibration file: it stays as it is", name)
        # Warnings quote the scale by which the dark was multiplied.
        notes = dict(zip(before.warnings, after.warnings, strict=False))
        loop.update(
            replace(
                old,
                frame_rate_hz=rate,
                gain=gain,
                warnings=tuple(notes.get(note, note) for note in old.warnings),
                **arrays,
            )
        )
        self._rate.restart()
        self._beam.log.info(
            "camera: %.6g Hz, gain %g (before: %.6g Hz, gain %g)%s",
            rate,
            gain,
            old.frame_rate_hz,
            old.gain,
            f"; new {', '.join(arrays)}" if arrays else "",
        )
        # A recording describes the camera at its beginning.
        self._beam.follow_ring(loop.arrays.ring)


def _different_arrays(one: LoopParameters, other: LoopParameters) -> list[str]:
    """Names of the arrays in which two sets of parameters differ."""
    return [
        item.name
        for item in fields(LoopParameters)
        if isinstance(getattr(one, item.name), np.ndarray)
        and not np.array_equal(getattr(one, item.name), getattr(other, item.name))
    ]


def differs(parameters: LoopParameters, state: CameraState) -> bool:
    """Tell whether the camera has other settings than those that the loop was derived for."""
    rate, gain = state.fps, state.gain
    other_rate = rate is not None and abs(rate / parameters.frame_rate_hz - 1.0) > RATE_RESOLUTION
    return other_rate or (gain is not None and gain != parameters.gain)


class RateWatch:
    """Compares the rate of frames with the nominal one."""

    def __init__(self) -> None:
        self.measured_hz = 0.0
        """Rate over the last window [Hz]."""
        self._loop: RealTimeLoop | None = None
        self._begun = 0.0
        self._frames = 0
        self._departed_since: float | None = None
        self._next_alert = 0.0

    @property
    def has_departed(self) -> bool:
        """The rate of the last window was not the nominal one."""
        return self._departed_since is not None

    def restart(self) -> None:
        """Begin anew, because another rate is nominal now."""
        self._loop = None
        self._departed_since = None
        self._next_alert = 0.0

    def departs(self, loop: RealTimeLoop, now: float) -> bool:
        """True once when frames have come at another rate for `DEPARTED_FOR_S`, then every 10 s.

        No frames at all, as during a pause, say nothing about the rate.
        """
        counters = loop.counters
        frames = int(counters[d.FRAMES] + counters[d.LOST] + counters[d.TORN])
        if loop is not self._loop or frames < self._frames:
            self._loop, self._begun, self._frames = loop, now, frames
            return False
        if now - self._begun < WINDOW_S:
            return False
        came, elapsed = frames - self._frames, now - self._begun
        begun, self._begun, self._frames = self._begun, now, frames
        if not came:
            self._departed_since = None
            return False
        self.measured_hz = came / elapsed
        expected = loop.parameters.frame_rate_hz * elapsed
        if abs(came - expected) <= max(COUNTING_ERROR, DEPARTURE * expected):
            self._departed_since = None
            self._next_alert = 0.0
            return False
        if self._departed_since is None:
            self._departed_since = begun
        if now - self._departed_since < DEPARTED_FOR_S or now < self._next_alert:
            return False
        self._next_alert = now + 10.0
        return True
