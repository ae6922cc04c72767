"""Stages of a frame, timed by the running loop on request."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from baldr_tango import streams
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from tests.beam_bench import BeamBench
from tests.harness import wait_for

STAGES = ("wait", "read", "reconstruct", "control", "write", "record", "latency")
BETWEEN = ("read", "reconstruct", "control", "write")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with BeamBench(tmp_path_factory.mktemp("budget")) as running:
        yield running


def budget(bench, frames, post):
    """Ask for a latency budget and post its frames one by one; return the reply."""
    replies = []
    asking = threading.Thread(target=lambda: replies.append(bench.ask("latency_budget", frames)))
    epoch = bench.counter(d.BUDGET_SEEN)
    asking.start()
    wait_for(lambda: bench.counter(d.BUDGET_SEEN) > epoch, what="a loop that times its stages")
    while bench.counter(d.BUDGET_LEFT) > 0:
        post()
    asking.join(60.0)
    return replies[0]


def write_without_time(bench):
    """Post a frame as the camera server does: no time in the header."""
    camera = bench.camera
    before, count = bench.loop.arrays.ring.write_index, camera.counter()
    os.pwrite(camera.fd, b"\1", streams.WRITE)
    os.pwrite(camera.fd, bench.frame().tobytes(), streams.DATA)
    os.pwrite(camera.fd, b"\0", streams.WRITE)
    os.pwrite(camera.fd, np.array([count + 1, count + 1]).tobytes(), streams.CNT0)
    camera.post()
    wait_for(lambda: bench.loop.arrays.ring.write_index > before, what="a record")


def test_the_stages_of_one_frame_add_up_to_its_latency(bench):
    reply = budget(bench, 1, bench.step)
    stages = reply["stages"]
    assert reply["frames"] == 1
    assert tuple(stages) == STAGES
    assert sum(stages[name]["max"] for name in BETWEEN) == pytest.approx(stages["latency"]["max"])
    recorded = int(bench.loop.arrays.ring.newest("latency_ns")) / 1000.0
    assert stages["latency"]["max"] == pytest.approx(recorded), "what telemetry says of the same frame"


def test_every_frame_counts_once_in_every_stage(bench):
    reply = budget(bench, 40, bench.step)
    np.testing.assert_array_equal(bench.loop.arrays.state.stage_bins.sum(axis=1), 40)
    for name in STAGES:
        figures = reply["stages"][name]
        assert 0 < figures["p50"] <= figures["p99"] <= figures["max"], name


def test_the_wait_begins_at_the_write_time_of_the_stream(bench):
    """A frame that is 0.3 s old when it is posted has waited for that, and for no longer than it is away."""
    age = 0.3

    def post():
        written = time.time_ns() - round(age * 1e9)
        os.pwrite(bench.camera.fd, np.array(divmod(written, 10**9), "<i8").tobytes(), streams.WRITE_TIME)
        write_without_time(bench)
        longest.append((time.time_ns() - written) / 1000.0)

    longest: list[float] = []
    waited = budget(bench, 1, post)["stages"]["wait"]["max"]
    assert age * 1e6 <= waited <= longest[0]


def test_a_stream_that_keeps_no_time_has_no_wait(bench):
    write_without_time(bench)
    budget(bench, 1, lambda: write_without_time(bench))  # whatever time the stream has is known from here on
    reply = budget(bench, 3, lambda: write_without_time(bench))
    assert reply["stages"]["wait"] is None
    assert reply["stages"]["read"]["p50"] > 0


def test_frames_without_light_are_not_timed(bench):
    bench.step()
    skipped = bench.counter(d.SKIPPED)

    def post():
        before = bench.loop.arrays.ring.write_index
        bench.camera.write(np.zeros_like(bench.frame()))
        wait_for(lambda: bench.loop.arrays.ring.write_index > before, what="a record")
        bench.step()

    budget(bench, 3, post)
    assert bench.counter(d.SKIPPED) == skipped + 3
    np.testing.assert_array_equal(bench.loop.arrays.state.stage_bins[d.STAGE_READ :].sum(axis=1), 3)


def test_nothing_is_timed_unless_somebody_asks(bench):
    budget(bench, 2, bench.step)
    before = bench.loop.arrays.state.stage_bins.copy()
    bench.step(10)
    np.testing.assert_array_equal(bench.loop.arrays.state.stage_bins, before)


def test_a_loop_without_frames_gives_up_and_forgets_the_request(bench):
    with pytest.raises(StateError, match="0 of 5 frames timed"):
        bench.ask("latency_budget", 5)
    assert bench.counter(d.BUDGET_LEFT) == 0


def test_a_budget_can_be_cancelled(bench):
    job = bench.ask("latency_budget", {"frames": 1000, "wait": False})
    assert job["pending"]
    bench.step(3)
    assert bench.ask("job_cancel")["state"] == "cancelled"
    assert bench.counter(d.BUDGET_LEFT) == 0


@pytest.mark.parametrize("frames", [0, -1, 1.5, "many", True, 10_000_000])
def test_wrong_numbers_of_frames_are_refused(bench, frames):
    with pytest.raises(RequestError, match="frames must be a whole number"):
        bench.ask("latency_budget", frames)


def test_a_beam_that_does_not_run_is_refused(bench):
    bench.ask("pauseRTC")
    try:
        with pytest.raises(StateError, match="paused"):
            bench.ask("latency_budget", 5)
    finally:
        bench.ask("resumeRTC")


def test_published_percentiles_are_in_order(bench):
    bench.step(50)
    wait_for(lambda: bench.beam.figures.latency.start_p50 > 0, what="figures of the second")
    values = bench.beam.read()
    for name in ("latency", "jitter"):
        rising = [values[f"{name}_{which}"] for which in ("p50", "p99", "p999", "window_max", "max")]
        assert rising == sorted(rising)
        rising = [values[f"{name}_{which}"] for which in ("start_p50", "start_p99", "start_p999", "max")]
        assert rising == sorted(rising)
        assert rising[0] > 0
    assert values["waiting"] == "semaphore"
    assert values["camera_restarts"] == 0


def test_interpreted_code_times_the_same_stages():
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            "add_up or once_in_every or wait_begins",
        ],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        check=True,
        timeout=300,
    )
