"""The telemetry thread: takes records out of the ring and writes them to disk, chunk by chunk."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.errors import BackendError, ConfigError
from baldr_tango.telemetry.counters import Counters
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.journal import OpenJournal
from baldr_tango.telemetry.recorder import Log, Recorder
from baldr_tango.telemetry.recording import Description
from baldr_tango.telemetry.ring import TelemetryRing
from baldr_tango.thread_names import show_thread_name

STOP_TIMEOUT_S: Final = 10.0
"""Longest wait for the disk when the thread is stopped [s]."""

_RING_SHARE: Final = 0.25  # of the ring that may fill up before the next chunk
_SHORTEST_PAUSE_S: Final = 0.005


@dataclass(frozen=True)
class TelemetryStatus(Counters):
    """What the telemetry thread is doing and has done."""

    requested: bool = False
    """Recording is asked for."""
    recording: bool = False
    """Recording is asked for, the thread runs and nothing is wrong."""


@dataclass
class _Order:
    """Something for the thread to do; `work` returns whether it succeeded."""

    work: Callable[[], bool]
    is_last: bool = False
    has_succeeded: bool = False
    done: threading.Event = field(default_factory=threading.Event)


class TelemetryWriter:
    """Writes the records of a ring to files while recording is asked for.

    All work is done by one thread; every method may be called from any other. No fault of the disk leaves
    the thread: `status` tells it, the log has it once, and it is tried again. The ring never waits.

    Parameters
    ----------
    ring : the ring that the loop fills.
    settings : what is recorded, where, and how much.
    beam : beam number.
    describe : called when a file begins; texts, numbers and arrays that describe the recording.
    log : logger of the beam.
    journal : begins what a replay needs, for files that hold every raw image; None: no file can be replayed.

    Raises
    ------
    ConfigError : the settings name a field that does not exist.
    """

    def __init__(
        self,
        ring: TelemetryRing,
        settings: TelemetrySettings,
        beam: int,
        describe: Callable[[], Description] = dict,
        *,
        log: Log | None = None,
        journal: OpenJournal | None = None,
    ) -> None:
        unknown = [name for name in settings.fields if name not in FIELD_BY_NAME]
        if unknown:
            raise ConfigError(
                f"[telemetry] fields: found {', '.join(unknown)}, expected some of {', '.join(FIELD_BY_NAME)}"
            )
        self._log = log or logging.getLogger(__name__)
        self._chunk_s = settings.chunk_s
        self._name = f"telemetry-beam{beam}"
        self._lock = threading.Lock()  # orders are queued in the order of the calls
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._is_requested = settings.record
        self._ring = ring  # the newest; the recorder may be finishing an older one
        self._recorder = Recorder(ring, settings, beam, describe, self._log, journal)

    @property
    def is_recording(self) -> bool:
        """True while recording is asked for, the thread runs and nothing is wrong."""
        return self.status().recording

    def start(self) -> None:
        """Start the thread; it records at once if that was asked for last, or by the settings.

        Raises
        ------
        BackendError : the thread was stopped but still waits for the disk.
        """
        with self._lock:
            if self._is_alive():
                if self._is_stopping:
                    raise BackendError(f"{self._name}: stopped, but still waiting for the disk")
                return
            self._orders = queue.SimpleQueue()
            self._is_stopping = False
            self._recorder.swap(self._ring, 0)
            if self._is_requested:
                self._put(partial(self._recorder.begin, self._ring.write_index))
            self._thread = threading.Thread(
                target=self._run, args=(self._orders,), name=self._name, daemon=True
            )
            self._thread.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Write what there is, finish the file and end the thread.

        Returns
        -------
        False when the disk did not answer within `timeout_s`; the thread ends as soon as it does.
        """
        with self._lock:
            thread = self._thread
            if thread is None or not thread.is_alive():
                return True
            self._is_stopping = True
            self._put(partial(self._recorder.end, self._ring.write_index), is_last=True)
        thread.join(timeout_s)
        if thread.is_alive():
            self._log.error("telemetry: the disk has not answered for %g s", timeout_s)
        return not thread.is_alive()

    def record(self, on: bool) -> None:
        """Record from now on, or up to now; does not wait."""
        with self._lock:
            self._is_requested = on
            if self._is_alive():
                work = self._recorder.begin if on else self._recorder.end
                self._put(partial(work, self._ring.write_index))

    def replace_ring(self, ring: TelemetryRing, *, continued: bool = False) -> None:
        """Go on with another ring, in a new file; does not wait.

        What the old ring holds is still written.

        Parameters
        ----------
        ring : the new ring, which the loop fills already.
        continued : it holds the records of the old one and goes on with their numbers (another capacity);
            otherwise every record of it is taken (a new configuration).
        """
        with self._lock:
            stop, self._ring = self._ring.write_index, ring
            if self._is_alive():
                self._put(partial(self._recorder.swap, ring, stop, stop if continued else 0))

    def flush(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Write everything up to now and wait until it is on the disk.

        Returns
        -------
        False when it could not be written, or not within `timeout_s`; `status` tells why.
        """
        return self._perform(lambda stop: self._recorder.write(stop, sync=True), timeout_s)

    def save(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Put what the ring holds now on the disk, into a file of its own unless it is recorded anyway.

        Returns
        -------
        False when it could not be written, or not within `timeout_s` (0: not waited for, but done);
        `status` tells why, and the file.
        """
        return self._perform(self._recorder.dump, timeout_s)

    def status(self) -> TelemetryStatus:
        """What the thread is doing and has done."""
        counters = self._recorder.counters
        requested = self._is_requested
        recording = requested and self._is_alive() and not counters.error
        return TelemetryStatus(**vars(counters), requested=requested, recording=recording)

    def _is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _put(self, work: Callable[[], bool], *, is_last: bool = False) -> _Order:
        order = _Order(work, is_last)
        self._orders.put(order)
        return order

    def _perform(self, work: Callable[[int], bool], timeout_s: float) -> bool:
        """Have the thread work on everything up to now, and wait for it."""
        with self._lock:
            if not self._is_alive() or self._is_stopping:
                return False
            order = self._put(partial(work, self._ring.write_index))
        return order.done.wait(timeout_s) and order.has_succeeded

    def _run(self, orders: queue.SimpleQueue[_Order]) -> None:
        """The thread: an order when there is one, a chunk when it is time."""
        show_thread_name()
        pause_s = self._chunk_s
        written_at, written = time.monotonic(), self._recorder.ring.write_index
        while True:
            wait_s = max(0.0, written_at + pause_s - time.monotonic()) if self._recorder.is_active else None
            try:
                order = orders.get(timeout=wait_s)
            except queue.Empty:
                ring = self._recorder.ring
                now, stop = time.monotonic(), ring.write_index
                if now >= self._recorder.retry_at:
                    self._recorder.write(stop)
                pause_s = self._pause_s(ring, max(0, stop - written) / (now - written_at))
                written_at, written = now, stop
                continue
            order.has_succeeded = order.work()
            order.done.set()
            if order.is_last:
                return

    def _pause_s(self, ring: TelemetryRing, rate_hz: float) -> float:
        """Time to the next chunk: that of the settings, less if the ring would fill up."""
        if rate_hz <= 0:
            return self._chunk_s
        return min(self._chunk_s, max(_SHORTEST_PAUSE_S, _RING_SHARE * ring.capacity / rate_hz))
