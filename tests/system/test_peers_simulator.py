"""``baldr-simulator`` as a process: its control servers change its frames, and it ends when told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from baldr_tango.peers import CameraClient, ControlClient
from baldr_tango.streams import Stream
from tests.harness import remove_streams, stream_directory
from tests.system.zmq_servers import TIMEOUT_S, RepServer, wait_until

pytestmark = pytest.mark.system

START_TIMEOUT_S = 300.0
"""Its kernels may have to be compiled first."""
COMMAND = [sys.executable, "-m", "legacy_zmq.instrument", "--rate", "200", "--seed", "3"]


@pytest.fixture
def config(tmp_path):
    """Write the runtime file of an instrument of one beam, with its own streams and ports."""
    streams = stream_directory("baldr_simulator")
    file = tmp_path / "baldr.toml"
    file.write_text(
        textwrap.dedent(f"""
        [instrument]
        beams = [2]
        state = "{tmp_path}/elsewhere"
        [streams]
        directory = "{streams}"
        [endpoints]
        camera = "tcp://127.0.0.1:0"
        mds = "tcp://127.0.0.1:0"
        dm_server = "tcp://127.0.0.1:0"
        """)
    )
    yield file
    remove_streams(streams)


@pytest.fixture
def start(config, tmp_path):
    """Start processes; end those that are left."""
    started = []

    def run(*options):
        process = subprocess.Popen(
            [*COMMAND, "--config", config, "--state", tmp_path / "state", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT_S)


def endpoints(process):
    """Wait for the line that says where the servers listen."""
    line = process.stdout.readline()
    if not line.startswith("ready"):
        pytest.fail(f"not ready: {line} {process.communicate(timeout=TIMEOUT_S)}")
    assert "beams 2 at 200 Hz" in line
    return re.findall(r"tcp://\S+[0-9]", line)


def streams_directory(config):
    return Path(re.search(r'directory = "(.*)"', config.read_text()).group(1))


def mean_flux(stream):
    """Mean of the next frame but one [ADU]; the frame under way is of the time before."""
    for _ in range(2):
        counter = stream.counter()
        wait_until(lambda counter=counter: stream.counter() > counter, "a new frame")
    return float(stream.read()[0].mean())


def test_the_control_servers_act_on_the_frames_and_sigterm_ends_it(start, config):
    process = start()
    camera_endpoint, mds_endpoint, _ = endpoints(process)
    stream = Stream.open("baldr2", streams_directory(config))
    with (
        CameraClient(camera_endpoint, TIMEOUT_S) as camera,
        ControlClient(mds_endpoint, timeout_s=TIMEOUT_S) as control,
    ):
        assert camera.fps() == 200.0
        control.set_turbulence(False)
        lit = mean_flux(stream)
        control.set_lamp(False)
        dark = mean_flux(stream)
        assert dark < lit - 10.0
        control.set_lamp(True)
        assert abs(mean_flux(stream) - lit) < 0.1 * (lit - dark)
        # The mask moves light out of the pupil's image; what is left is another image.
        with_mask = stream.read()[0].astype(float)
        control.move_mask(2, False)
        mean_flux(stream)
        assert abs(stream.read()[0] - with_mask).max() > 0.2 * with_mask.max() - 0.2 * dark
        assert camera.raw("set_fps 400.0") == "null"
        assert camera.fps() == 400.0
        assert camera.raw("stop") == "null"
        wait_until(lambda: camera.raw("status") == '"idle"', "the camera is idle")
    stream.close()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, errors) == (0, "", "")
    assert not list(streams_directory(config).glob("*.shm"))


def test_an_endpoint_in_use_is_reported_and_nothing_is_left(start, config):
    with RepServer(lambda request: request) as other:
        config.write_text(
            config.read_text().replace('mds = "tcp://127.0.0.1:0"', f'mds = "{other.endpoint}"')
        )
        process = start()
        out, errors = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode == 1
    assert out == ""
    assert f"virtual MDS: cannot listen at {other.endpoint}" in errors
    assert not list(streams_directory(config).glob("*.shm"))


def test_a_faulty_file_is_reported(start, config):
    config.write_text("[simulator]\nrate = 5\n")
    process = start()
    _, errors = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode == 1
    assert str(config) in errors


@pytest.mark.parametrize("option", [("--rate", "0"), ("--rate", "fast"), ("--seed", "-1")])
def test_wrong_usage_is_status_2(start, option):
    process = start(*option)
    _, errors = process.communicate(timeout=START_TIMEOUT_S)
    assert process.returncode == 2
    assert option[0] in errors


def test_it_ends_when_its_parent_is_killed(config, tmp_path):
    words = [*COMMAND, "--config", str(config), "--state", str(tmp_path), "--with-parent"]
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import subprocess, time; child = subprocess.Popen({words!r});"
            "print(child.pid, flush=True); time.sleep(1000)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline().startswith("ready")
    finally:
        parent.kill()
        parent.wait(TIMEOUT_S)
    try:
        wait_until(lambda: not is_alive(child), "the simulator has ended")
    finally:
        parent.stdout.close()
        if is_alive(child):
            os.kill(child, signal.SIGKILL)
    assert not list(streams_directory(config).glob("*.shm"))


def is_alive(pid):
    """Tell whether a process runs; one that ended but is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
