"""A whole deployment for tests: database, optical virtual instrument, device server, loops closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import tango

from baldr_tango.configuration.runtime import (
    InstrumentSettings,
    RuntimeConfig,
    SimulatorSettings,
    TelemetrySettings,
)
from devices.cli.calibrate import calibrate_beams
from devices.cli.deployment import Deployment
from devices.cli.isolation import isolated
from legacy_zmq.client import CommanderClient
from tests.harness import wait_for


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


@contextmanager
def running_product(
    state: Path, beams: tuple[int, ...] = (1, 2), rate_hz: float = 1000.0, mask: str = "H3"
) -> Iterator[Product]:
    """Start a deployment that meets nothing else on this computer; stop it at the end."""
    plain = RuntimeConfig(
        file=state / "baldr.toml",
        instrument=InstrumentSettings(beams=beams, state=state),
        simulator=SimulatorSettings(rate_hz=rate_hz),
        telemetry=replace(TelemetrySettings(), directory=state / "telemetry", chunk_s=0.1),
    )
    calibration = replace(plain.calibration, file=state / "calibration" / "{beam}.toml", mask=mask)
    with (
        isolated(replace(plain, calibration=calibration), state) as config,
        Deployment(config, lambda text: None) as deployment,
    ):
        yield Product(deployment, config)
