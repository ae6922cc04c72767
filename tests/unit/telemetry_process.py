"""A process that records telemetry, for tests that kill it or take its disk away.

``python -m tests.unit.telemetry_process MODE DIRECTORY``; one JSON line on standard output per step.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from baldr_tango.telemetry.recorder import Recorder
from baldr_tango.telemetry.recording import RecordingFile
from baldr_tango.telemetry.writer import TelemetryWriter
from tests.unit.telemetry_support import feed, make_ring, make_settings


def say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def record_for_ever(directory: Path) -> None:
    """Say after each flush how many records are on the disk; ends by a signal or when nobody listens."""
    ring = make_ring(512)
    writer = TelemetryWriter(ring, make_settings(directory, chunk_s=0.001), 1, lambda: {"mask": "H3"})
    writer.start()
    writer.record(True)
    while True:
        feed(ring, 20)
        if not writer.flush(20.0):
            raise SystemExit(writer.status().error)
        say(flushed=ring.write_index, file=writer.status().file)


def limit_file_size(directory: Path) -> None:
    """Record into files that the operating system does not let grow, then lift the limit."""
    ring = make_ring(512)
    writer = TelemetryWriter(ring, make_settings(directory), 1)
    writer.start()
    writer.record(True)
    feed(ring, 100)
    say(written=writer.flush(), **asdict(writer.status()))
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(writer.status().file).stat().st_size // 2, unlimited))
    feed(ring, 100)
    say(written=writer.flush(), **asdict(writer.status()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
    say(written=writer.flush(), **asdict(writer.status()))
    writer.stop()


def fail_inside_hdf5(directory: Path) -> None:
    """Let the disk be full at a moment when HDF5 did not expect it."""
    ring = make_ring(512)
    counting: list[RecordingFile] = []
    reserve = RecordingFile._reserve

    def fill_the_disk(file: RecordingFile, nbytes: int) -> None:
        counting.append(file)
        if ring.write_index == 200 and counting.count(file) > 1 and file.rows:
            full = os.open("/dev/full", os.O_RDWR)
            os.dup2(full, file._file.id.get_vfd_handle())
            os.close(full)
        else:
            reserve(file, nbytes)

    RecordingFile._reserve = fill_the_disk  # type: ignore[method-assign]
    recorder = Recorder(ring, make_settings(directory), 1, dict, logging.getLogger("test"))
    recorder.begin(0)
    feed(ring, 100)
    say(written=recorder.write(100), **asdict(recorder.counters))
    feed(ring, 100)
    say(written=recorder.write(200), **asdict(recorder.counters))
    feed(ring, 100)
    say(written=recorder.end(300), **asdict(recorder.counters))


if __name__ == "__main__":
    modes = {"record": record_for_ever, "limit": limit_file_size, "fail": fail_inside_hdf5}
    modes[sys.argv[1]](Path(sys.argv[2]))
