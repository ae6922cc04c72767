"""Saving what the telemetry ring holds, on request, by a thread of its own."""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from baldr_tango.errors import BackendError, StateError
from baldr_tango.telemetry import files
from baldr_tango.telemetry.chunks import chunks
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.fits_file import check_available, write_fits
from baldr_tango.telemetry.json_file import write_json
from baldr_tango.telemetry.memory import refusal
from baldr_tango.telemetry.recording import Description, RecordingFile, clock_pair
from baldr_tango.telemetry.ring import TelemetryRing

_JSON_DIGITS: Final = 20  # bytes of a number in a JSON file, at most


@dataclass(frozen=True)
class SaveFormat:
    """A file format of saved telemetry."""

    suffix: str
    write: Callable[[Path, TelemetryRing, Description], None]
    """Writes all records of a ring, with the description, to an empty file."""
    bytes_per_number: int
    """Space that a number takes in the file, at most [bytes]."""


def write_hdf5(path: Path, ring: TelemetryRing, description: Description) -> None:
    """Write all records of a ring that nobody fills any more, as a recording of all fields and images.

    Raises
    ------
    OSError, RuntimeError : the file cannot be written.
    """
    recording = RecordingFile(
        path.parent,
        int(description["beam"]),
        ring,
        fields=tuple(FIELD_BY_NAME),
        image_every=1,
        compression="none",
        description=description,
        path=path,
    )
    try:
        for chunk in chunks(ring, ring.oldest, ring.write_index, recording.names, recording.image_every):
            recording.append(chunk)
    except BaseException:
        recording.abandon()
        raise
    recording.close()


FORMATS: Final[Mapping[str, SaveFormat]] = {
    "fits": SaveFormat(".fits", write_fits, 8),
    "json": SaveFormat(".json", write_json, _JSON_DIGITS),
    "hdf5": SaveFormat(".h5", write_hdf5, 8),
}
"""Formats of saved telemetry by name."""


class SavedTelemetry:
    """A file with the ring's records, complete or still being written."""

    def __init__(self, path: Path, format_name: str, frames: int) -> None:
        self.path = path
        self.format = format_name
        self.frames = frames
        """Records in the file."""
        self.error = ""
        """Why there is no file, or empty."""
        self.done = threading.Event()

    def check(self) -> None:
        """Raise `BackendError` when the file could not be written."""
        if self.error:
            raise BackendError(self.error)


class Saver:
    """Writes copies of a beam's telemetry ring to files, one at a time.

    Parameters
    ----------
    beam : beam number.
    min_free_mb : space that has to be left on the disk [MB].
    log : logger of the beam.
    """

    def __init__(self, beam: int, min_free_mb: float, log: logging.Logger) -> None:
        self._beam = beam
        self._min_free_mb = min_free_mb
        self._log = log
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.last: SavedTelemetry | None = None
        """The newest file asked for, complete or not."""
        self.newest: SavedTelemetry | None = None
        """The newest complete file."""

    def save(
        self, ring: TelemetryRing, directory: Path, format_name: str, description: Description
    ) -> SavedTelemetry:
        """Begin to write the newest records of a ring, those within its horizon; does not wait.

        The records are copied out of the ring piece by piece while the loop goes on, and written then.

        Parameters
        ----------
        format_name : key of `FORMATS`.
        description : what describes the records: texts, numbers and arrays.

        Raises
        ------
        StateError : nothing is recorded yet, a file is still being written, memory or astropy is lacking.
        BackendError : the directory or the disk does not take the file.
        """
        count = ring.available
        if not count:
            raise StateError("no frame has been recorded yet")
        if format_name == "fits":
            check_available()
        with self._lock:
            if self._thread is not None and self._thread.is_alive() and self.last is not None:
                raise StateError(f"telemetry is still being saved to {self.last.path}")
            self._check_room(ring, count, directory, FORMATS[format_name])
            hidden, path = files.reserve(directory, self._beam, time.time_ns(), FORMATS[format_name].suffix)
            saved = SavedTelemetry(path, format_name, count)
            self._thread = threading.Thread(
                target=self._run,
                args=(saved, ring, hidden, description),
                name=f"save-beam{self._beam}",
                daemon=True,
            )
            self.last = saved
            self._thread.start()
        return saved

    def close(self, timeout_s: float) -> bool:
        """Wait for the file that is being written; False when it was not complete in time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def _check_room(self, ring: TelemetryRing, count: int, directory: Path, how: SaveFormat) -> None:
        problem = refusal(count * ring.record_nbytes)
        if problem:
            raise StateError(f"{count} frames cannot be copied: {problem}; reduce set_telem_capacity")
        numbers = sum(array[0].size for array in ring.fields.values())
        try:
            directory.mkdir(parents=True, exist_ok=True)
            free = files.free_bytes(directory)
        except OSError as error:
            raise BackendError(f"{directory}: {error.strerror}") from error
        needed_mb = count * numbers * how.bytes_per_number / files.MEGABYTE
        if free / files.MEGABYTE - needed_mb < self._min_free_mb:
            raise BackendError(
                f"{directory}: {needed_mb:.0f} MB needed, {free / files.MEGABYTE:.0f} MB free"
                f" of which min_free_mb keeps {self._min_free_mb:g}"
            )

    def _run(
        self, saved: SavedTelemetry, ring: TelemetryRing, hidden: Path, description: Description
    ) -> None:
        """The thread: copy, write, give the file its name."""
        try:
            copy = ring.copied(saved.frames + 1)
            saved.frames = copy.write_index - copy.oldest
            FORMATS[saved.format].write(hidden, copy, {**description, **describe_records(copy)})
            with hidden.open("rb") as file:
                os.fsync(file.fileno())
            files.publish(hidden, saved.path)
        except Exception as error:
            saved.error = f"telemetry was not saved to {saved.path}: {files.first_line(error)}"
            expected = isinstance(error, OSError | RuntimeError | StateError)
            self._log.error("%s", saved.error, exc_info=not expected)
            hidden.unlink(missing_ok=True)
        else:
            self.newest = saved
            self._log.info("telemetry: %d frames saved to %s", saved.frames, saved.path)
        finally:
            saved.done.set()


def describe_records(ring: TelemetryRing) -> dict[str, Any]:
    """Describe the records of a ring that nobody fills any more: how many, from when to when.

    ``utc_ns`` and ``monotonic_ns`` are the two clocks at the same instant: they turn ``time_ns`` into UTC.
    """
    utc_ns, monotonic_ns = clock_pair()
    parts = ring.slices(ring.oldest, ring.write_index)
    times = np.concatenate([ring.fields["time_ns"][part] for part in parts])
    steps = np.diff(np.concatenate([ring.fields["frame"][part] for part in parts]))
    first, last = (str(np.datetime64(int(times[i]) + utc_ns - monotonic_ns, "ns")) for i in (0, -1))
    return {
        "saved_utc": str(np.datetime64(utc_ns, "ns")),
        "first_utc": first,
        "last_utc": last,
        "frames": len(times),
        "missed_frames": int((steps[steps > 1] - 1).sum()),
        "utc_ns": utc_ns,
        "monotonic_ns": monotonic_ns,
        "host": platform.node(),
    }
