"""The machine is measured: by a command over ZMQ and Tango, and without a server by ``baldr doctor``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tango import DevFailed, DevState

from legacy_zmq.client import CommanderClient
from tests.system.device_bench import LONG_S, DeviceBench, free_port, wait_for

pytestmark = pytest.mark.system

TIMES = ("wake_up_us", "compute_us", "response_us", "sleep_us")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[DeviceBench]:
    directory = tmp_path_factory.mktemp("fitness")
    with DeviceBench(directory, endpoints={"timeout_s": 0.3, "commander_first_port": port}) as started:
        wait_for(lambda: started.connect().state() != DevState.INIT, "a beam that has started")
        yield started


def _check(reply: dict[str, object]) -> None:
    assert reply["ok"] is True
    assert reply["fit"] == (not reply["reasons"])
    assert reply["frames"]
    for name in TIMES:
        assert set(reply[name]) == {"p50", "p99", "p99_9", "max"}


def test_self_test_over_tango_and_zmq(bench: DeviceBench, port: int) -> None:
    device = bench.connect()
    device.set_timeout_millis(60_000)
    device.open_all()
    before = bench.channel.counter(), device.frames
    _check(json.loads(device.self_test("[0.5]")))
    with CommanderClient(f"tcp://127.0.0.1:{port}", 60.0) as commander:
        _check(json.loads(commander.ask("self_test 0.3")))
        assert "expected 0.1 to 60" in json.loads(commander.ask("self_test 0"))["error"]
        device.force_close_baldr_LO()
        assert "a loop is closed" in json.loads(commander.ask("self_test"))["error"]
    with pytest.raises(DevFailed, match="a loop is closed"):
        device.self_test("")
    _check(json.loads(device.self_test("[0.3, true]")))
    device.open_all()
    assert device.frames > before[1], "the beam's own loop goes on"
    assert device.write_errors == 0


def test_the_server_has_taken_over_the_garbage_collector(bench: DeviceBench) -> None:
    device = bench.connect()
    wait_for(lambda: "objects set aside" in bench.log(), "objects set aside")

    def collected() -> bool:
        for _ in range(50):
            device.command_names()
        return device.gc_collections > 0

    wait_for(collected, "a collection")
    assert device.gc_pause_max > 0.0
    assert device.get_attribute_config("gc_pause_max").unit == "ms"


def _doctor(state: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", "import sys; from devices.cli import main; sys.exit(main())"),
            *("doctor", "--state", str(state), *options),
        ],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("TANGO_")}, **environment},
    )


def test_doctor_tells_what_to_change(tmp_path: Path) -> None:
    done = _doctor(tmp_path / "state", "--json", "--seconds", "0.2")
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert {entry["level"] for entry in found.values()} <= {"OK", "advice", "problem"}
    assert all(bool(entry["fix"]) == (entry["level"] != "OK") for entry in found.values())
    assert done.returncode == any(entry["level"] == "problem" for entry in found.values())
    assert {"real-time priority", "CPUs", "stalls", "compiled kernels", "Tango database"} <= set(found)
    assert found["state directory"]["level"] == "OK"
    assert not (tmp_path / "state").exists(), "it changes nothing"
    assert done.stderr == ""


def test_doctor_finds_a_database_that_does_not_answer(tmp_path: Path) -> None:
    done = _doctor(tmp_path, "--seconds", "0", TANGO_HOST=f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer" in " ".join(done.stdout.split())
    assert "stalls" not in done.stdout
