"""The virtual instrument: streams of the cameras and deformable mirrors of all beams, one compiled thread."""

from __future__ import annotations

import logging
import math
import os
import threading
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import BackendError, RequestError, StateError
from baldr_tango.kernels import simulation
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.plants import TRUTH
from baldr_tango.kernels.simulation_streams import StreamTable
from baldr_tango.names import N_GRID
from baldr_tango.simulator.assembly import InstrumentModel
from baldr_tango.simulator.streams import InstrumentStreams, dm_channels, no_streams

_log = logging.getLogger(__name__)

MAX_RATE_HZ = 10000.0
"""Highest frame rate."""


@dataclass(frozen=True)
class InstrumentCounters:
    """What the virtual instrument has counted since its start."""

    ticks: int
    """Frame periods served (all beams)."""
    late_ticks: int
    """Frame periods that began more than half a period late; the clock restarts from there."""
    skipped_ticks: int
    """Whole frame periods left out because a tick came that late."""
    not_finite: int
    """Actuator commands that were not finite; the actuator stays where it is."""
    write_errors: int
    """Writes into a stream that failed."""


class VirtualInstrument:
    """Camera, phase masks, lamp and deformable mirrors of all beams, behind the real streams.

    Every method may be called from any thread at any time. Frames depend on the settings, the seed, the
    number of the frame and the mirror commands alone.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        """Build the optics; nothing is created or started yet.

        Raises
        ------
        ConfigError : settings that contradict each other, or a calibration that the linear plant cannot use.
        """
        self._config = config
        self._beams = tuple(config.beams)
        for beam in self._beams:
            dm_channels(config.for_beam(beam).streams)
        self._model = InstrumentModel(config)
        self._rate_hz = self._model.rate_hz
        self._gain = self._model.gain
        self._control = np.zeros(simulation.MASK_IN + 2 * len(self._beams), dtype=np.int64)
        self._levels = np.ones(simulation.N_LEVELS)
        self._counters = np.zeros(simulation.N_COUNTERS, dtype=np.int64)
        self._command = np.zeros((len(self._beams), N_GRID))
        self._truth = np.zeros((len(self._beams), len(TRUTH)))
        self._streams: InstrumentStreams | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self.set_rate(self._rate_hz)
        self.set_lamp(True)
        self.set_turbulence(config.simulator.turbulence)
        self.set_drop_every(config.simulator.drop_every)
        for beam in self._beams:
            self.move_mask(beam, True)

    @property
    def beams(self) -> tuple[int, ...]:
        """Beams that are served."""
        return self._beams

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._thread is not None and self._thread.is_alive()

    def compile(self) -> None:
        """Compile the loop, or load it from the cache; `start` does it otherwise."""
        with self._lock:
            if not self.is_running:
                self._serve(no_streams(len(self._beams)))

    def start(self) -> None:
        """Create the streams and post frames until `stop`.

        Raises
        ------
        StateError : it runs already.
        BackendError : a stream cannot be created.
        """
        with self._lock:
            if self.is_running:
                raise StateError("the virtual instrument runs already")
            self.compile()
            settings = self._config.simulator
            self._streams = InstrumentStreams(self._config, self._beams, settings.dm_flat)
            table = self._streams.table(self._config.for_beam(self._beams[0]).streams.semaphore)
            self._counters[:] = 0
            self._command[:] = 0.0
            self._truth[:] = 0.0
            store_release(self._control, simulation.RUN, 1)
            self._thread = threading.Thread(
                target=self._run, args=(table,), name="virtual-instrument", daemon=True
            )
            self._thread.start()
        _log.info("virtual instrument: beams %s at %g Hz", self._beams, self._rate_hz)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and remove the streams that `start` created; a second call does nothing.

        Raises
        ------
        BackendError : the thread did not end in time.
        """
        with self._lock:
            store_release(self._control, simulation.RUN, 0)
            if self._thread is not None:
                self._thread.join(timeout_s)
                if self._thread.is_alive():
                    raise BackendError(f"the virtual instrument's thread did not end within {timeout_s} s")
                self._thread = None
            if self._streams is not None:
                self._streams.remove()
                self._streams = None

    def __enter__(self) -> VirtualInstrument:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def rate_hz(self) -> float:
        """Frame rate [Hz]."""
        return self._rate_hz

    def set_rate(self, hz: float) -> None:
        """Change the frame rate [Hz]; the flux of a frame changes with the exposure time.

        Raises
        ------
        RequestError : not above 0 and at most 10000 Hz.
        """
        if not 0.0 < hz <= MAX_RATE_HZ:
            raise RequestError(f"frame rate: found {hz} Hz, allowed is above 0 to {MAX_RATE_HZ:g} Hz")
        with self._lock:
            self._rate_hz = float(hz)
            self._expose()
            store_release(self._control, simulation.PERIOD_NS, round(1e9 / hz))

    @property
    def gain(self) -> float:
        """Camera gain."""
        return self._gain

    def set_gain(self, gain: float) -> None:
        """Change the camera gain; the ADU per electron change in proportion.

        Raises
        ------
        RequestError : not above 0.
        """
        if not (gain > 0.0 and math.isfinite(gain)):
            raise RequestError(f"camera gain: found {gain}, allowed is above 0")
        with self._lock:
            self._gain = float(gain)
            self._expose()

    def _expose(self) -> None:
        gain = self._gain / self._model.gain
        self._levels[simulation.FLUX_SCALE] = gain * self._model.rate_hz / self._rate_hz
        self._levels[simulation.GAIN_SCALE] = gain
        self._model.detector.dark[:] = self._model.dark(self._rate_hz, self._gain)

    @property
    def lamp(self) -> bool:
        """True while the light source is on."""
        return self._get(simulation.LAMP)

    def set_lamp(self, on: bool) -> None:
        """Switch the light source on or off."""
        self._set(simulation.LAMP, on)

    def mask_in(self, beam: int) -> bool:
        """Tell whether the phase mask of `beam` is in the beam."""
        return self._get(simulation.MASK_IN + self._index(beam))

    def move_mask(self, beam: int, in_: bool) -> None:
        """Move the phase mask of `beam` in or out."""
        self._set(simulation.MASK_IN + self._index(beam), in_)

    def turbulence(self, beam: int) -> bool:
        """Tell whether `beam` sees turbulence, tip/tilt jitter, vibration or a disturbance."""
        return self._get(simulation.MASK_IN + len(self._beams) + self._index(beam))

    def set_turbulence(self, on: bool, beam: int | None = None) -> None:
        """Switch turbulence (and jitter, vibration, disturbance) on or off, for one beam or for all."""
        for index in range(len(self._beams)) if beam is None else [self._index(beam)]:
            self._set(simulation.MASK_IN + len(self._beams) + index, on)

    @property
    def silent(self) -> bool:
        """True while no frame is written or posted; the mirrors are served."""
        return self._get(simulation.SILENT)

    def set_silent(self, silent: bool) -> None:
        """Stop or resume writing frames, as a camera does that was told ``stop`` or ``fetch``."""
        self._set(simulation.SILENT, silent)

    def set_post_first(self, post_first: bool) -> None:
        """Post frames before counting them, as the instrument's camera server does, or after."""
        self._set(simulation.POST_FIRST, post_first)

    def set_drop_every(self, frames: int) -> None:
        """Leave out one frame of every `frames`; 0 leaves out none.

        Raises
        ------
        RequestError : negative.
        """
        if frames < 0:
            raise RequestError(f"drop every {frames} frames: allowed is 0 (none) or more")
        store_release(self._control, simulation.DROP_EVERY, int(frames))

    def counters(self) -> InstrumentCounters:
        """Report the counters of the thread."""
        return InstrumentCounters(
            ticks=int(load_acquire(self._counters, simulation.TICKS)),
            late_ticks=int(self._counters[simulation.LATE]),
            skipped_ticks=int(self._counters[simulation.SKIPPED]),
            not_finite=int(self._counters[simulation.NOT_FINITE]),
            write_errors=int(self._counters[simulation.WRITE_ERRORS]),
        )

    def _run(self, table: StreamTable) -> None:
        priority = self._config.realtime.priority
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
            model.is_linear, model.optical, model.linear, model.detector, table,
            self._config.simulator.dm_flat, self._control, self._levels, self._counters,
            self._command, self._truth, 0,
        )  # fmt: skip

    def _index(self, beam: int) -> int:
        try:
            return self._beams.index(beam)
        except ValueError:
            raise RequestError(
                f"beam {beam}: this instrument has {', '.join(map(str, self._beams))}"
            ) from None

    def _get(self, word: int) -> bool:
        return bool(load_acquire(self._control, word))

    def _set(self, word: int, value: bool) -> None:
        store_release(self._control, word, int(bool(value)))
