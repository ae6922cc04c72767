"""``baldr up``: a whole deployment with one command, beside another one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.system.device_bench import wait_for

pytestmark = pytest.mark.system

LONG_S = 300.0
"""Bound of a run that may have to compile everything first, on a busy machine."""

RUNTIME = """
[instrument]
beams = [1]
[realtime]
priority = 0
lock_memory = false
[simulator]
rate_hz = 1000.0
"""


@pytest.fixture(scope="module")
def runtime_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("up") / "baldr.toml"
    file.write_text(RUNTIME)
    return file


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose calibration the first run makes and the others find."""
    return tmp_path_factory.mktemp("state")


@contextmanager
def _up(runtime_file: Path, state: Path, output: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith(("BALDR_", "TANGO_"))
    }
    command = [sys.executable, "-c", "import sys; from devices.cli import main; sys.exit(main())", "up"]
    command += ["--config", str(runtime_file), "--state", str(state), "--isolated", *options]
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**environment, "PYTHONUNBUFFERED": "1"}
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from devices.cli import main; sys.exit(main())", *arguments]
    environment = {
        name: text for name, text in os.environ.items() if not name.startswith(("BALDR_", "TANGO_"))
    }
    return subprocess.run(
        command, capture_output=True, text=True, timeout=LONG_S, env=environment, check=False
    )


def test_a_first_run_calibrates_closes_the_loops_and_the_wavefront_gets_better(
    runtime_file: Path, state: Path, tmp_path: Path
) -> None:
    output = tmp_path / "up.log"
    with _up(runtime_file, state, output, "--seconds", "3", "--plain") as process:
        assert process.wait(LONG_S) == 0, output.read_text()
    text = output.read_text()
    steps = [
        "baldr up: starting",
        "Tango database: started",
        "virtual instrument ready",
        "calibration: none yet",
    ]
    steps += ["registered test", "1 beams ready", "how to reach it", "loops closed", "summary"]
    steps[4] = "registered asgard/baldr/1"
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert (state / "calibration" / "baldr_config_1.toml").is_file()
    summary = text[text.index("summary") :]
    before, after = map(float, re.search(r"wavefront (\d+)>(\d+) nm", summary).groups())
    worse, better = map(float, re.search(r"Strehl ([\d.]+)>([\d.]+)", summary).groups())
    assert after < 0.6 * before
    assert better > worse
    assert "closed TT+HO" in summary


def test_a_run_is_watched_and_ended_from_outside_and_leaves_nothing_behind(
    runtime_file: Path, state: Path, tmp_path: Path
) -> None:
    output = tmp_path / "up.log"
    with _up(runtime_file, state, output, "--plain") as process:
        wait_for(
            lambda: "loops closed" in output.read_text() or process.poll() is not None, "closed loops", LONG_S
        )
        assert process.poll() is None, output.read_text()
        assert "calibration: found" in output.read_text()
        children = _children(process.pid)
        assert len(children) >= 3
        shown = _run("status", "--config", str(runtime_file), "--state", str(state), "--json")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["1"]["HO_state"] == 1
        recording = _run("telemetry", "on", "--config", str(runtime_file), "--state", str(state))
        assert recording.returncode == 0, recording.stdout
        again = _run("up", "--config", str(runtime_file), "--state", str(state), "--isolated", "--once")
        assert again.returncode == 1
        assert str(process.pid) in again.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_S) == 0, output.read_text()
    assert "summary" in output.read_text()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert not (state / "run" / "up.json").exists()
    shared = re.search(r'directory = "(/dev/shm/[^"]+)"', (state / "run" / "baldr.toml").read_text())
    assert shared is not None
    assert not Path(shared.group(1)).exists()
    listed = _run("telemetry", "list", "--config", str(runtime_file), "--state", str(state))
    assert "baldr_beam1" in "".join(listed.stdout.split()).replace("│", "")


@pytest.mark.parametrize(
    "step", ["Tango database: started", "virtual instrument: starting", "device server: starting"]
)
def test_a_start_that_is_interrupted_leaves_nothing_behind(
    runtime_file: Path, state: Path, tmp_path: Path, step: str
) -> None:
    if not (state / "calibration" / "baldr_config_1.toml").exists():
        pytest.skip("needs the calibration of the first test of this module")
    output = tmp_path / "up.log"
    with _up(runtime_file, state, output, "--plain") as process:
        wait_for(lambda: step in output.read_text() or process.poll() is not None, step, LONG_S)
        children = _children(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_S) == 130, output.read_text()
    assert "interrupted: stopping everything" in output.read_text()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    shared = re.search(r'directory = "(/dev/shm/[^"]+)"', (state / "run" / "baldr.toml").read_text())
    assert shared is not None
    assert not Path(shared.group(1)).exists()


def test_two_runs_side_by_side(runtime_file: Path, state: Path, tmp_path: Path) -> None:
    other = tmp_path / "state"
    (other / "calibration").mkdir(parents=True)
    file = state / "calibration" / "baldr_config_1.toml"
    if not file.exists():
        pytest.skip("needs the calibration of the first test of this module")
    (other / "calibration" / file.name).write_bytes(file.read_bytes())
    outputs = [tmp_path / "one.log", tmp_path / "two.log"]
    options = ("--seconds", "2", "--plain")
    with (
        _up(runtime_file, state, outputs[0], *options) as one,
        _up(runtime_file, other, outputs[1], *options) as two,
    ):
        for process, output in zip((one, two), outputs, strict=True):
            assert process.wait(LONG_S) == 0, output.read_text()
    hosts = [re.search(r"TANGO_HOST=(\S+)", output.read_text()).group(1) for output in outputs]
    assert len(set(hosts)) == 2


def test_a_part_that_dies_is_told_with_its_last_words_and_ends_the_rest(
    runtime_file: Path, state: Path, tmp_path: Path
) -> None:
    output = tmp_path / "up.log"
    with _up(runtime_file, state, output, "--plain") as process:
        wait_for(
            lambda: "loops closed" in output.read_text() or process.poll() is not None, "closed loops", LONG_S
        )
        assert process.poll() is None, output.read_text()
        children = _children(process.pid)
        server = next(child for child in children if "devices.server" in child.cmdline())
        server.kill()
        assert process.wait(LONG_S) == 1
    text = output.read_text()
    assert "device server ended with status -9" in text
    assert str(state / "log" / "server.log") in text
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_virtual_instrument_that_dies_is_started_again_and_the_beam_goes_on(
    runtime_file: Path, state: Path, tmp_path: Path
) -> None:
    output = tmp_path / "up.log"

    def frame_rates() -> list[float]:
        return [float(rate) for rate in re.findall(r"beam 1 [A-Z]+ .* ([\d.]+) Hz", output.read_text())]

    with _up(runtime_file, state, output, "--plain") as process:
        wait_for(lambda: len(frame_rates()) > 2 or process.poll() is not None, "a beam that works", LONG_S)
        assert process.poll() is None, output.read_text()
        children = _children(process.pid)
        instrument = next(child for child in children if "devices.simulator_server" in child.cmdline())
        instrument.kill()
        wait_for(lambda: "it is started again" in output.read_text(), "word of its end", LONG_S)
        server_log = state / "log" / "server.log"
        wait_for(lambda: "opening the streams again" in server_log.read_text(), "new streams", LONG_S)
        shown = len(frame_rates())
        wait_for(lambda: frame_rates()[-1] > 100.0 and len(frame_rates()) > shown + 1, "new frames", LONG_S)
        assert process.poll() is None, output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_S) == 0, output.read_text()
    assert "closed TT+HO" in output.read_text().rpartition("summary")[2]


def test_a_wrong_calibration_is_told_by_the_beam_that_has_it(
    runtime_file: Path, state: Path, tmp_path: Path
) -> None:
    other = tmp_path / "state"
    (other / "calibration").mkdir(parents=True)
    (other / "calibration" / "baldr_config_1.toml").write_text("[beam1.H3.ctrl_model]\n")
    output = tmp_path / "up.log"
    with _up(runtime_file, other, output, "--plain") as process:
        assert process.wait(LONG_S) == 1
    assert re.search(r"baldr up: beam 1: FAULT: .*\n.*\n.*baldr_config_1\.toml", output.read_text())
