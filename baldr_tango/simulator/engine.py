"""The thread of the virtual instrument, and the streams under it that others may have re-made."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import BackendError, StateError
from baldr_tango.kernels import simulation
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.plants import TRUTH
from baldr_tango.kernels.simulation_streams import StreamTable
from baldr_tango.names import GRID_SIDE, N_GRID
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.streams import N_CHANNELS, InstrumentStreams, dm_channels, no_streams

_log = logging.getLogger(__name__)


class Engine:
    """Runs the compiled loop on the streams of all beams.

    Methods may be called from any thread. `control`, `levels`, `counters`, `command`, `truth`, `opd` and
    `read_out` are the arrays of `baldr_tango.kernels.simulation.serve`.
    """

    def __init__(self, config: RuntimeConfig, model: InstrumentModel) -> None:
        self._config = config
        self._model = model
        beams = tuple(config.beams)
        for beam in beams:
            dm_channels(config.for_beam(beam).streams)
        self.beams = beams
        self.control = np.zeros(simulation.MASK_IN + 2 * len(beams), dtype=np.int64)
        self.levels = np.ones(simulation.N_LEVELS)
        self.counters = np.zeros(simulation.N_COUNTERS, dtype=np.int64)
        self.command = np.zeros((len(beams), N_GRID))
        self.truth = np.zeros((len(beams), len(TRUTH)))
        points = N_GRID if model.is_linear else model.optical.pixels.size
        self.opd = np.zeros((len(beams), points), dtype=np.float32)
        pixels = model.detector.dark.shape[1]
        # Pages of `kept` take memory from the first frame on that is kept.
        self.read_out = simulation.ReadOut(
            charge=np.zeros((len(beams), pixels), dtype=np.float32),
            place=np.zeros(len(beams), dtype=np.int64),
            window=np.zeros((len(beams), simulation.WINDOW, pixels), dtype=np.int32),
            windowed=np.zeros(len(beams), dtype=np.int64),
            kept=np.zeros((len(beams), 2 * config.simulator.cube_frames, pixels), dtype=np.int32),
            keeping=np.zeros(len(beams), dtype=np.int64),
        )
        self._counts = np.zeros((simulation.N_COUNTS, len(beams), 2), dtype=np.int64)
        self._streams: InstrumentStreams | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._streams is not None and self._thread is not None and self._thread.is_alive()

    @property
    def n_channels(self) -> int:
        """DM channels of each mirror."""
        streams = self._streams
        return N_CHANNELS if streams is None else streams.n_channels

    def compile(self) -> None:
        """Compile the loop, or load it from the cache; `start` does it otherwise."""
        with self._lock:
            if not self.is_running:
                self._serve(no_streams(len(self.beams)))

    def start(self) -> None:
        """Create the streams and serve them until `stop`.

        Raises
        ------
        StateError : it runs already.
        BackendError : a stream cannot be created.
        """
        with self._lock:
            if self.is_running:
                raise StateError("the virtual instrument runs already")
            self.compile()
            self._streams = InstrumentStreams(self._config, self.beams, self._config.simulator.dm_flat)
            for array in (self.counters, self.command, self.truth, self._counts):
                array[:] = 0
            self._begin(self._streams)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and remove the streams that `start` created; a second call does nothing.

        Raises
        ------
        BackendError : the thread did not end in time.
        """
        with self._lock:
            self._end(timeout_s)
            if self._streams is not None:
                self._streams.remove()
                self._streams = None

    def recreate_cameras(self, in_place: Sequence[bool]) -> None:
        """Create the camera streams again, over the old files or as new ones; they count from 0.

        Raises
        ------
        StateError : the instrument does not run.
        BackendError : a stream cannot be created; then no stream is served any more.
        """
        with self._standing() as streams:
            streams.recreate_cameras(in_place)
            self._counts[simulation.FRAME_COUNTS] = 0

    def recreate_channels(self, count: int) -> None:
        """Create all DM channels again, `count` per mirror; raises as `recreate_cameras`."""
        with self._standing() as streams:
            streams.recreate_channels(count)

    def zero_channel(self, beam: int, channel: int | None) -> None:
        """Write zeros into a DM channel, or into all of a mirror; post them, but not the mirror's trigger.

        Raises
        ------
        StateError : the instrument does not run.
        """
        with self._lock:
            if self._streams is None:
                raise StateError("the virtual instrument does not run")
            channels = self._streams.beams[self.beams.index(beam)].channels
            for stream in channels if channel is None else [channels[channel]]:
                stream.write(np.zeros((GRID_SIDE, GRID_SIDE)))

    @contextmanager
    def _standing(self) -> Iterator[InstrumentStreams]:
        """Stop the loop, but nothing else, while streams are exchanged."""
        with self._lock:
            streams = self._streams
            if streams is None:
                raise StateError("the virtual instrument does not run")
            self._end(5.0)
            yield streams
            self._begin(streams)

    def _begin(self, streams: InstrumentStreams) -> None:
        table = streams.table(self._config.for_beam(self.beams[0]).streams.semaphore)
        store_release(self.control, simulation.RUN, 1)
        self._thread = threading.Thread(
            target=self._run, args=(table,), name="virtual-instrument", daemon=True
        )
        self._thread.start()

    def _end(self, timeout_s: float) -> None:
        store_release(self.control, simulation.RUN, 0)
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise BackendError(f"the virtual instrument's thread did not end within {timeout_s} s")
            self._thread = None

    def _run(self, table: StreamTable) -> None:
        priority, cpus = self._config.realtime.priority, self._config.realtime.cpus
        if cpus:
            try:
                os.sched_setaffinity(0, cpus)
            except OSError as error:
                _log.info("virtual instrument: any CPU, %s refused (%s)", list(cpus), error.strerror)
        if priority > 0:
            # Below the loops: a camera that is late costs nothing, a loop that is late loses frames.
            try:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(max(1, priority - 10)))
            except OSError as error:
                _log.info("virtual instrument: normal scheduling (%s)", error.strerror)
        self._serve(table)

    def _serve(self, table: StreamTable) -> None:
        model = self._model
        simulation.serve(
            model.is_linear, model.optical, model.linear, model.detector, self.read_out,
            table, self._config.simulator.dm_flat, self.control, self.levels, self.counters,
            self.command, self.truth, self._counts, self.opd, 0,
        )  # fmt: skip

    def get(self, word: int) -> bool:
        """Read a control word that is a switch."""
        return bool(load_acquire(self.control, word))

    def set(self, word: int, value: bool) -> None:
        """Write a control word that is a switch."""
        store_release(self.control, word, int(bool(value)))
