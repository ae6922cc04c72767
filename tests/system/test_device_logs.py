"""Logs reach Python's console and Tango's targets, each line once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tango import DevState

from tests.system.device_bench import DeviceBench, wait_for

pytestmark = pytest.mark.system


@pytest.fixture
def bench(tmp_path: Path):
    with DeviceBench(tmp_path) as started:
        started.wait_state(DevState.STANDBY)
        yield started


def test_a_command_is_logged_once_here_and_once_there_also_after_init(bench: DeviceBench) -> None:
    target = bench.directory / "tango.log"
    admin = bench.connect("dserver/BaldrRTC/test")
    admin.AddLoggingTarget([bench.device_name, f"file::{target}"])
    admin.SetLoggingLevel([[4], [bench.device_name]])
    device = bench.connect()
    for count in (1, 2):
        device.close_all()
        wait_for(lambda count=count: target.read_text().count("command close_all") >= count, "Tango's log")
        assert target.read_text().count("command close_all") == count
        line = next(line for line in bench.log().splitlines() if "command close_all" in line)
        # Who asked: a client process.
        assert "from tango process" in line
        assert bench.log().count("command close_all") == count
        device.Init()
        bench.wait_state(DevState.STANDBY)


def test_with_option_v_the_console_is_tangos_and_lines_stand_there_once(tmp_path: Path) -> None:
    with DeviceBench(tmp_path) as bench:
        bench.stop_server()
        bench.start_server("-v4")
        bench.wait_state(DevState.STANDBY)
        bench.connect().close_all()
        wait_for(lambda: "command close_all" in bench.log(), "a line on the console")
        assert bench.log().count("command close_all") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(bench: DeviceBench, number: int) -> None:
    bench.connect().close_all()
    assert bench.stop_server(number) == 0
    assert "server ended" in bench.log()
    # The mirror is left flat.
    assert not bench.channel.read()[0].any()


def test_transitions_are_logged(bench: DeviceBench) -> None:
    device = bench.connect()
    device.pauseRTC()
    wait_for(lambda: "PAUSED" in bench.log(), "the transition in the log")
