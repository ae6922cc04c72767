"""The product as deployed: database, virtual instrument, device server; used, polled and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango

from baldr_tango.configuration.runtime import (
    InstrumentSettings,
    RuntimeConfig,
    SimulatorSettings,
    TelemetrySettings,
)
from baldr_tango.telemetry import TelemetryFile
from devices.cli.calibrate import calibrate_beams
from devices.cli.deployment import Deployment
from devices.cli.isolation import isolated
from legacy_zmq.client import CommanderClient
from tests.harness import wait_for

pytestmark = pytest.mark.system

COUNTERS = ("skipped_frames", "torn_frames", "limited_modes", "write_errors", "stream_reopens")
POLLS = 300
POLL_PERIOD_S = 0.01


class Product:
    """A running deployment of beams 1 and 2 on the optical virtual instrument, loops closed."""

    def __init__(self, deployment: Deployment, config: RuntimeConfig) -> None:
        self.deployment = deployment
        self.config = config
        self.deployment.start_database("", 0)
        self.deployment.start_instrument()
        calibrate_beams(config, list(config.beams), lambda fraction, text: None)
        self.start_server()

    def start_server(self) -> None:
        """Start the device server and close the loops."""
        self.deployment.start_server()
        self.deployment.close_loops()

    def child(self, name: str) -> Any:
        """Process by its name."""
        return next(child for child in self.deployment.children if child.name == name)

    def kill(self, name: str) -> None:
        """End a process with SIGKILL and forget it."""
        child = self.child(name)
        self.deployment.forget(child)
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: not child.is_running, 10.0, f"the end of the {name}")

    def device(self, beam: int = 1) -> tango.DeviceProxy:
        """Tango client of a beam."""
        return tango.DeviceProxy(
            f"tango://{self.deployment.tango_host}/{self.config.for_beam(beam).tango_device}"
        )

    def commander(self, beam: int = 1) -> CommanderClient:
        """ZMQ client of a beam."""
        return CommanderClient(self.config.for_beam(beam).commander_endpoint, 5.0)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    state = tmp_path_factory.mktemp("product")
    plain = RuntimeConfig(
        file=state / "baldr.toml",
        instrument=InstrumentSettings(beams=(1, 2), state=state),
        simulator=SimulatorSettings(rate_hz=500.0),
        telemetry=replace(TelemetrySettings(), directory=state / "telemetry", chunk_s=0.1),
    )
    plain = replace(plain, calibration=replace(plain.calibration, file=state / "calibration" / "{beam}.toml"))
    with isolated(plain, state) as config, Deployment(config, lambda text: None) as deployment:
        yield Product(deployment, config)


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
        assert "500" in reply["reply"]


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
