"""Measures how quickly this machine runs a beam's loop, on private arrays and streams that nobody else sees.

The loop is the real one, `kernels.loop.run`, with the beam's own parameters, priority and CPUs. Frames come
from a file in memory, commands go into another: neither has a name, and neither is the mirror's.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
import time
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.loop import run
from baldr_tango.kernels.pacing import post_frames, watch_sleeps
from baldr_tango.kernels.simulation_streams import StreamTable
from baldr_tango.rtc.arrays import LoopArrays, build_state, ring_arrays
from baldr_tango.rtc.loop import WAIT_NS
from baldr_tango.rtc.measurement import Harvest, Measurement, ThreadReport
from baldr_tango.rtc.packing import copied
from baldr_tango.rtc.private_streams import (
    PrivateStreams,
    made_up_frames,
    open_limits,
    stream_scratch,
    stream_table,
)
from baldr_tango.rtc.scheduling import real_time, usable_cpus
from baldr_tango.rtc.stalls import StallReport, StallWatch, compile_probe
from baldr_tango.rtc.waiting import spinning_loops
from baldr_tango.telemetry.memory import refusal
from baldr_tango.telemetry.ring import TelemetryRing, capacity_for

WARM_UP: Final = 10
"""First frames that do not count: caches are cold, and the first count is waited for."""

_RING_S: Final = 0.25
_HARVEST_S: Final = 0.02
_JOIN_S: Final = 5.0
_FIELDS: Final = ("frame", "time_ns", "latency_ns", "flags")

_measuring = threading.Lock()


class MachineBench:
    """A camera, a loop and a mirror that exist only here.

    Parameters
    ----------
    arrays : of the beam's loop; copied, and nobody may change them meanwhile
    slot : the one in force
    settings : priority and CPUs of the beam's loop
    log : for what is not permitted

    Raises
    ------
    StateError : the frame rate is not known, or memory does not suffice.
    """

    def __init__(
        self, arrays: LoopArrays, slot: int, settings: RealtimeSettings, log: logging.Logger
    ) -> None:
        self._settings = settings
        self._log = log
        self._slot = slot
        parameters = d.Parameters(*(copied(member) for member in arrays.parameters))
        self._period_ns = int(parameters.switches[slot, d.PERIOD_NS])
        if self._period_ns <= 0:
            raise StateError("the frame rate is not known: neither the configuration nor the camera says it")
        self._frames = made_up_frames(parameters, slot)
        open_limits(parameters, slot)
        self._arrays = self._private(arrays, parameters)
        self._streams = PrivateStreams()
        self._ending = np.zeros(1, dtype=np.int64)
        self._thread = ThreadReport()
        self._posted = 0
        self._sleeps = 0

    def _private(self, arrays: LoopArrays, parameters: d.Parameters) -> LoopArrays:
        boxcar = int(parameters.switches[self._slot, d.BOXCAR])
        wanted = capacity_for(max(round(_RING_S * 1e9 / self._period_ns), boxcar + 2))
        reason = refusal(wanted * arrays.ring.record_nbytes)
        if reason:
            raise StateError(f"self test: {reason}")
        ring = TelemetryRing(wanted, arrays.ring.sizes)
        control = np.zeros(d.CONTROL_WORDS, dtype=np.int64)
        control[d.VERSION] = self._slot
        control[d.ADOPTED] = -1
        control[d.RESUMED] = 1  # frames are numbered from the first on, as they are posted
        sizes = arrays.state
        state = build_state(
            sizes.image.size,
            sizes.averaged.size,
            sizes.integral_lo.size,
            sizes.integral_ho.size,
            sizes.command.size,
        )
        state.counters[d.LAST_NUMBER] = 0
        return replace(
            arrays,
            control=control,
            parameters=parameters,
            state=state,
            ring=ring,
            ring_arrays=ring_arrays(ring),
        )

    def measure(self, seconds: float) -> Measurement:
        """Run the threads for a while and put together what they have seen; once per bench.

        Parameters
        ----------
        seconds : how long to measure [s]; returns a little later

        Raises
        ------
        StateError : another measurement is going on in this process.
        """
        if not _measuring.acquire(blocking=False):
            raise StateError("another self test is running in this server; each would disturb the other")
        try:
            return self._measure(seconds)
        finally:
            _measuring.release()

    def _measure(self, seconds: float) -> Measurement:
        compile_pacing()
        harvest = Harvest(self._arrays.ring)
        watch = StallWatch(seconds)
        io, camera = self._streams.open(self._arrays, self._frames[0])
        number = round(seconds * 1e9 / self._period_ns) + 2
        posted_ns, due_ns, late_ns = (np.full(number, 0, dtype=np.int64) for _ in range(3))
        loop = threading.Thread(target=self._run, args=(io,), name="self-test-loop", daemon=True)
        threads = [loop]
        try:
            loop.start()
            self._wait_running(loop)
            watch.start()
            begin = time.monotonic_ns() + self._period_ns
            until = begin + int(seconds * 1e9)
            pacers = [
                threading.Thread(target=self._post, args=(camera, begin, until, posted_ns), daemon=True),
                threading.Thread(target=self._sleep, args=(begin, until, due_ns, late_ns), daemon=True),
            ]
            for pacer in pacers:
                pacer.start()
                threads.append(pacer)
            while any(pacer.is_alive() for pacer in pacers):
                pacers[0].join(_HARVEST_S)
                harvest.collect()
            stalls = watch.finish()
        finally:
            watch.stop()
            store_release(self._ending, 0, 1)
            store_release(self._arrays.control, d.STOP, d.STOP_HOLD)
            self._end(threads)
        harvest.collect()
        return self._result(
            harvest, seconds, stalls, posted_ns[: self._posted], (due_ns[: self._sleeps], late_ns)
        )

    def _end(self, threads: list[threading.Thread]) -> None:
        """Wait for the threads; as long as one of them lives its files stay open, for nobody else's use."""
        for thread in threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)
        if any(thread.is_alive() for thread in threads):
            raise StateError("self test: its threads did not end in time; the machine is overloaded")
        self._streams.close()

    def _result(
        self,
        harvest: Harvest,
        seconds: float,
        stalls: StallReport,
        posted_ns: NDArray[np.int64],
        sleeps: tuple[NDArray[np.int64], NDArray[np.int64]],
    ) -> Measurement:
        number = harvest.column("frame") - 1
        used = (number >= WARM_UP) & (number < posted_ns.size)
        number = number[used]
        posts = posted_ns[number]
        woken = harvest.column("time_ns")[used]
        counters = self._arrays.state.counters
        return Measurement(
            frame_rate_hz=1e9 / self._period_ns,
            seconds=seconds,
            posted=max(posted_ns.size - WARM_UP, 0),
            lost=int(counters[d.LOST]),
            posted_ns=posts,
            wake_ns=np.maximum(woken - posts, 0),  # a loop that is late finds the next frame before its post
            compute_ns=harvest.column("latency_ns")[used].astype(np.int64),
            computed=(harvest.column("flags")[used] & d.FLAG_SKIPPED) == 0,
            sleep_due_ns=sleeps[0],
            sleep_late_ns=sleeps[1][: sleeps[0].size],
            stalls=stalls,
            tripped=bool(counters[d.TRIP]),
            scheduling=self._thread.scheduling,
            waiting=self._thread.waiting,
            has_priority=self._thread.has_priority,
            page_faults=self._thread.page_faults,
            context_switches=self._thread.context_switches,
        )

    def _wait_running(self, thread: threading.Thread) -> None:
        """Wait until the loop waits for frames: it drops posts that came before."""
        deadline = time.monotonic() + _JOIN_S
        while thread.is_alive() and time.monotonic() < deadline:
            if load_acquire(self._arrays.control, d.ADOPTED) == self._slot:
                return
            time.sleep(0.001)
        raise StateError("self test: its own real-time thread did not start; see the log")

    def _run(self, io: d.Io) -> None:
        with real_time(self._settings, self._log):
            policy = os.sched_getscheduler(0)
            is_fifo = policy == os.SCHED_FIFO
            priority = os.sched_getparam(0).sched_priority
            self._thread.scheduling = f"SCHED_FIFO {priority}" if is_fifo else "normal"
            self._thread.has_priority = self._settings.priority <= 0 or is_fifo
            with spinning_loops.waiting(self._settings, WAIT_NS, self._period_ns, self._log) as plan:
                io.handles[d.SPIN_NS] = plan.spin_ns
                self._thread.waiting = plan.mode
                before = resource.getrusage(resource.RUSAGE_THREAD)
                a = self._arrays
                run(a.control, a.parameters, a.state, io, a.ring_arrays)
                after = resource.getrusage(resource.RUSAGE_THREAD)
        self._thread.page_faults = after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt
        self._thread.context_switches = after.ru_nivcsw - before.ru_nivcsw

    def _post(self, camera: StreamTable, begin: int, until: int, posted_ns: NDArray[np.int64]) -> None:
        with real_time(replace(self._settings, cpus=camera_cpus(self._settings.cpus)), self._log):
            self._posted = int(
                post_frames(
                    self._ending,
                    camera,
                    self._streams.semaphore,
                    self._frames,
                    begin,
                    self._period_ns,
                    until,
                    stream_scratch(),
                    posted_ns,
                )
            )

    def _sleep(self, begin: int, until: int, due_ns: NDArray[np.int64], late_ns: NDArray[np.int64]) -> None:
        with real_time(self._settings, self._log):
            between = begin + self._period_ns // 2  # not when a frame comes
            self._sleeps = int(watch_sleeps(self._ending, between, self._period_ns, until, due_ns, late_ns))


def compile_pacing() -> None:
    """Compile the threads of a measurement, or load them from the cache, so that none is late for that."""
    compile_probe()
    frames, nothing = np.zeros((1, 1), dtype=np.int32), np.zeros(0, dtype=np.int64)
    ended = np.ones(1, dtype=np.int64)
    post_frames(ended, stream_table(-1), 0, frames, 0, 1, 0, stream_scratch(), nothing)


def camera_cpus(loop_cpus: tuple[int, ...]) -> tuple[int, ...]:
    """CPUs from which frames are posted: not those of the loop, where there are others, as a camera does."""
    if not loop_cpus:
        return ()
    others = sorted(usable_cpus() - set(loop_cpus))
    return tuple(others) or loop_cpus
