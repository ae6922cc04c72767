"""The product as deployed: database, virtual instrument, device server; used, polled and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tango

from baldr_tango.rtc.scheduling import FOR_MANY, NICENESS
from baldr_tango.telemetry import TelemetryFile
from devices.processes import ChildProcess
from tests.harness import wait_for
from tests.system.product import Product, running_product

pytestmark = pytest.mark.system

COUNTERS = ("skipped_frames", "torn_frames", "limited_modes", "write_errors", "stream_reopens")
POLLS = 300
POLL_PERIOD_S = 0.01


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("product")) as running:
        yield running


def test_two_clients_poll_the_same_beam_while_its_loops_run(product: Product) -> None:
    device = product.device()
    before = {name: device.read_attribute(name).value for name in COUNTERS}
    frames = device.frames
    targets = {"zmq": product.config.for_beam(1).commander_endpoint, "tango": device.name()}
    targets["tango"] = f"tango://{product.deployment.tango_host}/{device.name()}"
    script = str(Path(__file__).with_name("pollers.py"))
    clients = [
        subprocess.Popen(
            [sys.executable, script, kind, target, str(POLLS), str(POLL_PERIOD_S)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for kind, target in targets.items()
    ]
    answers = [int(client.communicate(timeout=120)[0]) for client in clients]
    assert answers == [POLLS, POLLS]
    assert {name: device.read_attribute(name).value for name in COUNTERS} == before
    assert device.frames > frames
    assert device.TT_state == 1
    assert device.HO_state == 1


def threads_of(child: ChildProcess, policy: int) -> dict[int, str]:
    """Names of a process's threads with that scheduling, by number."""
    tasks = Path(f"/proc/{child.pid}/task")
    names = {int(task.name): (task / "comm").read_text().strip() for task in tasks.iterdir()}
    return {thread: name for thread, name in names.items() if os.sched_getscheduler(thread) == policy}


def test_loops_and_virtual_camera_stand_still_together_on_a_small_machine(product: Product) -> None:
    cpus = product.deployment.cpus
    if not cpus:
        pytest.skip("this machine has CPUs for all, or does not permit real-time priority")
    real_time = [
        thread for child in product.deployment.children for thread in threads_of(child, os.SCHED_FIFO)
    ]
    assert len(real_time) == len(product.config.beams) + 1
    assert {tuple(os.sched_getaffinity(task)) for task in real_time} == {cpus}


def test_threads_that_answer_go_before_other_programs(product: Product) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the permission to raise the nice level")
    others = threads_of(product.child("device server"), os.SCHED_OTHER)
    assert len(others) > 4
    levels = {thread: os.getpriority(os.PRIO_PROCESS, thread) for thread in others}
    alone = [thread for thread, name in others.items() if name.startswith("commander beam")]
    assert len(alone) == len(product.config.beams)
    assert {levels.pop(thread) for thread in alone} == {FOR_MANY}
    assert set(levels.values()) == {NICENESS}


def test_all_but_the_loops_stays_on_cpus_of_its_own(product: Product) -> None:
    cpus = product.deployment.cpus
    usable = os.sched_getaffinity(0)
    if not cpus or len(usable) < 2:
        pytest.skip("this machine has one CPU, or does not permit real-time priority")
    others = threads_of(product.child("device server"), os.SCHED_OTHER)
    (home,) = {tuple(os.sched_getaffinity(thread)) for thread in others}
    assert len(home) == 1
    assert not set(home) & set(cpus)


def test_commander_and_tango_see_and_move_the_same_beam(product: Product) -> None:
    device = product.device(2)
    with product.commander(2) as commander:
        assert json.loads(commander.ask('open_baldr_LO ""')) == {"TT_state": 0, "ok": True}
        assert device.TT_state == 0
        device.close_baldr_LO()
        status = json.loads(commander.ask("status"))
        assert status["TT_state"] == 1
        assert status["phasemask"] == "H3"
        assert "error" in json.loads(commander.ask("__ping__"))
        reply = json.loads(commander.ask('send_cam_command "fps raw"'))
        assert reply["ok"] is True
        assert "1000" in reply["reply"]


def test_kill_9_loses_nothing_that_was_flushed(product: Product) -> None:
    device = product.device()
    device.telem_on()
    wait_for(lambda: device.telemetry_frames >= 500, 60.0, "500 frames in the file")
    flushed, path = device.telemetry_frames, Path(device.telemetry_file)
    product.kill("device server")
    with TelemetryFile(path) as file:
        records = file.records(0, len(file))
        assert len(file) >= flushed
        assert np.all(np.diff(records["frame"]) == 1)
        assert np.all(records["LO_servo_mode"] == 1)
        assert file.attributes["beam"] == 1
        assert not file.is_finished
    product.start_server()
    assert product.device().TT_state == 1


def test_a_killed_instrument_is_told_and_recovered_from(product: Product) -> None:
    device = product.device()
    product.kill("virtual instrument")
    wait_for(lambda: device.State() == tango.DevState.ALARM, 10.0, "an alarm")
    assert "no camera frame" in device.Status()
    with product.commander() as commander:
        assert json.loads(commander.ask("status"))["TT_state"] == 1
        assert json.loads(commander.ask("open_all"))["ok"] is True
    frames = device.frames
    product.deployment.start_instrument()
    wait_for(lambda: device.frames > frames + 200, 60.0, "frames again")
    wait_for(lambda: device.State() == tango.DevState.STANDBY, 30.0, "the end of the alarm")
    device.close_all()
    assert device.State() == tango.DevState.RUNNING
    assert device.stream_reopens >= 1
