"""The virtual instrument as a Tango device: a real server without a database, its servers, its streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tango

from baldr_tango.peers.connection import connection
from baldr_tango.streams import Stream
from tests.harness import remove_streams, stream_directory

pytestmark = pytest.mark.system

LONG_S = 300.0
NAME = "test/simulator/1"


def wait_for(condition, what, timeout_s=30.0):
    """Wait until `condition` is true and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not seen within {timeout_s} s: {what}"
        threading.Event().wait(0.01)
    return found


class Bench:
    """The server process, its device, its streams and its control servers."""

    def __init__(self, directory: Path) -> None:
        self.streams = stream_directory("baldr_simulator_device")
        file = directory / "baldr.toml"
        file.write_text(
            textwrap.dedent(f"""
            [instrument]
            beams = [1, 2]
            state = "{directory}/state"
            [streams]
            directory = "{self.streams}"
            [endpoints]
            camera = "tcp://127.0.0.1:0"
            mds = "tcp://127.0.0.1:0"
            dm_server = "tcp://127.0.0.1:0"
            [realtime]
            priority = 0
            [simulator]
            rate_hz = 200.0
            stage_speed_um_s = 400.0
            """)
        )
        command = [sys.executable, "-m", "devices.simulator_server", "test", "-nodb", "-dlist"]
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [*command, f"BaldrSimulator::{NAME}", "-ORBendPoint", "giop:tcp:127.0.0.1:"],
            env={**os.environ, "BALDR_CONFIG": str(file), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.device: tango.DeviceProxy = None
        self.places: dict[str, str] = {}

    def begin(self) -> None:
        """Wait for the line that says where everything is."""
        ior = ""
        for line in self.process.stdout:
            if line.startswith("ready:"):
                words = line.split()
                self.places = {
                    "camera": words[words.index("camera") + 2].strip(","),
                    "mds": words[words.index("MDS") + 1].strip(","),
                    "dm": words[words.index("DM") + 2],
                }
                break
        else:
            pytest.fail(f"the server ended: {(self.log.seek(0), self.log.read())[1]}")
        del ior
        port = listening_port(self.process.pid, {int(p.rsplit(":", 1)[1]) for p in self.places.values()})
        self.device = tango.DeviceProxy(f"tango://127.0.0.1:{port}/{NAME}#dbase=no")

    def ask(self, server: str, text: str) -> str:
        """Ask one of the control servers."""
        peer = connection(self.places[server], server)
        try:
            return peer.submit(text.encode(), 10.0, decode=lambda reply: reply.decode()).result()
        finally:
            peer.close()

    def mean(self, beam: int) -> float:
        """Mean of a frame that began after now [ADU]."""
        with Stream.open(f"baldr{beam}", self.streams) as camera:
            count = camera.counter()
            wait_for(lambda: camera.counter() > count + 2, "new frames")
            return float(camera.read()[0].mean())

    def end(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=20.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        self.log.close()


def listening_port(pid, others):
    """Return the TCP port of the ORB: the one at which the device answers a ping."""
    import psutil

    ports = {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.status == "LISTEN"}
    for port in sorted(ports - others):
        try:
            tango.DeviceProxy(f"tango://127.0.0.1:{port}/{NAME}#dbase=no").ping()
        except tango.DevFailed:
            continue
        return port
    raise AssertionError(f"no device at any of {ports}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    found = Bench(tmp_path_factory.mktemp("simulator"))
    try:
        found.begin()
        yield found
        found.end()
        assert found.process.returncode == 0
        assert not list(found.streams.glob("*.shm"))
    finally:
        found.end()
        remove_streams(found.streams)


def test_state_says_whether_frames_come(bench):
    assert bench.device.state() == tango.DevState.RUNNING
    assert bench.ask("camera", "stop") == "null"
    assert bench.device.state() == tango.DevState.STANDBY
    assert bench.device.silent
    bench.ask("camera", "fetch")
    assert bench.device.state() == tango.DevState.RUNNING
    ticks = bench.device.ticks
    wait_for(lambda: bench.device.ticks > ticks + 10, "ticks")


def test_the_strength_of_the_turbulence_is_that_of_the_frames_truth(bench):
    device = bench.device
    device.vibrations = np.zeros(0)
    device.tip_tilt_rms_nm = 0.0
    device.wind_speed = 50.0
    device.residual_rms_nm = 20.0
    wait_for(lambda: 8.0 < device.open_loop_rms_nm[0] < 35.0, "20 nm")
    device.residual_rms_nm = 200.0
    wait_for(lambda: 120.0 < device.open_loop_rms_nm[0] < 320.0, "200 nm")
    assert device.seeing > 0
    before = device.residual_rms_nm
    device.seeing = 2.0 * device.seeing
    assert device.residual_rms_nm == pytest.approx(before * 2 ** (5 / 6), rel=1e-6)
    device.turbulence = False
    wait_for(lambda: device.open_loop_rms_nm[1] < 0.1 and device.strehl[1] > 0.999, "a flat wavefront")
    assert np.nanmax(np.abs(device.opd_1)) < 0.1


def test_a_vibration_appears_in_the_wavefront(bench):
    device = bench.device
    device.residual_rms_nm = 0.0
    device.tip_tilt_rms_nm = 0.0
    device.turbulence = True
    device.vibrations = [17.0, 90.0]
    wait_for(lambda: device.open_loop_rms_nm == pytest.approx([90.0, 90.0], rel=0.05), "90 nm of tip/tilt")
    with pytest.raises(tango.DevFailed, match="pairs"):
        device.vibrations = [17.0]
    device.vibrations = np.zeros(0)
    device.turbulence = False


def test_a_star_of_one_magnitude_more_has_0_4_of_the_light(bench):
    device = bench.device
    light = bench.mean(1) - 1000.0
    device.magnitude = device.magnitude + 1.0
    assert bench.mean(1) - 1000.0 == pytest.approx(light * 10**-0.4, rel=0.03)
    device.magnitude = device.magnitude - 1.0
    device.lamp = False
    assert bench.mean(1) == pytest.approx(1000.0, abs=0.5)
    device.lamp = True


def test_masks_move_in_their_time(bench):
    assert bench.device.mask_1 == "H3"
    begin = float(bench.ask("mds", "read BMX1"))
    began = time.monotonic()
    bench.device.mask_1 = "out"
    assert bench.ask("mds", "state BMX1") == "MOVING\n"
    wait_for(lambda: begin < float(bench.ask("mds", "read BMX1")) < begin + 200.0, "a place on the way")
    wait_for(lambda: bench.ask("mds", "state BMX1") == "READY\n", "the end of the move")
    assert time.monotonic() - began >= 0.5  # 200 um at 400 um/s
    assert float(bench.ask("mds", "read BMX1")) == begin + 200.0
    assert bench.device.mask_1 == "out"
    bench.device.mask_1 = "H3"
    wait_for(lambda: bench.device.mask_1 == "H3", "the mask is back")
    with pytest.raises(tango.DevFailed, match="H9"):
        bench.device.mask_1 = "H9"
    with pytest.raises(tango.DevFailed, match="beam 4"):
        bench.device.mask_4 = "H3"


def test_a_reset_channel_moves_the_mirror_at_the_next_trigger(bench):
    with (
        Stream.open("dm2disp03", bench.streams, writable=True) as channel,
        Stream.open("dm2", bench.streams, writable=True) as combined,
    ):
        poke = np.zeros((12, 12))
        poke[5, 6] = 0.05
        channel.write(poke)
        combined.post(1)
        wait_for(lambda: bench.device.dm_map_2[5, 6] == pytest.approx(0.05), "the poke")
        assert np.nanmax(bench.device.dm_opd_2) > 200.0
        ticks = bench.device.ticks
        assert bench.ask("dm", "reset 2,3") == "null"
        wait_for(lambda: bench.device.ticks > ticks + 3, "ticks")
        assert not channel.read()[0].any()
        assert bench.device.dm_map_2[5, 6] == pytest.approx(0.05)
        combined.post(1)
        wait_for(lambda: bench.device.dm_map_2[5, 6] == 0.0, "the mirror is flat")


def test_streams_are_made_again_when_cropping_changes(bench):
    bench.device.quirk_recreate = "camera_server"
    with Stream.open("baldr1", bench.streams) as one, Stream.open("baldr2", bench.streams) as two:
        bench.ask("camera", "crop_mode 1")
        assert one.is_current() == "re-created (new inode)"
        assert two.is_current() == "re-created in place"
    bench.mean(1)
    bench.mean(2)
    bench.device.quirk_recreate = "off"
    with Stream.open("baldr1", bench.streams) as one:
        bench.ask("camera", "crop_mode 0")
        assert one.is_current() is None
    with pytest.raises(tango.DevFailed, match="sometimes"):
        bench.device.quirk_recreate = "sometimes"


def test_habits_of_the_camera_server(bench):
    bench.device.quirk_fps_junk = True
    assert "Error" in bench.ask("camera", 'cli "fps raw"')
    bench.device.quirk_fps_junk = False
    assert '"  200.000' in bench.ask("camera", 'cli "fps raw"')
    bench.device.quirk_nul_endings = True
    assert bench.ask("camera", "get_fps") == "200.0\0"
    assert bench.ask("dm", "get_nch") == "5\0"
    bench.device.quirk_nul_endings = False
    bench.device.quirk_cli_delay_s = 0.3
    began = time.monotonic()
    bench.ask("camera", 'cli "gain raw"')
    assert time.monotonic() - began >= 0.3
    bench.device.quirk_cli_delay_s = 0.0


def test_truth_comes_as_events(bench):
    came: list[np.ndarray] = []
    identity = bench.device.subscribe_event(
        "strehl",
        tango.EventType.CHANGE_EVENT,
        lambda event: came.append(None if event.err else event.attr_value.value),
    )
    try:
        bench.device.residual_rms_nm = 100.0
        bench.device.turbulence = True
        wait_for(lambda: any(v is not None and 0.3 < v[0] < 0.99 for v in came), f"a Strehl event: {came}")
    finally:
        bench.device.unsubscribe_event(identity)
        bench.device.turbulence = False


def test_read_out_and_saving_of_the_camera_server_are_told(bench):
    device = bench.device
    assert (device.reads, device.slopes, device.saving) == (1, False, False)
    bench.ask("camera", "ndmr_mode 12")
    assert (device.reads, device.slopes) == (12, True)
    bench.ask("camera", "ndmr_mode 2")
    assert (device.reads, device.slopes) == (1, False)
    bench.ask("camera", "save_mode 1")
    assert device.saving
    device.saving = False
    assert not device.saving


def test_masks_move_while_the_frames_go_on(bench):
    device = bench.device
    for mask in ("H5", "H3"):
        ticks = device.ticks
        device.mask_1 = mask
        wait_for(lambda mask=mask: device.mask_1 == mask, f"mask {mask}")
        wait_for(lambda ticks=ticks: device.ticks > ticks + 10, "ticks")
        assert device.state() == tango.DevState.RUNNING
