"""Rows: from the start of the server's process to the first corrected frame, kernels in the cache."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np
import zmq

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.telemetry.reader import TelemetryFile, list_files
from benchmarks.deployed import commanders, prepared
from benchmarks.row import Row
from devices.cli.deployment import Deployment
from devices.placement import VARIABLE
from devices.processes import ChildProcess, Deadline

GOAL_S: Final = {False: 3.0, True: 6.0}
STARTS: Final = 3
_SERVER: Final = "import sys; from devices.server import baldr_server; sys.exit(baldr_server())"
_LONGEST_S: Final = 120.0
_RETRY_S: Final = 0.02
_LISTENING: Final = "0A"
_LOOK_S: Final = 0.2


def free_port() -> int:
    """Return a free TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_listening(port: int) -> bool:
    """True when somebody listens at a TCP port, without connecting to it.

    Connecting again and again to a free port of the loopback interface ends, sooner or later, in a socket
    that is connected to itself and keeps the server from its port.
    """
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[3] == _LISTENING and int(line.split()[1][-4:], 16) == port for line in lines)


def _close(endpoint: str, ended: threading.Event) -> None:
    """Ask a commander that may not be there yet to close both loops, until it does."""
    with zmq.Context() as context, context.socket(zmq.REQ) as asker:
        asker.setsockopt(zmq.LINGER, 0)
        asker.setsockopt(zmq.RCVTIMEO, int(_LONGEST_S * 1e3))
        while not _is_listening(int(endpoint.rpartition(":")[2])):
            if ended.wait(_RETRY_S):
                return
        asker.connect(endpoint)
        while not ended.is_set():
            asker.send_string("close_all")
            reply = json.loads(asker.recv())
            if not (isinstance(reply, dict) and reply.get("ok") is False):
                return
            ended.wait(_RETRY_S)


def _first_corrected_ns(config: RuntimeConfig, beam: int) -> int:
    """Wake-up of the first recorded frame with both loops closed [ns]; 0 while there is none."""
    for path in list_files(config.telemetry.directory, beam):
        with TelemetryFile(path) as file:
            data = file.records(fields=("time_ns", "LO_servo_mode", "HO_servo_mode"))
        closed = np.flatnonzero((data["LO_servo_mode"] == 1) & (data["HO_servo_mode"] == 1))
        if closed.size:
            return int(data["time_ns"][closed[0]])
    return 0


def _start(deployment: Deployment, with_database: bool) -> float:
    """Start the server and have its loops closed; return how long the slowest beam took [s]."""
    config, ended = deployment.config, threading.Event()
    for beam in config.beams:
        for path in list_files(config.telemetry.directory, beam):
            path.unlink()
    closers = [
        threading.Thread(target=_close, args=(endpoint, ended), daemon=True)
        for endpoint in commanders(deployment)
    ]
    for thread in closers:
        thread.start()
    environment = {VARIABLE: ",".join(map(str, deployment.cpus))} if deployment.cpus else {}
    where = ["--nodb", "--port", str(free_port())]
    if with_database:
        environment["TANGO_HOST"], where = deployment.tango_host, []
    command = [sys.executable, "-c", _SERVER, "--config", str(config.file), *where]
    began = time.monotonic_ns()
    child = ChildProcess("server", command, config.instrument.state / "log" / "start.log", environment)
    try:
        deadline = Deadline(_LONGEST_S, "no frame was corrected")
        found: list[int] = []
        while len(found) < len(config.beams):
            deadline.pause(child, _LOOK_S)
            found = [ns for beam in config.beams if (ns := _first_corrected_ns(config, beam))]
    finally:
        ended.set()
        child.stop()
    for thread in closers:
        thread.join()
    return (max(found) - began) * 1e-9


def rows() -> list[Row]:
    """Measure once, each after a start that is not counted: it fills the cache of compiled code."""
    found = []
    with prepared(record=True) as deployment:
        _start(deployment, False)
        for with_database, goal in GOAL_S.items():
            times = [_start(deployment, with_database) for _ in range(STARTS)]
            how = "with" if with_database else "without"
            found.append(
                Row(
                    f"start {how} the database to the first corrected frame",
                    goal,
                    float(np.median(times)),
                    "s",
                    {"quickest s": min(times), "slowest s": max(times)},
                    "from the start of the process baldr-server for four beams until all of them have"
                    " recorded a frame with both loops closed, as their commanders were asked from the"
                    " beginning; virtual instrument running, kernels in the cache;"
                    f" median of {STARTS} starts.",
                )
            )
    return found
