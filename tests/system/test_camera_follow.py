"""A beam follows its camera and its phase mask, without a restart and without losing a frame."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from baldr_tango.beam.camera_following import CameraFollower
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import LoopState
from baldr_tango.peers import camera_monitor
from baldr_tango.peers.connection import open_endpoints
from baldr_tango.telemetry.reader import TelemetryFile
from legacy_zmq.instrument import ControlServers
from tests.beam_bench import BeamBench
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint, wait_until
from tests.unit.configuration_problem import PIXELS, calibration_table
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system

BIAS_ADU = 1000.0
DARK_ADU_S = 40000.0
"""Dark signal of the old calibration file [ADU/s/gain]: 400 ADU per frame at 1 kHz and gain 10."""


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not open_endpoints()


@pytest.fixture
def instrument():
    return RecordedInstrument((1,))


@pytest.fixture
def servers(instrument):
    with ControlServers(instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0") as servers:
        yield servers


@pytest.fixture
def old_calibration(tmp_path):
    """Write a calibration file of the old generation, whose dark depends on the camera."""
    table = calibration_table()
    table["I0"] = np.asarray(table["I0"]) * 3.0e4
    table["norm_pupil"] = np.full(PIXELS, 1000.0)
    table["bias"] = np.full(PIXELS, BIAS_ADU)
    table["dark"] = np.full(PIXELS, DARK_ADU_S)
    return write_calibration(tmp_path / "old.toml", table, 1, "H3")


@pytest.fixture
def bench_of(tmp_path):
    """Start beams on their own streams; close them."""
    benches = []

    def make(**settings):
        settings = {"camera_timeout_s": TIMEOUT_S, "timeout_s": TIMEOUT_S} | settings
        directory = tmp_path / f"bench{len(benches)}"
        directory.mkdir()
        benches.append(BeamBench(directory, **settings))
        return benches[-1].__enter__()

    yield make
    for bench in benches:
        bench.end()


def of(servers):
    return {"camera_endpoint": servers.camera.endpoint, "mds_endpoint": servers.mds.endpoint}


def in_force(bench):
    """What the loop was derived for, as far as the camera decides it."""
    parameters = bench.loop.parameters
    return parameters.frame_rate_hz, parameters.gain, bench.loop.slots.switch(d.PERIOD_NS)


def values(bench, *names):
    return tuple(bench.beam.read(names).values())


def test_a_beam_starts_with_what_the_camera_says(bench_of, servers, instrument):
    instrument.rate_hz, instrument.gain = 1600.0, 5.0
    bench = bench_of(**of(servers))
    assert in_force(bench) == (1600.0, 5.0, 625_000)
    assert values(bench, "frequency", "camera_fps", "camera_gain") == (1600.0, 1600.0, 5.0)
    assert values(bench, "camera_nbreadworeset", "camera_state") == (2, "up")


def test_a_change_on_the_cameras_side_is_followed_between_two_frames(
    bench_of, servers, instrument, old_calibration
):
    bench = bench_of(calibration_file=old_calibration, **of(servers))
    loop = bench.loop
    assert in_force(bench) == (1000.0, 10.0, 1_000_000)
    bench.beam.set_loops(lo=LoopState.CLOSED)
    rng = np.random.default_rng(5)
    frame = rng.integers(3000, 4000, bench.camera.shape).astype(np.int32)
    # Each frame's flux tells which dark was subtracted, and that it was one dark as a whole. The camera may
    # be asked between the change of its rate and that of its gain.
    fluxes: list[float] = []
    expected = {
        (rate, gain): float(np.sum(frame - (BIAS_ADU + DARK_ADU_S * gain / rate)))
        for rate in (1000.0, 500.0)
        for gain in (10.0, 12.0)
    }

    def step():
        before = loop.arrays.ring.write_index
        bench.camera.write(frame)
        wait_until(lambda: loop.arrays.ring.write_index > before, "a record of the frame")
        fluxes.append(float(bench.loop.arrays.ring.newest("flux")))
        return len(fluxes)

    step()
    instrument.set_rate(500.0)
    instrument.set_gain(12.0)
    wait_until(lambda: step() and in_force(bench) == (500.0, 12.0, 2_000_000), "the new settings in force")
    assert loop.slots.wait_adopted(loop.slots.version, TIMEOUT_S)
    for _ in range(5):
        step()
    assert bench.loop is loop, "the loop was built anew"
    assert bench.lost() == 0
    assert loop.counters[d.FRAMES] == len(fluxes)
    assert bench.beam.state().lo == LoopState.CLOSED
    np.testing.assert_allclose(fluxes[0], expected[1000.0, 10.0], rtol=1e-6)
    np.testing.assert_allclose(fluxes[-5:], expected[500.0, 12.0], rtol=1e-6)
    assert all(min(abs(flux - whole) for whole in expected.values()) < 1.0 for flux in fluxes)
    np.testing.assert_allclose(loop.parameters.dark, BIAS_ADU + DARK_ADU_S * 12.0 / 500.0)
    assert values(bench, "frequency", "camera_fps", "camera_gain") == (500.0, 500.0, 12.0)
    assert any("dark * 0.024" in note for note in loop.parameters.warnings)


def test_a_command_to_the_camera_is_followed(bench_of, servers, caplog):
    caplog.set_level("INFO")
    bench = bench_of(**of(servers))
    assert bench.ask("send_cam_command", "set fps 2000")["ok"]
    wait_until(lambda: in_force(bench) == (2000.0, 10.0, 500_000), "the new rate")
    bench.ask("send_cam_command", "set nbreadworeset 7")
    wait_until(lambda: values(bench, "camera_nbreadworeset") == (7,), "the new number of reads")
    assert "2000 Hz, gain 10 (before: 1000 Hz, gain 10)" in caplog.text


def test_a_calibration_loaded_later_gets_the_camera_of_that_moment(bench_of, servers, instrument):
    bench = bench_of(**of(servers))
    instrument.set_rate(800.0)
    wait_until(lambda: values(bench, "frequency") == (800.0,), "the new rate")
    bench.ask("readBDRConfig", str(bench.loop.parameters.config_file))
    assert in_force(bench)[0] == 800.0


def test_a_camera_server_that_is_absent_at_first_is_followed_when_it_comes(bench_of, instrument):
    endpoint = silent_endpoint()
    bench = bench_of(camera_endpoint=endpoint)
    assert in_force(bench)[0] == bench.beam.settings.loop.frame_rate_hz
    # Nobody has answered, but the request waits for a server until its time-out.
    assert values(bench, "camera_state", "camera_fps") == ("not asked yet", None)
    instrument.set_rate(640.0)
    with ControlServers(instrument, camera=endpoint, mds="tcp://127.0.0.1:0"):
        wait_until(lambda: in_force(bench)[0] == 640.0, "the camera's rate")
        assert values(bench, "camera_state") == ("up",)


def test_a_camera_server_that_goes_away_changes_nothing_but_its_state(bench_of, instrument):
    endpoint = silent_endpoint()
    instrument.set_rate(640.0)
    with ControlServers(instrument, camera=endpoint, mds="tcp://127.0.0.1:0"):
        bench = bench_of(camera_endpoint=endpoint, camera_timeout_s=0.05)
        wait_until(lambda: in_force(bench)[0] == 640.0, "the camera's rate")
    wait_until(lambda: values(bench, "camera_state")[0].startswith("no answer since 20"), "its end")
    assert in_force(bench)[0] == 640.0
    assert values(bench, "camera_fps") == (640.0,)
    bench.step(3)
    assert bench.lost() == 0


def test_all_beams_of_a_process_share_the_questions(bench_of, servers, instrument):
    benches = [bench_of(**of(servers)) for _ in range(2)]
    monitors = [thread.name for thread in threading.enumerate() if thread.name.startswith("camera monitor")]
    assert monitors == [f"camera monitor {servers.camera.endpoint}"]
    benches[0].ask("send_cam_command", "set gain 3")
    for bench in benches:
        wait_until(lambda bench=bench: in_force(bench)[1] == 3.0, "the new gain")


class HeldCamera:
    """A camera server that keeps its clients waiting until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def answer(self, request: bytes) -> bytes:
        assert self.go.wait(TIMEOUT_S)
        return b'"  900\\r\\nfli-cli>"'


def test_a_camera_that_does_not_answer_holds_up_nobody(bench_of, servers):
    """Neither the loops, nor other commands, nor the other beam."""
    camera = HeldCamera()
    camera.go.set()
    with RepServer(camera.answer) as server:
        peers = {"camera_endpoint": server.endpoint, "mds_endpoint": servers.mds.endpoint}
        one, two = bench_of(**peers), bench_of(**peers)
        camera.go.clear()
        answers = []
        asker = threading.Thread(
            target=lambda: answers.append(one.ask("send_cam_command", "set gain 900")), name="asker"
        )
        asker.start()
        wait_until(lambda: b'cli "set gain 900"' in server.requests or server.requests, "a question held")
        for bench in (one, two):
            bench.step(3)
            assert bench.ask("status")["frequency"] == 900.0
            bench.ask("close_all")
            bench.ask("open_all")
            assert bench.ask("send_mds_command", "read BMX1")["ok"]
        assert not answers
        camera.go.set()
        asker.join(TIMEOUT_S)
        assert answers[0]["ok"]


def test_a_beam_whose_loop_does_not_react_holds_up_no_other_beam(bench_of, servers, instrument, monkeypatch):
    stuck, other = bench_of(**of(servers)), bench_of(**of(servers))
    go = threading.Event()

    def update(parameters, **_):
        assert go.wait(TIMEOUT_S)
        return 0

    monkeypatch.setattr(stuck.loop, "update", update)
    instrument.set_rate(500.0)
    wait_until(lambda: in_force(other)[0] == 500.0, "the rate at the other beam")
    go.set()


def test_closing_does_not_wait_for_the_camera(tmp_path):
    """Not even while the beam is starting and has never heard of it."""
    camera = HeldCamera()
    with RepServer(camera.answer) as server:
        bench = BeamBench(tmp_path, camera_endpoint=server.endpoint, camera_timeout_s=60.0)
        try:
            bench.beam.start()
            wait_until(lambda: server.requests, "the first question")
        finally:
            bench.end()
        assert bench.beam.loop is None
        camera.go.set()


def test_what_an_operator_has_put_in_place_of_the_dark_stays(
    bench_of, servers, instrument, old_calibration, caplog
):
    bench = bench_of(calibration_file=old_calibration, **of(servers))
    measured = np.full(PIXELS, 1234.0)
    bench.loop.update(replace(bench.loop.parameters, dark=measured))
    instrument.set_rate(500.0)
    wait_until(lambda: in_force(bench)[0] == 500.0, "the new rate")
    np.testing.assert_array_equal(bench.loop.parameters.dark, measured)
    np.testing.assert_array_equal(bench.loop.slots.current("dark"), measured.astype(np.float32))
    assert "dark is not that of the calibration file: it stays as it is" in caplog.text


def test_a_change_during_a_long_command_waits_for_its_end(bench_of, servers, instrument):
    bench = bench_of(**of(servers))
    with bench.beam.exclusive:
        instrument.set_rate(500.0)
        wait_until(lambda: values(bench, "camera_fps") == (500.0,), "the camera's answer")
        assert in_force(bench)[0] == 1000.0
    wait_until(lambda: in_force(bench)[0] == 500.0, "the new rate")


def test_a_loop_that_refuses_is_asked_again(bench_of, servers, instrument, monkeypatch, caplog):
    bench = bench_of(**of(servers))
    update, refused = bench.loop.update, []

    def refuse_once(parameters, **more):
        if not refused:
            refused.append(1)
            raise StateError("the real-time loop did not react")
        return update(parameters, **more)

    monkeypatch.setattr(bench.loop, "update", refuse_once)
    instrument.set_rate(500.0)
    wait_until(lambda: in_force(bench)[0] == 500.0, "the new rate")
    assert caplog.text.count("the camera's settings were not taken over") == 1


def test_frames_at_another_rate_make_the_beam_ask(bench_of, servers, monkeypatch):
    bench = bench_of(**of(servers))
    monitor = camera_monitor(servers.camera.endpoint)
    try:
        asked = threading.Event()
        monkeypatch.setattr(monitor, "ask", asked.set)
        stop = threading.Event()

        def post():
            while not stop.wait(0.01):
                bench.camera.write(bench.frame())

        poster = threading.Thread(target=post, name="poster")
        poster.start()
        try:
            wait_until(asked.is_set, "the question")
        finally:
            stop.set()
            poster.join(TIMEOUT_S)
    finally:
        monitor.close()


def test_a_recording_goes_on_in_a_new_file_that_names_the_new_rate(bench_of, servers, instrument, tmp_path):
    settings = TelemetrySettings(directory=tmp_path / "recording", min_free_mb=0.0, chunk_s=0.01)
    bench = bench_of(telemetry=settings, **of(servers))
    bench.beam.record(True)
    bench.step(20)
    instrument.set_rate(500.0)
    wait_until(lambda: in_force(bench)[0] == 500.0, "the new rate")
    bench.step(20)
    bench.beam.record(False)
    wait_until(lambda: bench.beam.telemetry_status().frames_written == 40, "all frames in files")
    found = []
    for path in sorted((tmp_path / "recording").rglob("*.h5")):
        with TelemetryFile(path) as recording:
            found.append((recording.attributes["frame_rate_hz"], len(recording)))
    assert found == [(1000.0, 20), (500.0, 20)]


def test_a_beam_publishes_where_its_phase_mask_stands(bench_of, servers):
    bench = bench_of(**of(servers))
    wait_until(lambda: values(bench, "mask_state") == ("unnamed position",), "the position")
    bench.ask("send_mds_command", "moveabs BMX1 1234.5")
    wait_until(lambda: values(bench, "mask_x") == (1234.5,), "the new position")
    bench.ask("send_mds_command", "fpm_movetomask phasemask1 H4")
    wait_until(lambda: values(bench, "mask_state") == ("H4",), "the mask's name")


def test_without_an_mds_the_phase_mask_is_unknown(bench_of):
    bench = bench_of()
    assert values(bench, "mask_state", "mask_x", "mask_y") == ("unknown", None, None)


def test_what_a_follower_knows_before_it_has_started():
    follower = CameraFollower(None)  # type: ignore[arg-type]
    assert follower.state.text == "not asked yet"
    assert follower.for_loading() == {}
    follower.stop()
