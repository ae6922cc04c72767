"""The existing clients' habits against a whole deployment, for an hour: no reply may be missed.

Beside four beams at 1 kHz with closed loops and telemetry there run, each as one process or thread with
its own socket that is **never** re-created:

- the MCS poller: about once a second, for each beam, ``__ping__`` (300 ms) and ``status`` (1.5 s);
- the back-end: ``close_baldr_LO ""`` and its like with beam 0 (all four, one after the other), 5 s;
- a live GUI: ``poll_telem_vector`` and ``poll_telem_scalar`` at 10 Hz, 1 s;
- a Tango client that reads a dozen attributes at 10 Hz.

``python benchmarks/endurance.py [--minutes 60] [--report FILE]`` starts everything itself, on its own
ports, streams and database, and prints a table; the exit status is 1 when a reply was missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tango
import zmq

from baldr_tango.configuration.runtime import InstrumentSettings, RuntimeConfig, TelemetrySettings
from devices.cli.calibrate import calibrate_beams
from devices.cli.deployment import Deployment
from devices.cli.isolation import isolated

MISSED_MS = {"__ping__": 300, "status": 1500}
STATUS_KEYS = 15


@dataclass
class Tally:
    """What one client saw."""

    client: str
    limit_ms: float
    asked: int = 0
    missed: int = 0
    wrong: int = 0
    times_ms: list[float] = field(default_factory=list)

    def row(self) -> str:
        """One line of the table."""
        p50, p99 = np.percentile(self.times_ms, [50, 99]) if self.times_ms else (0.0, 0.0)
        worst = max(self.times_ms, default=0.0)
        return (
            f"| {self.client} | {self.asked} | {self.missed} | {self.wrong} | {p50:.2f} | {p99:.2f} |"
            f" {worst:.1f} | {self.limit_ms:.0f} |"
        )


class Requester:
    """A REQ socket that is opened once; after a missed reply it is stuck, as those of the real clients."""

    def __init__(self, endpoint: str) -> None:
        self._socket = zmq.Context.instance().socket(zmq.REQ)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._is_stuck = False

    def ask(self, text: str, tally: Tally, is_right: Callable[[str], bool]) -> None:
        """Send one request and account for its reply."""
        tally.asked += 1
        if self._is_stuck:
            tally.missed += 1
            return
        began = time.monotonic()
        self._socket.send_string(text)
        if not self._socket.poll(tally.limit_ms):
            self._is_stuck = True
            tally.missed += 1
            return
        reply = self._socket.recv_string()
        tally.times_ms.append((time.monotonic() - began) * 1e3)
        tally.wrong += not is_right(reply)


def _has_status(reply: str) -> bool:
    return len(json.loads(reply)) >= STATUS_KEYS


def _is_ok(reply: str) -> bool:
    answer = json.loads(reply)
    return not (isinstance(answer, dict) and answer.get("ok") is False)


def mcs(endpoints: list[str], stop: threading.Event) -> list[Tally]:
    """Poll as the MCS client does."""
    ping, status = Tally("MCS ping", MISSED_MS["__ping__"]), Tally("MCS status", MISSED_MS["status"])
    sockets = [Requester(endpoint) for endpoint in endpoints]
    while not stop.wait(1.0):
        for socket in sockets:
            socket.ask("__ping__", ping, lambda reply: "error" in json.loads(reply))
            socket.ask("status", status, _has_status)
    return [ping, status]


def back_end(endpoints: list[str], stop: threading.Event) -> list[Tally]:
    """Command all four beams one after the other, as beam 0 of the back-end does."""
    tally = Tally("back-end", 5000)
    sockets = [Requester(endpoint) for endpoint in endpoints]
    names = ("open_baldr_HO", "close_baldr_HO", "open_baldr_LO", "close_baldr_LO")
    turn = 0
    while not stop.wait(5.0):
        for socket in sockets:
            socket.ask(f'{names[turn % len(names)]} ""', tally, _is_ok)
        turn += 1
    return [tally]


def gui(endpoint: str, stop: threading.Event) -> list[Tally]:
    """Poll telemetry as a live display does."""
    tally = Tally("live GUI", 1000)
    socket = Requester(endpoint)
    while not stop.wait(0.1):
        socket.ask('poll_telem_scalar "snr"', tally, _is_ok)
        socket.ask('poll_telem_vector "e_HO"', tally, _is_ok)
        socket.ask('poll_telem_vector "img"', tally, _is_ok)
    return [tally]


def tango_client(device: str, stop: threading.Event) -> list[Tally]:
    """Read attributes as a panel without events does."""
    tally = Tally("Tango panel", 3000)
    proxy = tango.DeviceProxy(device)
    names = ["State", "TT_state", "HO_state", "frame_rate", "strehl", "snr", "flux", "e_LO", "e_HO", "dm_map"]
    while not stop.wait(0.1):
        tally.asked += 1
        began = time.monotonic()
        try:
            read = proxy.read_attributes(names)
        except tango.DevFailed:
            tally.missed += 1
            continue
        tally.times_ms.append((time.monotonic() - began) * 1e3)
        tally.wrong += any(entry.has_failed for entry in read)
    return [tally]


def watch(config: RuntimeConfig, host: str, seconds: float) -> list[Tally]:
    """Let all clients loose for some time; return what they saw."""
    endpoints = [config.for_beam(beam).commander_endpoint for beam in config.beams]
    devices = [f"tango://{host}/{config.for_beam(beam).tango_device}" for beam in config.beams]
    stop = threading.Event()
    found: list[Tally] = []

    def keep(client: Callable[..., list[Tally]], target: object) -> threading.Thread:
        return threading.Thread(target=lambda: found.extend(client(target, stop)))

    threads = [keep(mcs, endpoints), keep(back_end, endpoints)]
    threads += [keep(gui, endpoint) for endpoint in endpoints[:2]]
    threads += [keep(tango_client, device) for device in devices[2:]]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return found


def loop_rows(config: RuntimeConfig, host: str) -> list[str]:
    """One line per beam: what its loop counted meanwhile."""
    rows = []
    for beam in config.beams:
        proxy = tango.DeviceProxy(f"tango://{host}/{config.for_beam(beam).tango_device}")
        names = [
            "frames",
            "lost_frames",
            "telemetry_frames",
            "telemetry_overruns",
            "latency_p50",
            "latency_p99",
        ]
        values = [entry.value for entry in proxy.read_attributes(names)]
        rows.append("| " + " | ".join([str(beam), *(f"{value:.6g}" for value in values)]) + " |")
    return rows


def report(tallies: list[Tally], loops: list[str], minutes: float) -> str:
    """Render the result."""
    lines = [
        "# Endurance: existing clients beside everything else",
        "",
        f"{minutes:g} minutes, four beams at 1 kHz, loops closed, telemetry on; {platform.platform()},",
        f"Python {platform.python_version()}. Made by `python benchmarks/endurance.py`.",
        "",
        "| client | asked | missed | wrong | p50 ms | p99 ms | worst ms | limit ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *[tally.row() for tally in tallies],
        "",
        "| beam | frames | lost | recorded | overruns | latency p50 us | p99 us |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *loops,
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Start everything, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--report", type=Path, help="file that the table is written to")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="baldr-endurance-") as name:
        state = Path(name)
        plain = RuntimeConfig(
            file=state / "baldr.toml",
            instrument=InstrumentSettings(state=state),
            telemetry=replace(
                TelemetrySettings(), directory=state / "telemetry", record=True, keep_files=2, file_mb=64.0
            ),
        )
        plain = replace(
            plain, calibration=replace(plain.calibration, file=state / "calibration" / "{beam}.toml")
        )
        with isolated(plain, state) as config, Deployment(config, lambda text: print(text)) as deployment:  # noqa: T201
            deployment.start_database("", 0)
            deployment.start_instrument()
            calibrate_beams(config, list(config.beams), lambda fraction, text: None)
            deployment.start_server()
            deployment.close_loops()
            tallies = watch(config, deployment.tango_host, options.minutes * 60.0)
            loops = loop_rows(config, deployment.tango_host)
    text = report(tallies, loops, options.minutes)
    sys.stdout.write(text)
    if options.report:
        options.report.write_text(text)
    return int(any(tally.missed or tally.wrong for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
