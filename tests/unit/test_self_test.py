"""The self test of a beam on real streams: it measures, and touches nothing of the beam."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.commands import COMMANDS
from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.linear import Matrix
from baldr_tango.rtc.fitness import WARM_UP, MachineBench, camera_cpus
from baldr_tango.rtc.private_streams import made_up_frames
from tests.beam_bench import BeamBench
from tests.harness import wait_for

SECONDS = 0.2


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with BeamBench(tmp_path_factory.mktemp("self_test")) as running:
        yield running


@pytest.fixture(autouse=True)
def _open(bench):
    bench.ask("open_all")


def _flat(member):
    if isinstance(member, Matrix):
        return list(member[1:])
    return list(member) if isinstance(member, tuple) else [member]


def test_it_measures_every_frame_and_says_what_it_thinks(bench):
    reply = bench.ask("self_test", SECONDS)
    json.dumps(reply)
    period_us = 1e6 / reply["frame_rate_hz"]
    assert reply["ok"] is True
    assert reply["frame_rate_hz"] == pytest.approx(bench.loop.parameters.frame_rate_hz)
    assert reply["period_us"] == pytest.approx(period_us, abs=0.01)
    assert 0 < reply["frames"] <= SECONDS * reply["frame_rate_hz"] + 1 - WARM_UP
    for name in ("wake_up_us", "compute_us", "response_us", "sleep_us"):
        times = list(reply[name].values())
        assert times == sorted(times), name
        assert times[-1] > 0, reply
    assert reply["response_us"]["max"] <= reply["wake_up_us"]["max"] + reply["compute_us"]["max"] + 0.02
    assert reply["fit"] == (not reply["reasons"])
    assert reply["verdict"]


def test_mirror_camera_parameters_and_loop_are_as_before(bench):
    bench.step(3)
    counts = bench.channel.counter(), bench.camera.counter(), bench.combined.counter()
    counters = bench.loop.counters
    parameters = [array.copy() for member in bench.loop.arrays.parameters for array in _flat(member)]
    written = bench.loop.arrays.ring.write_index
    map_before = bench.channel.read()[0]
    bench.ask("self_test", SECONDS)
    assert (bench.channel.counter(), bench.camera.counter(), bench.combined.counter()) == counts
    np.testing.assert_array_equal(bench.channel.read()[0], map_before)
    now = bench.loop.counters
    for index in (d.FRAMES, d.LOST, d.WRITES, d.LO_CLOSED, d.HO_CLOSED, d.TRIP):
        assert now[index] == counters[index]
    assert bench.loop.arrays.ring.write_index == written
    after = [array for member in bench.loop.arrays.parameters for array in _flat(member)]
    for one, other in zip(parameters, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_loop_goes_on_beside_it(bench):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.ask, "self_test", 0.5)
        while not running.done():
            bench.step()
        assert running.result()["frames"] > 0
    assert bench.lost() == 0


def test_it_is_refused_while_a_loop_is_closed_unless_it_is_forced(bench):
    bench.ask("force_close_baldr_LO")
    with pytest.raises(StateError, match=r"a loop is closed.*open_all"):
        bench.ask("self_test", SECONDS)
    writes = bench.channel.counter()
    assert bench.ask("self_test", SECONDS, True)["frames"] > 0
    assert bench.channel.counter() == writes
    assert bench.ask("status")["TT_state"] == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.05, 61.0, float("nan"), float("inf")])
def test_a_time_out_of_range_is_refused(bench, seconds):
    with pytest.raises(RequestError, match=r"seconds: found .* expected 0.1 to 60"):
        bench.ask("self_test", seconds)


def test_only_one_at_a_time(bench):
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.ask, "self_test", 1.0)
        wait_for(lambda: any(t.name == "self-test-loop" for t in threading.enumerate()), 20.0)
        with pytest.raises(StateError, match="another self test"):
            bench.ask("self_test", SECONDS)
        assert running.result()["ok"] is True
    assert bench.ask("self_test", SECONDS)["ok"] is True


def _open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_behind(bench):
    bench.ask("self_test", SECONDS)
    threads, files = set(threading.enumerate()), _open_files()
    bench.ask("self_test", SECONDS)
    assert set(threading.enumerate()) <= threads
    assert _open_files() == files


def test_it_runs_beside_other_commands(bench):
    assert COMMANDS.find("self_test").waits
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.ask, "self_test", 1.0)
        wait_for(lambda: any(t.name == "self-test-loop" for t in threading.enumerate()), 20.0)
        assert bench.ask("change_boxcar", 1)["ok"] is True
        assert not running.done()
        running.result()


@pytest.mark.parametrize("boxcar", [1, 5])
def test_every_frame_has_its_command(bench, boxcar):
    """The private loop computes from all frames: nothing is skipped, limited or tripped."""
    bench.ask("change_boxcar", boxcar)
    try:
        measured = _measure(bench)
    finally:
        bench.ask("change_boxcar", 1)
    assert measured.computed.all()
    assert not measured.tripped
    seen = measured.wake_ns.size
    assert seen + measured.lost >= measured.posted
    assert np.all(measured.compute_ns > 0)
    assert np.all(np.diff(measured.posted_ns) > 0)


def test_a_burst_of_reads_is_measured_as_one(bench):
    bench.ask("configure_burst", {"reads": 4})
    try:
        measured = _measure(bench)
        parameters, slot = bench.loop.arrays.parameters, bench.loop.slots.version & 1
        frames = made_up_frames(parameters, slot)
    finally:
        bench.ask("configure_burst", {"reads": 1})
    assert frames.shape[0] == 4
    assert np.all(np.diff(frames.astype(np.int64).sum(axis=1)) > 0)
    assert measured.computed.any()
    if measured.lost == 0 and measured.wake_ns.size == measured.posted:
        # The first read of each burst of four only begins it.
        assert abs(int((~measured.computed).sum()) - measured.posted / 4) <= 1


def _measure(bench):
    loop = bench.loop
    private = MachineBench(loop.arrays, loop.slots.version & 1, bench.beam.settings.realtime, bench.beam.log)
    return private.measure(SECONDS)


def test_frames_come_from_other_cpus_than_those_of_the_loop(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    assert camera_cpus(()) == ()
    assert camera_cpus((2,)) == (0, 1)
    assert camera_cpus((0, 1, 2)) == (0, 1, 2)


def test_before_a_configuration_it_is_refused(tmp_path):
    unstarted = BeamBench(tmp_path)
    try:
        with pytest.raises(StateError, match="needs a configuration"):
            unstarted.ask("self_test", SECONDS)
    finally:
        unstarted.end()


def test_beside_a_loop_that_never_sleeps_it_is_refused(tmp_path):
    realtime = RealtimeSettings(priority=0, lock_memory=False, waiting="spin")
    with BeamBench(tmp_path, realtime=realtime) as spinning:
        if spinning.loop.waiting.mode != "spin":
            pytest.skip("this machine has no CPU for a loop that spins")
        with pytest.raises(StateError, match=r"spins.*stop_baldr"):
            spinning.ask("self_test", SECONDS)
        spinning.ask("stop_baldr")
        assert spinning.ask("self_test", SECONDS)["waiting"] == "spin"
