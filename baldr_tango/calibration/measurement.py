"""Poking a mirror and averaging frames, through the streams."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.settings import StreamSettings
from baldr_tango.errors import BackendError
from baldr_tango.names import GRID_SIDE, to_grid
from baldr_tango.streams import Stream

FloatArray = NDArray[np.float64]

POKE_CHANNEL = 3
"""DM channel of calibration pokes; the real-time loop has 2."""

FRAME_TIMEOUT_S = 2.0
"""A camera that posts nothing for this long has stopped."""


class BeamBench:
    """Camera and mirror of one beam, for a calibration; use it in a `with` statement.

    Leaving it puts back what was on the poke channel.
    """

    def __init__(self, settings: StreamSettings, semaphore: int, cancelled: threading.Event) -> None:
        """Open the streams.

        Parameters
        ----------
        semaphore : semaphore of the camera stream to wait on; not that of the real-time loop.
        cancelled : ends every wait with a BackendError once it is set.

        Raises
        ------
        BackendError : a stream is missing or not what it should be.
        """
        directory: Path | None = Path(settings.directory) if settings.directory else None
        self._semaphore = semaphore
        self._trigger_index = settings.semaphore
        self._cancelled = cancelled
        self._open: list[Stream] = []
        self.frames_seen = 0
        """Frames that have passed, averaged or skipped."""
        mirror = (GRID_SIDE, GRID_SIDE)
        try:
            self.camera = self._keep(Stream.open(settings.camera, directory, dtype=np.int32))
            self._channel = self._keep(
                Stream.open(
                    f"{settings.dm_combined}disp{POKE_CHANNEL:02d}",
                    directory,
                    shape=mirror,
                    dtype=np.float64,
                    writable=True,
                )
            )
            self._trigger = self._keep(Stream.open(settings.dm_combined, directory, writable=True))
            self._before, _ = self._channel.read()
        except BaseException:
            self._close()
            raise

    def _keep(self, stream: Stream) -> Stream:
        self._open.append(stream)
        return stream

    def __enter__(self) -> BeamBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._write(self._before)
        finally:
            self._close()

    def poke(self, command: FloatArray) -> None:
        """Put a command of the 140 actuators on the poke channel, on top of what was there [DM units]."""
        self._write(self._before + to_grid(command).reshape(GRID_SIDE, GRID_SIDE))

    def average(self, frames: int, skip: int) -> FloatArray:
        """Average the next frames.

        Every frame counts once, by its counter, and frames that were missed do not count.

        Parameters
        ----------
        frames : how many.
        skip : frames to let pass first, until the mirror has moved.

        Returns
        -------
        (P,) mean [ADU].

        Raises
        ------
        BackendError : the camera stopped, its stream was replaced, or the calibration was cancelled.
        """
        total = np.zeros(self.camera.shape, dtype=np.float64)
        last = self.camera.counter() + skip
        self.camera.semaphores[self._semaphore].drain()
        done = 0
        while done < frames:
            if self._cancelled.is_set():
                raise BackendError("calibration cancelled")
            if not self.camera.wait(self._semaphore, FRAME_TIMEOUT_S):
                reason = self.camera.is_current() or "the camera has stopped"
                raise BackendError(f"{self.camera.path}: no frame for {FRAME_TIMEOUT_S} s: {reason}")
            data, count = self.camera.read()
            if count > last:
                total += data
                last = count
                done += 1
        self.frames_seen += frames + skip
        return np.asarray(total.reshape(-1) / frames)

    def _write(self, values: FloatArray) -> None:
        self._channel.write(values)
        self._trigger.post(self._trigger_index)

    def _close(self) -> None:
        for stream in self._open:
            stream.close()
        self._open = []
