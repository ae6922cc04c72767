"""Replayed records in a telemetry file of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.replay.recording import Recording
from baldr_tango.telemetry.chunks import chunks
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.files import first_line
from baldr_tango.telemetry.recording import RecordingFile
from baldr_tango.telemetry.ring import TelemetryRing


class Output:
    """A telemetry file with all fields of what a replay gave, described as its recording is.

    Parameters
    ----------
    path : the file; must not exist
    recording : where the frames come from
    ring : the ring that the replay fills
    more : attributes beside those of the recording

    Raises
    ------
    RequestError : the file exists.
    BackendError : it cannot be written.
    """

    def __init__(
        self, path: Path, recording: Recording, ring: TelemetryRing, more: Mapping[str, str]
    ) -> None:
        if path.exists():
            raise RequestError(f"{path}: exists; choose another name for the replayed telemetry")
        attributes = recording.file.attributes
        try:
            self._file = RecordingFile(
                path.parent,
                int(attributes["beam"]),
                ring,
                fields=tuple(FIELD_BY_NAME),
                image_every=1,
                compression="none",
                description={**attributes, **recording.file.reference, **more},
                path=path,
            )
        except (OSError, RuntimeError) as error:
            raise BackendError(f"{path}: {first_line(error)}") from error
        self._path = path
        self._next: int | None = None

    def append(self, first: int, stop: int) -> None:
        """Write records of the ring; `BackendError` when the disk does not take them."""
        gap = None
        if self._next is not None and first > self._next:
            gap = (self._next, first - self._next, -1, -1)
        try:
            for chunk in chunks(self._file.ring, first, stop, self._file.names, 1):
                self._file.append(chunk, gap)
                gap = None
        except (OSError, RuntimeError) as error:
            self._file.abandon()
            raise BackendError(f"{self._path}: {first_line(error)}") from error
        self._next = stop

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
