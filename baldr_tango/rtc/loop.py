"""The real-time thread of one beam: opens the streams, enters the compiled loop, comes back when asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.runtime import BeamSettings
from baldr_tango.errors import BackendError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.loop import run
from baldr_tango.rtc.arrays import LoopArrays, build_arrays, compare
from baldr_tango.rtc.compilation import buffers, compile_loop
from baldr_tango.rtc.exchange import Exchange
from baldr_tango.rtc.journal import LoopJournal
from baldr_tango.rtc.scheduling import real_time
from baldr_tango.rtc.slots import ParameterSlots
from baldr_tango.rtc.waiting import Plan, spinning_loops
from baldr_tango.streams import Stream
from baldr_tango.telemetry.ring import TelemetryRing
from baldr_tango.thread_names import show_thread_name

WAIT_NS: Final = 20_000_000
"""Longest uninterrupted wait for a frame: bounds the reaction to a command without frames."""

_RETRY_S: Final = 0.1
_COMPILING: Final = "compiling kernels"


@dataclass
class _OpenStreams:
    camera: Stream
    channel: Stream
    combined: Stream

    def changed(self) -> str | None:
        """Say which stream is no longer the one under its name, and why."""
        for stream in (self.camera, self.channel, self.combined):
            reason = stream.is_current()
            if reason is not None:
                return f"stream {stream.name}: {reason}"
        return None


class RealTimeLoop:
    """Runs the compiled loop of one beam in a thread of its own.

    Parameters
    ----------
    parameters : what the loop computes with
    settings : streams, scheduling and buffer sizes of the beam
    log : the beam's logger
    """

    def __init__(self, parameters: LoopParameters, settings: BeamSettings, log: logging.Logger) -> None:
        self.parameters = parameters
        self._exchange = Exchange(build_arrays(parameters, settings.loop))
        self.slots = ParameterSlots(
            self.arrays.parameters, self.arrays.control, lambda: self._compiled, self._exchange_parameters
        )
        self.phase = "not started"
        """What the thread is doing, for people."""
        self.has_failed = False
        """True when the thread ended by an error."""
        self.reopens = 0
        """Times the streams had to be opened again."""
        self.waiting: Plan | None = None
        """How the loop waits for frames; None until it has streams."""
        self._settings = settings
        self._log = log
        self._compiled = False
        self._stopping = threading.Event()
        self._requests = threading.Lock()
        self._streams: _OpenStreams | None = None
        self._thread: threading.Thread | None = None
        self._last_problem = ""
        self._ready = False
        self._journals: list[LoopJournal] = []

    @property
    def arrays(self) -> LoopArrays:
        """Everything that the compiled loop works on."""
        return self._exchange.arrays

    @property
    def is_alive(self) -> bool:
        """True from `start` until the thread has ended."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def has_started(self) -> bool:
        """True once `start` was called."""
        return self._thread is not None

    @property
    def is_compiling(self) -> bool:
        """True while the thread compiles the loop, which nothing can interrupt; no stream is open then."""
        return self.phase == _COMPILING and self.is_alive

    @property
    def has_streams(self) -> bool:
        """True while the compiled loop runs on open streams."""
        return self._compiled

    @property
    def is_ready(self) -> bool:
        """True once the loop, since its start, has served frames or has said why it cannot."""
        if not self._ready:
            self._ready = bool(self._last_problem) or (self._compiled and self.adopted >= 0)
        return self._ready

    @property
    def problem(self) -> str:
        """Why the streams cannot be opened, or empty."""
        return self._last_problem

    @property
    def counters(self) -> NDArray[np.int64]:
        """Copy of the loop's counters; see `loop_data` for their places."""
        return self.arrays.state.counters.copy()

    def start(self) -> None:
        """Start the thread; nothing happens when it runs already."""
        if self.is_alive:
            return
        with self._requests:
            self._stopping.clear()
            self._ready, self._last_problem = False, ""
            store_release(self.arrays.control, d.STOP, 0)
        self._thread = threading.Thread(target=self._live, name=f"rtc-{self._settings.beam}", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> bool:
        """Open the loops, flatten the mirror and end the thread; True when it ended in time."""
        with self._requests:
            self._stopping.set()
            store_release(self.arrays.control, d.STOP, d.STOP_FLAT)
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self.is_alive:
            return False
        self.arrays.state.counters[d.TRIP] = 0  # the mirror is flat: a fault ends with its loop
        return True

    def resize_ring(self, capacity: int, timeout_s: float = 1.0) -> TelemetryRing:
        """Go on with a telemetry ring of another capacity; records, counters and controllers stay.

        The compiled loop comes out at a frame boundary and goes on, on the same streams, with the new ring.
        Frames that arrive within these microseconds wait; should one be overwritten, it counts as lost.

        Parameters
        ----------
        capacity : records that the new ring holds
        timeout_s : longest wait for the loop

        Raises
        ------
        ConfigError, StateError : as `Exchange.replace_ring`; the ring in force stays.
        """
        return self._exchange.replace_ring(capacity, self._ask_for_exchange, timeout_s)

    def journal(self, ring: TelemetryRing) -> LoopJournal | None:
        """Begin a journal for a recording of a ring; None when the loop does not fill that ring."""
        arrays = self.arrays
        if arrays.ring is not ring:
            return None
        journal = LoopJournal(arrays, self.slots, lambda: self._compiled, self._forget_journal)
        with self.slots.held():
            self._journals.append(journal)
        return journal

    def _forget_journal(self, journal: LoopJournal) -> None:
        with self.slots.held():
            self._journals = [other for other in self._journals if other is not journal]

    def update(self, parameters: LoopParameters, timeout_s: float = 0.5, **more: Any) -> int:
        """Compute with other derived parameters of the same sizes, all from the same frame boundary on.

        What operators have changed beside them (set points, offsets, injection) stays, and so do servo states
        and controllers. Only members that differ are written.

        Parameters
        ----------
        timeout_s : longest wait for the loop
        more : further changes to come into force together with these, as for `ParameterSlots.change`

        Returns
        -------
        version number for `wait_adopted`.

        Raises
        ------
        RequestError : a shape or a value is wrong; nothing has changed.
        StateError : the loop did not react in time; nothing has changed.
        """
        changes = compare(self.parameters, parameters, self._settings.loop) | more
        version = self.slots.change(timeout_s=timeout_s, **changes)
        self.parameters = parameters
        return version

    def check_streams(self) -> None:
        """Have the streams opened again when another program has re-created or deleted one.

        To be called a few times per second from another thread; the loop itself has no time to look.
        """
        streams = self._streams
        if streams is None or not self._compiled:
            return
        try:
            reason = streams.changed()
        except (BackendError, OSError, ValueError):
            return  # the real-time thread is closing them this moment
        if reason is not None:
            self._log.warning("%s; opening the streams again", reason)
            self._ask_to_leave(d.STOP_HOLD)

    def _ask_to_leave(self, how: int) -> None:
        """Have the compiled loop come out, unless it is ending anyway."""
        with self._requests:
            if not self._stopping.is_set():
                store_release(self.arrays.control, d.STOP, how)

    def _ask_for_exchange(self) -> None:
        self._ask_to_leave(d.STOP_EXCHANGE)

    def _exchange_parameters(
        self, parameters: d.Parameters, on_exchange: Callable[[], None], timeout_s: float
    ) -> None:
        """Go on with other arrays of parameters; `on_exchange` is called while the loop is outside."""

        def change(arrays: LoopArrays) -> LoopArrays:
            on_exchange()
            return replace(arrays, parameters=parameters)

        self._exchange.replace(change, self._ask_for_exchange, timeout_s)

    def _let_stay(self) -> None:
        """Withdraw the request to come out, unless the loop is ending."""
        with self._requests:
            if not self._stopping.is_set():
                store_release(self.arrays.control, d.STOP, 0)

    def _live(self) -> None:
        show_thread_name()
        try:
            self._compile()
            left = 0
            # A stop request that arrives while the streams are re-opened still has to flatten the mirror.
            while not self._stopping.is_set() or left == d.STOP_HOLD:
                left = self._serve_once()
        except Exception:
            self._log.exception("the real-time thread ended by an error")
            self.has_failed = True
            self.phase = "ended by an error; see the log"
            return
        self.phase = "stopped"

    def _serve_once(self) -> int:
        """Open the streams and run the compiled loop; return why it was left, 0 without streams."""
        left = 0
        try:
            with self._open_streams() as io:
                self._say_problem("")
                self.phase = "running"
                with real_time(self._settings.realtime, self._log), self._waiting() as plan:
                    self.waiting = plan
                    io.handles[d.SPIN_NS] = plan.spin_ns
                    # Nothing counts as taken over before the loop has drained old posts and said so.
                    store_release(self.arrays.control, d.ADOPTED, -1)
                    store_release(self.arrays.control, d.RESUMED, 0)
                    with self.slots.held() as version:
                        # From here on changes wait until the loop has taken over this version.
                        for journal in self._journals:
                            journal.entered(version)
                        self._compiled = True
                    left = self._run(io)
                    while left == d.STOP_EXCHANGE:
                        self._let_stay()
                        store_release(self.arrays.control, d.RESUMED, 1)
                        left = self._run(io)
                    self._compiled = False
            if left == d.STOP_HOLD:
                self.reopens += 1
                self._let_stay()
        except BackendError as error:
            self._say_problem(str(error))
            self.phase = "waiting for the streams"
            self._stopping.wait(_RETRY_S)
        finally:
            self._compiled = False
        return left

    def _waiting(self) -> AbstractContextManager[Plan]:
        rate_hz = self.parameters.frame_rate_hz
        period_ns = round(1e9 / rate_hz) if rate_hz > 0 else 0
        return spinning_loops.waiting(self._settings.realtime, WAIT_NS, period_ns, self._log)

    def _run(self, io: d.Io) -> int:
        """Run the compiled loop on the arrays in force; return why it was left."""
        arrays = self._exchange.take()
        try:
            return int(run(arrays.control, arrays.parameters, arrays.state, io, arrays.ring_arrays))
        finally:
            self._exchange.release()

    def _say_problem(self, text: str) -> None:
        """Log a change of the streams' availability once."""
        if text != self._last_problem:
            if text:
                self._log.warning("waiting for streams: %s", text)
            else:
                self._log.info("streams are available")
        self._last_problem = text

    @contextmanager
    def _open_streams(self) -> Iterator[d.Io]:
        names = self._settings.streams
        directory = names.directory or None
        arrays = self.arrays
        with ExitStack() as stack:
            camera = stack.enter_context(
                Stream.open(names.camera, directory, shape=arrays.frame_shape, dtype=np.int32)
            )
            side = round(arrays.n_grid**0.5)
            shape = (side, side)
            channel = stack.enter_context(
                Stream.open(names.dm_command, directory, shape=shape, dtype=np.float64, writable=True)
            )
            combined = stack.enter_context(
                Stream.open(names.dm_combined, directory, shape=shape, dtype=np.float64)
            )
            self._streams = _OpenStreams(camera, channel, combined)
            try:
                yield build_io(arrays, camera, channel, combined, names.semaphore)
            finally:
                self._streams = None

    def _compile(self) -> None:
        """Compile the loop, or load it from the cache, without running it."""
        self.phase = _COMPILING
        began = time.monotonic()
        compile_loop(self.arrays)
        self._log.info("kernels ready after %.1f s", time.monotonic() - began)

    def wait_adopted(self, version: int, timeout_s: float) -> bool:
        """Wait until the loop works with a version of its parameters."""
        return self.slots.wait_adopted(version, timeout_s)

    @property
    def adopted(self) -> int:
        """Version of the parameters that the loop works with."""
        return int(load_acquire(self.arrays.control, d.ADOPTED))


def build_io(arrays: LoopArrays, camera: Stream, channel: Stream, combined: Stream, semaphore: int) -> d.Io:
    """Collect what the compiled loop needs of open streams.

    camera : (rows, columns) int32; channel, combined : square float64 maps
    semaphore : index of the semaphore to wait for frames and to trigger the mirror

    Raises
    ------
    BackendError : a stream lacks that semaphore.
    """
    for stream in (camera, combined):
        if len(stream.semaphores) <= semaphore:
            raise BackendError(
                f"{stream.path}: has {len(stream.semaphores)} semaphores, number {semaphore} is needed"
            )
    handles = np.zeros(d.N_HANDLES, dtype=np.int64)
    handles[d.CAMERA_FD] = camera.fd
    handles[d.CAMERA_SEMAPHORE] = camera.semaphores[semaphore].address
    handles[d.DM_FD] = channel.fd
    handles[d.TRIGGER_SEMAPHORE] = combined.semaphores[semaphore].address
    handles[d.WAIT_NS] = WAIT_NS
    posted = [*channel.semaphores, *([channel.log_semaphore] if channel.log_semaphore else [])]
    io = buffers(arrays, handles, np.array([s.address for s in posted], dtype=np.int64))
    # The command buffer mirrors the channel's file from cnt0 on, so that one call writes flag and data.
    header = np.frombuffer(channel.header().tobytes(), dtype=np.int64)
    io.dm_words[: d.COUNTS_WORDS] = header[d.COUNTS_OFFSET // 8 :]
    words = np.frombuffer(camera.header().tobytes(), dtype=np.int64)
    io.format[:] = words[d.FORMAT_WORD : d.FORMAT_WORD + d.FORMAT_WORDS]
    return io
