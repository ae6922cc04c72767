"""Signal processing that operators change while the loop runs: running mean, bursts of reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from baldr_tango.beam.changes import put_in_force
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

MOST_READS: Final = 10_000
"""Longest burst of non-destructive reads."""

MODE: Final = "mode raw"
"""Question for the camera's read-out mode."""


@dataclass(frozen=True)
class Readout:
    """How the camera reads its detector out, as it says."""

    reads: int
    """Non-destructive reads between two resets; 1 when every frame stands for itself."""
    frame_rate_hz: float
    mode: str
    """Read-out mode, empty when the camera does not tell."""


class Processing:
    """Boxcar and burst of a beam. What is set here outlives a new configuration."""

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._boxcar: int | None = None
        self._reads = 1
        self._lock = threading.Lock()

    @property
    def boxcar(self) -> int:
        """Frames of the running mean in force; 1 means none."""
        loop = self._beam.loop
        return loop.slots.switch(d.BOXCAR) if loop else self._boxcar or 1

    @property
    def reads(self) -> int:
        """Non-destructive reads per reset that the loop fits a slope to; 1: every frame stands for itself."""
        return self._reads

    def set_boxcar(self, frames: int) -> None:
        """Average the signal over that many frames from the next one on.

        Raises
        ------
        RequestError : fewer than 1 frame, or more than the telemetry ring holds.
        StateError : no configuration is loaded, or the loop did not react. Nothing has changed.
        """
        with self._beam.exclusive, self._lock:
            loop = self._loop()
            most = loop.arrays.ring.capacity
            if not 1 <= frames <= most:
                raise RequestError(
                    f"boxcar: found {frames} frames, expected 1 to {most} (what the telemetry ring holds)"
                )
            self._beam.update(replace(loop.parameters, boxcar=frames))
            self._boxcar = frames

    def set_reads(self, reads: int) -> None:
        """Tell the loop how many non-destructive reads there are per reset; 0 and 1 mean none.

        Raises
        ------
        RequestError : a number out of range.
        StateError : no configuration is loaded, or the loop did not react. Nothing has changed.
        """
        if not 0 <= reads <= MOST_READS:
            raise RequestError(f"reads: found {reads}, expected 0 to {MOST_READS}")
        with self._beam.exclusive, self._lock:
            put_in_force(self._loop(), {d.BURST: max(reads, 1)})
            self._reads = max(reads, 1)

    def ask_camera(self) -> Readout:
        """Ask the camera how it reads out; waits for its answers.

        A camera that subtracts each reset itself (correlated double sampling) has frames that stand for
        themselves, whatever its number of reads.

        Raises
        ------
        BackendError : no answer in time, or no number in it.
        StateError : the beam is closed.
        """
        camera = self._beam.camera_client()
        reads = camera.nbreadworeset()
        rate_hz = camera.fps()
        mode = camera.cli(MODE).split("fli-cli>")[0].strip()
        stands_alone = "cds" in mode.lower() and "burst" not in mode.lower()
        return Readout(1 if stands_alone else max(reads, 1), rate_hz, mode)

    def configure(self, loop: RealTimeLoop) -> None:
        """Give a loop that is about to start what was set."""
        with self._lock:
            put_in_force(loop, {d.BURST: self._reads})
            if self._boxcar is not None:
                frames = min(self._boxcar, loop.arrays.ring.capacity)
                loop.update(replace(loop.parameters, boxcar=frames))

    def _loop(self) -> RealTimeLoop:
        if self._beam.loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return self._beam.loop
