"""What an operator says about telemetry in memory: how much of it, saved where and how."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from baldr_tango.configuration.runtime import BeamSettings
from baldr_tango.errors import BackendError, RequestError, StateError
from baldr_tango.kernels.loop_data import BOXCAR
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.telemetry.files import MEGABYTE, beam_directory
from baldr_tango.telemetry.fits_file import check_available, is_available
from baldr_tango.telemetry.memory import refusal
from baldr_tango.telemetry.ring import capacity_for
from baldr_tango.telemetry.saving import FORMATS, SavedTelemetry, Saver

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

LEAST_FRAMES: Final = 2
MOST_FRAMES: Final = 1_000_000
"""Bounds of the telemetry capacity; the largest is that of ``loop.ring_frames``."""


class Saving:
    """Telemetry capacity, save path and save format of a beam, and the saving itself.

    What is set here outlives a new configuration.

    Parameters
    ----------
    describe : describes the beam as it is: texts, numbers and arrays
    """

    def __init__(self, beam: Beam, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._beam = beam
        self._describe = describe
        telemetry = beam.settings.telemetry
        self._directory = beam_directory(telemetry.directory, beam.settings.beam)
        self._format = "fits" if is_available() else "hdf5"
        self._frames = beam.settings.loop.ring_frames
        self._saver = Saver(beam.settings.beam, telemetry.min_free_mb, beam.log)

    @property
    def directory(self) -> Path:
        """Where telemetry is saved."""
        return self._directory

    @property
    def format(self) -> str:
        """How telemetry is saved, a key of `FORMATS`; at first FITS where astropy is installed."""
        return self._format

    @property
    def capacity(self) -> int:
        """Newest frames that are saved, polled and averaged."""
        return self._frames

    @property
    def saved_file(self) -> str:
        """The newest complete file, or empty."""
        return str(self._saver.newest.path) if self._saver.newest else ""

    @property
    def is_saving(self) -> bool:
        """A file is being written."""
        return self._saver.last is not None and not self._saver.last.done.is_set()

    @property
    def error(self) -> str:
        """Why the last file asked for is not there, or empty."""
        return self._saver.last.error if self._saver.last else ""

    @property
    def frame_rate_hz(self) -> float:
        """Rate by which seconds become frames [Hz]."""
        loop = self._beam.loop
        return loop.parameters.frame_rate_hz if loop else self._beam.settings.loop.frame_rate_hz

    def set_directory(self, text: str) -> Path:
        """Save into another directory from now on; it is created.

        Raises
        ------
        RequestError : the path is empty, or relative (to what, only the server knows).
        BackendError : it cannot be created or written to. The path stays as it was.
        """
        if not text.strip():
            raise RequestError("Provided path is empty.")
        try:
            path = Path(text).expanduser()
        except RuntimeError as error:
            raise RequestError(f"{text}: {error}") from None
        if not path.is_absolute() or "\0" in text:
            raise RequestError(f"telemetry path {text!r}: expected an absolute path")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise BackendError(
                f"Failed to create directory: {path}: {os.strerror(error.errno or 0)}"
            ) from error
        self._directory = path
        return path

    def set_format(self, text: str) -> str:
        """Save in another format from now on.

        Raises
        ------
        RequestError : there is no such format.
        StateError : FITS is wanted and astropy is not installed. The format stays as it was.
        """
        name = text.strip().lower()
        if name not in FORMATS:
            allowed = ", ".join(f'"{known}"' for known in FORMATS)
            raise RequestError(f"Invalid format. Please use one of {allowed}.")
        if name == "fits":
            check_available()
        self._format = name
        return name

    def set_capacity(self, frames: int) -> None:
        """Look back over so many frames from now on, in a larger ring if need be; nothing is lost.

        Raises
        ------
        RequestError : the number is out of range, or needs more memory than there is.
        StateError : the loop did not take a larger ring in time; the capacity stays as it was.
        """
        if not LEAST_FRAMES <= frames <= MOST_FRAMES:
            raise RequestError(
                f"telemetry capacity {frames} frames: expected {LEAST_FRAMES} to {MOST_FRAMES}"
            )
        with self._beam.exclusive:
            loop = self._beam.loop
            if loop is not None:
                self._fit_ring(loop, frames)
            self._frames = frames

    def settings(self) -> BeamSettings:
        """Return the beam's settings with a ring for the present capacity."""
        loop = self._beam.settings.loop
        return replace(
            self._beam.settings, loop=replace(loop, ring_frames=max(loop.ring_frames, self._frames))
        )

    def look_back(self, loop: RealTimeLoop) -> None:
        """Have a new loop look back over the present capacity."""
        loop.arrays.ring.horizon = self._frames

    def save(self) -> SavedTelemetry:
        """Begin to save the newest frames; does not wait.

        Raises
        ------
        StateError, BackendError : as `Saver.save`, or no configuration is loaded.
        """
        loop = self._beam.loop
        if loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return self._saver.save(loop.arrays.ring, self._directory, self._format, self._describe())

    def close(self, timeout_s: float) -> None:
        """Wait for the file that is being written."""
        if not self._saver.close(timeout_s):
            self._beam.log.error("telemetry is still being saved")

    def _fit_ring(self, loop: RealTimeLoop, frames: int) -> None:
        """Exchange the ring when it is too small, or twice as large as need be."""
        ring = loop.arrays.ring
        wanted = capacity_for(
            max(frames, self._beam.settings.loop.ring_frames, loop.slots.switch(BOXCAR) + 2)
        )
        if ring.capacity < wanted or ring.capacity > 2 * wanted:
            problem = refusal(wanted * ring.record_nbytes)
            if problem:
                raise RequestError(
                    f"telemetry capacity {frames} frames: {problem};"
                    f" one frame takes {ring.record_nbytes / 1000:.1f} kB"
                )
            try:
                ring = loop.resize_ring(wanted)
            except MemoryError:
                needed_mb = wanted * ring.record_nbytes / MEGABYTE
                raise RequestError(
                    f"telemetry capacity {frames} frames: {needed_mb:.0f} MB of memory refused by the system"
                ) from None
            self._beam.follow_ring(ring)
        ring.horizon = frames
