"""What the telemetry thread does, without the thread: files in sequence, trouble with the disk, counters."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.errors import BackendError, StateError
from baldr_tango.telemetry import files
from baldr_tango.telemetry.chunks import Chunk, take
from baldr_tango.telemetry.counters import Counters
from baldr_tango.telemetry.journal import Journal, OpenJournal
from baldr_tango.telemetry.recording import Description, Gap, RecordingFile
from baldr_tango.telemetry.ring import TelemetryRing

Log = logging.Logger | logging.LoggerAdapter

_LONGEST_RETRY_S: Final = 10.0
_SPACE_MARGIN: Final = 1.1  # times min_free_mb: room asked for before recording begins again


class _NoSpaceError(BackendError):
    """Less space is left on the disk than the settings ask for."""


class Recorder:
    """Writes ranges of ring records to files. One thread uses it; any may read `counters`.

    No method raises for a fault of the disk: it returns False, `counters` carries the reason, the log has
    it once, and `retry_at` says when to try again.

    Parameters
    ----------
    ring, settings, beam, describe, log, journal : as for `TelemetryWriter`.
    """

    def __init__(
        self,
        ring: TelemetryRing,
        settings: TelemetrySettings,
        beam: int,
        describe: Callable[[], Description],
        log: Log,
        journal: OpenJournal | None = None,
    ) -> None:
        self.is_active = False
        self.retry_at = 0.0
        """Time before which another attempt is pointless [s, CLOCK_MONOTONIC]."""
        self.ring = ring
        """The ring in use; `swap` changes it."""
        self._settings = settings
        self._beam = beam
        self._directory = files.beam_directory(settings.directory, beam)
        self._describe = describe
        self._log = log
        self._open_journal = journal
        self._lock = threading.Lock()
        self._counters = Counters()
        self._next = ring.write_index  # first record that is neither in a file nor held
        self._written = self._next  # first record that is not yet in a file, nor noted there as missing
        self._last_frame = -1  # of the last record written
        self._held: Chunk | None = None  # copied, not yet written
        self._file: RecordingFile | None = None
        self._next_journal: Journal | None = None  # of the next file, begun where this one ends
        self._retry_s = 0.0
        self._lacks_space = False

    @property
    def counters(self) -> Counters:
        """What has been done; records that the loop has overwritten by now count as lost at once."""
        with self._lock:
            lost = max(0, self.ring.oldest - self._next) if self.is_active else 0
            return replace(self._counters, overruns=self._counters.overruns + lost)

    def begin(self, start: int) -> bool:
        """Record from the ring's record `start` on; opens the first file."""
        if self.is_active:
            return True
        self._start_at(start)
        self.is_active = True
        self.retry_at = self._retry_s = 0.0
        self._lacks_space = False
        return self._attempt(self._open)

    def write(self, stop: int, *, sync: bool = False) -> bool:
        """Append the records up to `stop` (exclusive); with `sync`, wait for the disk itself."""
        return not self.is_active or self._attempt(partial(self._append, stop, sync))

    def end(self, stop: int) -> bool:
        """Append the records up to `stop` and finish the file."""
        is_complete = self.write(stop) and self._attempt(partial(self._finish, sync=True, is_last=True))
        self._forget_journal()
        with self._lock:
            self._lose(stop)
            self.is_active = False
        return is_complete

    def swap(self, ring: TelemetryRing, stop: int, start: int = 0) -> bool:
        """Finish with record `stop` of this ring and go on with record `start` of another, in a new file."""
        is_complete = self.write(stop) and self._attempt(partial(self._finish, is_last=True))
        self._forget_journal()
        with self._lock:
            self._lose(stop)
            self.ring = ring
            self._start_at(start)
        if self.is_active:
            # Now, not with the first records: they are behind it.
            self._next_journal = self._begin_journal()
            if self._next_journal is not None:
                self._checkpoint(self._next_journal)
        return is_complete

    def dump(self, stop: int) -> bool:
        """Put the ring's records up to `stop` on the disk, in a file of their own if none is open."""
        if self.is_active:
            return self.write(stop, sync=True)
        # Not the very oldest: the loop would be overwriting the first chunk while it is copied.
        self._start_at(min(max(self.ring.oldest, stop - self.ring.horizon), stop))
        self.is_active = True
        return self.end(stop)

    def _start_at(self, record: int) -> None:
        self._next = self._written = record
        self._last_frame, self._held = -1, None

    def _append(self, stop: int, sync: bool) -> None:
        has_news = stop > self._next or self._held is not None
        if self._file is not None and not self._file.path.exists():
            self._finish()
        if self._file is None and (has_news or self._counters.error):
            self._open()
        if self._file is None:
            return
        while self._hold(self._file, stop):
            self._write_held(self._file)
        if sync:
            self._file.sync()
        age_s = (time.monotonic_ns() - self._file.opened_ns) * 1e-9
        is_large = self._file.nbytes >= self._settings.file_mb * files.MEGABYTE
        if self._file.rows and (is_large or age_s >= self._settings.file_s):
            self._finish_before_next(self._file)

    def _finish_before_next(self, file: RecordingFile) -> None:
        """Finish a full file where a replay of the next one can begin: both together lack no frame."""
        journal = self._begin_journal()
        begin = None if journal is None else self._checkpoint(journal)
        if begin is not None:
            while self._hold(file, begin):
                self._write_held(file)
        self._next_journal = journal
        self._finish()

    def _hold(self, file: RecordingFile, stop: int) -> bool:
        """Have the next chunk out of the loop's reach; False when there is none up to `stop`.

        However long the disk takes from then on, these records are safe.
        """
        if self._held is None and self._next < stop:
            chunk = take(self.ring, self._next, stop, file.names, file.image_every)
            with self._lock:
                first = stop if chunk is None else chunk.first
                self._count_lost(first - self._next)
                self._held, self._next = chunk, first if chunk is None else chunk.stop
        return self._held is not None

    def _write_held(self, file: RecordingFile) -> None:
        chunk = self._held
        if chunk is None:
            return
        self._check_space(chunk.nbytes)
        frames, before = chunk.columns["frame"], file.data_bytes
        gap = self._gap(chunk.first, int(frames[0]) - 1)
        file.append(chunk, gap)
        if gap is not None and file.journal is not None:
            self._checkpoint(file.journal)
        with self._lock:
            now = self._counters
            self._counters = replace(
                now,
                frames_written=now.frames_written + len(chunk),
                chunks=now.chunks + 1,
                bytes_written=now.bytes_written + file.data_bytes - before,
            )
            self._held = None
        self._written, self._last_frame = chunk.stop, int(frames[-1])

    def _gap(self, stop: int, last_frame: int) -> Gap | None:
        """Describe the records between the last one written and `stop`."""
        if stop <= self._written:
            return None
        first_frame = self._last_frame + 1 if self._last_frame >= 0 else -1
        return self._written, stop - self._written, first_frame, last_frame

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._check_space(0)
        try:
            description = self._describe()
        except Exception as error:  # a recording without its description is better than none
            self._log.exception("telemetry: the recording cannot be described")
            description = {"describe_error": str(error)}
        journal, self._next_journal = self._next_journal, None
        if journal is None:
            journal = self._begin_journal()
            if journal is not None:
                self._checkpoint(journal)
        try:
            self._file = RecordingFile(
                self._directory,
                self._beam,
                self.ring,
                fields=self._settings.fields,
                image_every=self._settings.image_every,
                compression=self._settings.compression,
                description=description,
                journal=journal,
            )
        except BaseException:
            if journal is not None:
                journal.close()
            raise
        self._log.info("telemetry: writing %s", self._file.path)
        with self._lock:
            begun = self._counters.files_written + 1
            self._counters = replace(self._counters, file=str(self._file.path), files_written=begun)
        self._remove_oldest()

    def _begin_journal(self) -> Journal | None:
        """Begin what a replay needs, if every frame is recorded."""
        wanted = self._settings.image_every == 1 and "img" in self._settings.fields
        if not wanted or self._open_journal is None:
            return None
        journal = self._open_journal(self.ring)
        if journal is None:
            self._log.warning("telemetry: the next file cannot be replayed: the loop fills another ring")
        return journal

    def _checkpoint(self, journal: Journal) -> int | None:
        try:
            return journal.checkpoint()
        except StateError as error:
            self._log.warning("telemetry: a replay cannot begin here: %s", error)
            return None

    def _forget_journal(self) -> None:
        journal, self._next_journal = self._next_journal, None
        if journal is not None:
            journal.close()

    def _remove_oldest(self) -> None:
        try:
            gone = files.remove_oldest(self._settings.directory, self._beam, self._settings.keep_files)
        except OSError as error:
            self._log.warning("telemetry: old files cannot be deleted: %s", error)
            return
        for path in gone:
            self._log.info("telemetry: deleted %s, keep_files is %d", path, self._settings.keep_files)

    def _finish(self, *, sync: bool = False, is_last: bool = False) -> None:
        """Close the file; with `sync`, wait for the disk, during which a loop could fill the ring.

        is_last : no other file will tell what is missing behind its last row.
        """
        file, self._file = self._file, None
        if file is None:
            return
        gap = self._gap(self._next, -1) if is_last else None
        if gap is not None:
            file.note_gap(gap)
        file.close(sync=sync)

    def _check_space(self, nbytes: int) -> None:
        """Refuse to write `nbytes` when that leaves less space than the settings ask for."""
        wanted = self._settings.min_free_mb * files.MEGABYTE
        free = files.free_bytes(self._directory) - nbytes
        if free < wanted * (_SPACE_MARGIN if self._lacks_space else 1.0):
            raise _NoSpaceError(
                f"{free / files.MEGABYTE:.0f} MB free, min_free_mb is {self._settings.min_free_mb:g}"
            )

    def _lose(self, stop: int) -> None:
        """Give up what could not be written up to `stop`."""
        if not self.is_active:
            return
        self._count_lost(0 if self._held is None else len(self._held))
        self._count_lost(max(0, stop - self._next))
        self._next, self._held = max(stop, self._next), None

    def _count_lost(self, records: int) -> None:
        self._counters = replace(self._counters, overruns=self._counters.overruns + records)

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:
            self._fail(error)
            return False
        if self._counters.error:
            self._log.warning("telemetry: recording again")
        self._retry_s = self.retry_at = 0.0
        self._lacks_space = False
        with self._lock:
            self._counters = replace(self._counters, error="")
        return True

    def _fail(self, error: Exception) -> None:
        """Let go of the file, tell the reason and lengthen the time to the next attempt."""
        self._lacks_space = isinstance(error, _NoSpaceError)
        file, self._file = self._file, None
        if file is not None and not self._lacks_space:
            file.abandon()
        elif file is not None:
            try:
                file.close()
            except Exception as another:  # the disk is fuller than it said
                error = another
        reason = files.first_line(error)
        if not self._counters.error:
            is_disk = isinstance(error, (OSError, RuntimeError))
            self._log.error(
                "telemetry: nothing is written to %s: %s", self._directory, reason, exc_info=not is_disk
            )
        with self._lock:
            self._counters = replace(
                self._counters, error=f"nothing is written to {self._directory}: {reason}"
            )
        self._retry_s = min(_LONGEST_RETRY_S, max(self._settings.chunk_s, 2 * self._retry_s))
        self.retry_at = time.monotonic() + self._retry_s
