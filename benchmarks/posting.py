"""The two processes of the end-to-end rows: ``python -m benchmarks.posting camera|loop DIRECTORY [...]``.

The camera posts a frame to a real stream and, half a period later, a bare semaphore. The other process has
the product's loop for the frames and a thread that does nothing but wait for the bare semaphore. Both write
their time stamps (CLOCK_MONOTONIC) into the directory of the streams.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.libc import (
    address_of,
    monotonic_ns,
    pwrite,
    sem_post,
    sem_wait_until,
    sleep_until_ns,
)
from baldr_tango.kernels.simulation_streams import CAMERA, StreamTable, begin_write, end_write, post_all
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.rtc.histogram import percentile_us
from baldr_tango.streams import CNT0, DATA, SEMAPHORE_CAP, WRITE, Stream

CAMERA_PRIORITY: Final = 40
LOOP_PRIORITY: Final = 50
PING: Final = "ping"
"""Stream whose semaphore is the bare one."""

_AHEAD_NS: Final = 50_000_000
_LOOK_NS: Final = 20_000_000
_timer: Any = numba.njit(nogil=True, _nrt=False)


@_timer
def post_frames(table, frame, flag, counts, ping, begin, period, written, posted, pinged):
    """Post frames and, between them, a bare semaphore; note when count, posts and post began [ns]."""
    fd = table.descriptors[0, CAMERA]
    for k in range(posted.size):
        frame[0] ^= 1  # frames of a camera differ from each other
        sleep_until_ns(begin + k * period)
        begin_write(table, fd, flag)
        pwrite(fd, address_of(frame), 4 * frame.size, table.data_offset)
        end_write(table, fd, flag)
        counts[0, 0] += 1
        counts[0, 1] += 1
        written[k] = monotonic_ns()
        pwrite(fd, address_of(counts[0]), 16, table.cnt0_offset)
        posted[k] = monotonic_ns()
        post_all(table, 0)
        if ping != 0:
            sleep_until_ns(begin + k * period + period // 2)
            pinged[k] = monotonic_ns()
            sem_post(ping)


@_timer
def note_pings(semaphore, stop, woke):
    """Wait for the bare semaphore again and again; note when each wait ended [ns]."""
    k = 0
    while k < woke.size and load_acquire(stop, 0) == 0:
        if sem_wait_until(semaphore, monotonic_ns() + _LOOK_NS):
            woke[k] = monotonic_ns()
            k += 1


def real_time(priority: int, cpus: list[int]) -> None:
    """Give the calling thread its CPUs, and its priority if that is permitted."""
    os.sched_setaffinity(0, cpus)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        sys.stderr.write(f"no real-time priority: {error}\n")


def camera(directory: Path, options: dict[str, Any]) -> None:
    """Post the frames, then write ``camera.npz``."""
    frame = np.load(directory / "frame.npy").ravel()
    stamps = [np.zeros(options["frames"], dtype=np.int64) for _ in range(3)]
    with Stream.open("baldr1", directory, writable=True) as stream, Stream.open(PING, directory) as ping:
        posts = [s.address for s in [*stream.semaphores, stream.log_semaphore] if s is not None]
        table = StreamTable(
            descriptors=np.array([[-1, stream.fd, -1]], dtype=np.int64),
            triggers=np.zeros(1, dtype=np.int64),
            posts=np.array([posts], dtype=np.int64),
            cap=SEMAPHORE_CAP,
            data_offset=DATA,
            cnt0_offset=CNT0,
            write_offset=WRITE,
        )
        flag, counts = np.zeros(1, dtype=np.uint8), np.zeros((1, 2), dtype=np.int64)
        bare = ping.semaphores[1].address if options["pings"] else 0
        arguments = (table, frame, flag, counts, bare)
        post_frames(*arguments, 0, 1, *(array[:0] for array in stamps))  # compiles
        _say("ready")
        real_time(CAMERA_PRIORITY, options["camera_cpus"])
        post_frames(*arguments, monotonic_ns() + _AHEAD_NS, options["period_ns"], *stamps)
    np.savez(directory / "camera.npz", **dict(zip(("written", "posted", "pinged"), stamps, strict=True)))
    _say("done")


def loop(directory: Path, options: dict[str, Any]) -> None:
    """Run the product's loop until the input ends, then write ``loop.npz``."""
    parameters = pickle.loads((directory / "parameters.pickle").read_bytes())
    plain = RuntimeConfig(file=directory / "none.toml").for_beam(1)
    settings = replace(
        plain,
        streams=replace(plain.streams, directory=str(directory)),
        realtime=replace(
            plain.realtime,
            priority=LOOP_PRIORITY,
            cpus=tuple(options["loop_cpus"]),
            waiting=options["waiting"],
        ),
        loop=LoopSettings(ring_frames=2 * options["frames"]),
    )
    running = RealTimeLoop(parameters, settings, logging.getLogger("baldr.bench"))
    stop, woke = np.zeros(1, dtype=np.int64), np.zeros(options["frames"], dtype=np.int64)
    with Stream.open(PING, directory) as ping:
        note_pings(ping.semaphores[1].address, np.ones(1, dtype=np.int64), woke)  # compiles

        def answer() -> None:
            real_time(LOOP_PRIORITY, options["loop_cpus"])
            note_pings(ping.semaphores[1].address, stop, woke)

        thread = threading.Thread(target=answer, daemon=True)
        running.start()
        if options["pings"]:
            thread.start()
        pause = threading.Event()
        while not (running.has_streams and running.adopted >= running.slots.version):
            pause.wait(0.01)
        switches = {d.CLOSE_LO: 1, d.CLOSE_HO: 1, d.BUDGET_EPOCH: 1, d.BUDGET_FRAMES: options["frames"]}
        running.wait_adopted(running.slots.change(switches=switches, timeout_s=5.0), 5.0)
        _say("ready")
        sys.stdin.readline()
        store_release(stop, 0, 1)
        records = running.arrays.ring.read(
            0, running.arrays.ring.write_index, ("frame", "time_ns", "latency_ns", "flags")
        )[1]
        stages = [percentile_us(running.arrays.state.stage_bins[stage], 50) for stage in range(d.N_STAGES)]
        running.stop(5.0)
        if options["pings"]:
            thread.join()
    np.savez(directory / "loop.npz", woke=woke, stages=stages, **records)
    _say("done")


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"camera": camera, "loop": loop}[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
