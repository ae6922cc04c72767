"""The processes of ``baldr up``, started in order and stopped in reverse order."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import tango

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import BackendError
from devices import simulator_server
from devices.cli.beams import BeamClient, clients
from devices.cli.compile import is_compiled
from devices.database import DEFAULT_PORT, EmbeddedDatabase, open_database, port_is_free, register_devices
from devices.failures import describe
from devices.placement import VARIABLE, refusal_of_priority, shared_cpu
from devices.processes import ChildProcess, Deadline, python_module
from devices.server import DEVICE_CLASS, INSTRUMENT_CLASS, SERVER, instrument_device

COMPILE_TIMEOUT_S: Final = 600.0
"""A cold compilation of all kernels on a small, busy machine."""

CLOSE_TIMEOUT_S: Final = 20.0
TELL_PERIOD_S: Final = 5.0
REVIVE_AFTER_S: Final = 3.0
"""Time without the virtual instrument: long enough to see what the beams say of it."""

SHORT_LIFE_S: Final = 10.0
READY: Final = (tango.DevState.STANDBY, tango.DevState.RUNNING, tango.DevState.ALARM, tango.DevState.ON)

Say = Callable[[str], None]


class Deployment:
    """Everything that a real deployment has, as child processes; use it in a `with` statement.

    Parameters
    ----------
    config : the runtime file.
    say : tells the operator one line.
    """

    def __init__(self, config: RuntimeConfig, say: Say) -> None:
        self.config = config
        self.tango_host = ""
        self.children: list[ChildProcess] = []
        self.beams: list[BeamClient] = []
        self._say = say
        self._stack = ExitStack()
        self._logs = config.instrument.state / "log"
        self._compiler: ChildProcess | None = None
        self._instrument: ChildProcess | None = None
        self._instrument_began = 0.0
        self._instrument_ended = 0.0
        self.cpus: tuple[int, ...] = ()
        """Where the loops run together with the virtual camera; empty: the servers decide."""

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise `BackendError` when one of the processes has ended."""
        for child in self.children:
            child.check()

    def compile_ahead(self) -> None:
        """Compile the loop beside the next steps, if it was not compiled yet; `start_server` waits for it."""
        if not is_compiled():
            self._say(f"loop: compiling (once), log {self._logs / 'compile.log'}")
            command = [sys.executable, "-c", "import sys; from devices.cli import main; sys.exit(main())"]
            self._compiler = ChildProcess("compiler", [*command, "compile"], self._logs / "compile.log")
            self._stack.callback(self._compiler.stop)

    def _wait_for_compiler(self) -> None:
        """Wait until the loop is compiled: the server would do the same work again."""
        compiler = self._compiler
        if compiler is not None and compiler.is_running:
            self._say("device server: waits for the loop to be compiled")
            deadline = Deadline(COMPILE_TIMEOUT_S, "the loop was not compiled")
            while compiler.is_running:
                self.check()
                deadline.pause()

    def start_database(self, tango_host: str, port: int | None) -> None:
        """Use the Tango database at `tango_host`, or start one when that is empty.

        Parameters
        ----------
        port : of the embedded database; None: the usual one if that is free.
        """
        if tango_host:
            open_database(tango_host)
            self.tango_host = tango_host
            self._say(f"Tango database: {tango_host}")
            return
        if port is None:
            port = DEFAULT_PORT if port_is_free(DEFAULT_PORT) else 0
        state = self.config.instrument.state
        database = EmbeddedDatabase(state / "tango" / "database.sqlite", self._logs / "database.log", port)
        self._keep(database.process)
        self.tango_host = database.tango_host
        self._say(f"Tango database: started at {self.tango_host} ({database.file})")

    def start_instrument(self) -> None:
        """Start the virtual instrument and wait until it posts frames."""
        instance = self.config.instrument.server_instance
        server = f"{simulator_server.SERVER}/{instance}"
        device = simulator_server.simulator_device(self.config)
        database = open_database(self.tango_host)
        self._place()
        for added in register_devices(database, server, simulator_server.DEVICE_CLASS, [device]):
            self._say(f"registered {added} for {server}")
        child = self._launch_instrument()
        self._wait(child, "the virtual instrument was not ready", lambda: _said(child, "ready:") != "")
        self._say(f"virtual instrument {_said(child, 'ready:')}")
        self._say(f"virtual instrument: device {device}")

    def _launch_instrument(self) -> ChildProcess:
        instance = self.config.instrument.server_instance
        command = python_module("devices.simulator_server", instance, "-ORBendPoint", "giop:tcp:127.0.0.1:")
        child = self._start("virtual instrument", "simulator.log", command, self._environment())
        self._instrument, self._instrument_began = child, time.monotonic()
        return child

    def revive_instrument(self) -> None:
        """Start the virtual instrument again some seconds after it has ended; to be called now and then.

        Raises
        ------
        BackendError : it ended within seconds of its start, and would again.
        """
        child, now = self._instrument, time.monotonic()
        if child is None or child.is_running:
            return
        if child in self.children:
            if now - self._instrument_began < SHORT_LIFE_S:
                child.check()
            self.forget(child)
            self._instrument_ended = now
            self._say(f"virtual instrument: ended; it is started again in {REVIVE_AFTER_S:g} s")
        if now - self._instrument_ended > REVIVE_AFTER_S:
            self._launch_instrument()

    def start_server(self) -> None:
        """Register the devices that are missing, start the device server, wait for its beams."""
        instance = self.config.instrument.server_instance
        devices = [self.config.for_beam(beam).tango_device for beam in self.config.beams]
        server = f"{SERVER}/{instance}"
        database = open_database(self.tango_host)
        added = register_devices(database, server, DEVICE_CLASS, devices)
        added += register_devices(database, server, INSTRUMENT_CLASS, [instrument_device(self.config)])
        if added:
            self._say(f"registered {', '.join(added)} for {server}")
        command = python_module("devices.server", instance, "-ORBendPoint", "giop:tcp:127.0.0.1:")
        self._wait_for_compiler()
        child = self._start("device server", "server.log", command, self._environment())
        self.beams = clients(self.config, self.tango_host)
        self._wait(child, "the beams were not ready", self._beams_are_ready, self._what_beams_do)
        self._say(f"device server {server}: {len(devices)} beams ready")

    def close_loops(self) -> None:
        """Close both loops of every beam."""
        for beam in self.beams:
            try:
                beam.run("close_all")
            except tango.DevFailed as error:
                raise BackendError(f"beam {beam.beam}: close_all: {describe(error)}") from None
        deadline = Deadline(CLOSE_TIMEOUT_S, "the loops did not close")
        while not all(_is_closed(beam) for beam in self.beams):
            self.check()
            deadline.pause()

    def open_loops(self) -> None:
        """Open all loops, as far as the beams answer."""
        for beam in self.beams:
            try:
                beam.run("open_all")
            except tango.DevFailed as error:
                self._say(f"beam {beam.beam}: open_all: {describe(error)}")

    def _beams_are_ready(self) -> bool:
        reports = [beam.report(()) for beam in self.beams]
        for report in reports:
            if report.state == tango.DevState.FAULT:
                raise BackendError(f"beam {report.beam}: {report.status}")
        return all(report.state in READY for report in reports)

    def _what_beams_do(self) -> str:
        reports = [beam.report(()) for beam in self.beams]
        steps = (r.status.strip().splitlines()[-1] if r.is_reachable else "server starts" for r in reports)
        return "; ".join(f"beam {r.beam}: {step}" for r, step in zip(reports, steps, strict=True))

    def _place(self) -> None:
        """Choose where the loops run beside the virtual camera, unless the runtime file says it."""
        allowed, priority = os.sched_getaffinity(0), self.config.realtime.priority
        self.cpus = shared_cpu(self.config, allowed, not refusal_of_priority(priority))
        if self.cpus != self.config.realtime.cpus:
            self._say(f"loops and virtual camera: CPU {self.cpus[0]}, together (realtime.cpus is empty)")

    def _environment(self) -> dict[str, str]:
        cpus = {VARIABLE: ",".join(map(str, self.cpus))} if self.cpus else {}
        return cpus | {
            "TANGO_HOST": self.tango_host,
            "BALDR_CONFIG": str(self.config.file),
            "BALDR_STATE": str(self.config.instrument.state),
        }

    def _start(
        self, name: str, log: str, command: Sequence[str], environment: dict[str, str] | None = None
    ) -> ChildProcess:
        self._say(f"{name}: starting, log {self._logs / log}")
        child = ChildProcess(name, command, self._logs / log, environment)
        return self._keep(child)

    def _keep(self, child: ChildProcess) -> ChildProcess:
        self.children.append(child)
        self._stack.callback(self._stop, child)
        return child

    def forget(self, child: ChildProcess) -> None:
        """No longer expect a process to run: its end is not a failure of the deployment."""
        self.children.remove(child)

    def _stop(self, child: ChildProcess) -> None:
        if child in self.children:
            self.children.remove(child)
        if not child.stop():
            self._say(f"{child.name} did not stop in time and was killed")

    def _wait(
        self,
        child: ChildProcess,
        failure: str,
        is_ready: Callable[[], bool],
        progress: Callable[[], str] = lambda: "compiling",
    ) -> None:
        """Wait for a process, with a word about it every few seconds."""
        deadline = Deadline(COMPILE_TIMEOUT_S, failure)
        begin = told = time.monotonic()
        while not is_ready():
            if time.monotonic() - told > TELL_PERIOD_S:
                told = time.monotonic()
                self._say(f"  {told - begin:3.0f} s: {progress()}")
            self.check()
            deadline.pause(child, 0.1)


def _said(child: ChildProcess, word: str) -> str:
    """Return the line of the virtual instrument that begins with `word`; raise when it could not start."""
    for line in child.tail(20).splitlines():
        if line.strip().startswith("fault:"):
            raise BackendError(f"virtual instrument: {line.strip().removeprefix('fault:').strip()}")
        if line.strip().startswith(word):
            return line.strip()
    return ""


def missing_calibrations(config: RuntimeConfig) -> dict[int, Path]:
    """Return the calibration files that do not exist yet, by beam."""
    files = {beam: config.for_beam(beam).calibration_file for beam in config.beams}
    return {beam: file for beam, file in files.items() if not file.exists()}


def _is_closed(beam: BeamClient) -> bool:
    report = beam.report(("TT_state", "HO_state"))
    return report.values.get("TT_state") == 1 and report.values.get("HO_state") == 1
