"""Rows: four beams at 2 kHz on this machine, every telemetry field and every raw image on the disk."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Final

from baldr_tango.rtc.stalls import StallWatch, compile_probe
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from benchmarks.deployed import counts, deployed, recorded
from benchmarks.overhead import cores, servers
from benchmarks.row import Row

RATE_HZ: Final = 2000.0
MINUTES: Final = 10.0
_NAMES: Final = ("frames", "lost_frames", "telemetry_frames", "telemetry_overruns")
_SETTLE_S: Final = 3.0


def rows(minutes: float = MINUTES) -> list[Row]:
    """Measure once, for some minutes."""
    compile_probe()
    with ExitStack() as stack:
        everything = {"record": True, "fields": tuple(FIELD_BY_NAME), "image_every": 1}
        deployment = stack.enter_context(deployed(RATE_HZ, **everything))
        time.sleep(_SETTLE_S)
        watch = StallWatch(minutes * 60.0 + 60.0)
        watch.start()
        stack.callback(watch.stop)
        began, before = time.monotonic(), counts(deployment, *_NAMES)
        used = cores(servers(deployment), minutes * 60.0)
        frames, lost, written, overruns = (counts(deployment, *_NAMES) - before).sum(axis=0)
        seconds = time.monotonic() - began
        watch.stop()
        stalls = watch.finish()
        last = recorded(deployment, deployment.config.beams[0], "frame", "latency_ns")
    parts = {
        "minutes": seconds / 60.0,
        "frames per s and beam": frames / seconds / len(deployment.config.beams),
        "worst latency us": float(last["latency_ns"].max()) * 1e-3,
        "stalls of the machine": float(len(stalls.stalls)),
        "longest ms": stalls.longest_ms,
    }
    writer = {"written per s": written / seconds, "telemetry threads cores": used["telemetry"]}
    method = (
        f"whole deployment with virtual instrument at 4 x {RATE_HZ:g} Hz, loops closed, all fields and every"
        f" image recorded; sums over the beams; goal for {MINUTES:g} minutes."
    )
    reason = "stalls of the machine are seen by a probe of the highest priority on each CPU."
    return [
        Row(f"frames lost at 4 x {RATE_HZ:g} Hz", 0.0, lost, "frames", parts, method, reason),
        Row(
            f"telemetry records lost at 4 x {RATE_HZ:g} Hz",
            0.0,
            overruns,
            "records",
            writer,
            "telemetry_overruns in the same minutes; records are 8.7 kB.",
            "the disk was too slow; what is missing is marked in the files.",
        ),
    ]
