"""A device server in a process of its own, with streams, a camera and peers that a test holds in its hand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tango
import tomli_w
from numpy.typing import NDArray

from baldr_tango.configuration.calibration import load_calibration, write_calibration
from baldr_tango.streams import Stream
from tests.harness import remove_streams, stream_directory
from tests.system.zmq_servers import RepServer
from tests.unit.configuration_problem import GRID, PIXELS, SIDE, calibration_table

LONG_S = 120.0
"""Bound of waits that only end by failure; a cold compilation takes a while."""

FRAME_PERIOD_S = 0.005
EVENT_KINDS = (
    tango.EventType.CHANGE_EVENT,
    tango.EventType.ARCHIVE_EVENT,
    tango.EventType.ALARM_EVENT,
)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = LONG_S) -> Any:
    """Wait until `condition` is true and return what it returned; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not seen within {timeout_s} s: {what}"
        threading.Event().wait(0.005)


def free_port() -> int:
    """Return a TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Peer:
    """What a camera server or an MDS answers; `hold` makes it keep its clients waiting."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self.answers = answers
        self.go = threading.Event()
        self.go.set()

    def answer(self, request: bytes) -> bytes:
        """Answer one request, as soon as the peer is not held."""
        assert self.go.wait(LONG_S)
        return next((reply for key, reply in self.answers.items() if key in request), b'"?"')

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self.go.clear()

    def release(self) -> None:
        """Answer what waits, and everything from now on."""
        self.go.set()


class Camera:
    """Posts frames of a chosen content from a thread of its own."""

    def __init__(self, stream: Stream, frame: NDArray[np.int32]) -> None:
        self.stream = stream
        self.frame = frame
        self._running = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test camera")

    def begin(self) -> None:
        """Start the thread, posting."""
        self._running.set()
        self._thread.start()

    def silence(self) -> None:
        """Post no more frames."""
        self._running.clear()

    def resume(self) -> None:
        """Post frames again."""
        self._running.set()

    def end(self) -> None:
        """End the thread."""
        self._stop.set()
        self._running.set()
        self._thread.join(LONG_S)

    def _run(self) -> None:
        while not self._stop.wait(FRAME_PERIOD_S):
            if self._running.wait(FRAME_PERIOD_S):
                self.stream.write(self.frame)


class DeviceBench:
    """One beam behind Tango: a server process, its configuration, its streams, its neighbours.

    Parameters
    ----------
    directory : empty directory for configuration, state and logs.
    tables : changes of the runtime file, by table.
    """

    device_name = "test/baldr/1"

    def __init__(self, directory: Path, **tables: dict[str, Any]) -> None:
        self.directory = directory
        self.log_file = directory / "server.log"
        self.calibration_file = directory / "calibration.toml"
        self.runtime_file = directory / "baldr.toml"
        self.camera_peer = Peer({b"fps": b'"200.0\\r\\nfli-cli>"', b"gain": b'"10\\r\\nfli-cli>"'})
        self.mds_peer = Peer({b"is_on": b"True\n"})
        self._tables = tables
        self._servers = [RepServer(peer.answer) for peer in (self.camera_peer, self.mds_peer)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DeviceBench:
        for server in self._servers:
            server.__enter__()
        self.streams_directory = stream_directory("baldr_device")
        table = calibration_table()
        write_calibration(self.calibration_file, table, 1, "H3")
        grid = (round(GRID**0.5),) * 2
        self._camera_stream = Stream.create("baldr1", (SIDE, SIDE), np.int32, self.streams_directory)
        self.channel = Stream.create("dm1disp02", grid, np.float64, self.streams_directory)
        self._combined = Stream.create("dm1", grid, np.float64, self.streams_directory)
        self.camera = Camera(self._camera_stream, self.quiet_frame())
        self.camera.begin()
        self.write_configuration()
        self.start_server()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.camera_peer.release()
        self.mds_peer.release()
        try:
            self.stop_server()
        finally:
            self.camera.end()
            for stream in (self._camera_stream, self.channel, self._combined):
                stream.close()
            remove_streams(self.streams_directory)
            for server in self._servers:
                server.__exit__()

    def quiet_frame(self) -> NDArray[np.int32]:
        """Return the frame of a flat wavefront: dark plus reference."""
        calibration = load_calibration(self.calibration_file, 1, "H3")
        light = 60000.0 * np.asarray(calibration.I0).reshape(-1)
        return np.round(np.asarray(calibration.dark).reshape(-1) + light).astype(np.int32).reshape(SIDE, SIDE)

    def bumpy_frame(self) -> NDArray[np.int32]:
        """Return a frame that drives the high-order loop away."""
        bump = np.zeros(PIXELS)
        bump[PIXELS // 2 + SIDE // 2] = 3000.0
        return (self.quiet_frame() + bump.reshape(SIDE, SIDE)).astype(np.int32)

    def write_configuration(self, **tables: dict[str, Any]) -> None:
        """Write the runtime file, with changes beside those of the bench."""
        content: dict[str, dict[str, Any]] = {
            "instrument": {
                "beams": [1],
                "tango_prefix": "test/baldr",
                "state": str(self.directory / "state"),
            },
            "streams": {"directory": str(self.streams_directory), "silent_after_s": 0.3},
            "endpoints": {
                "camera": self._servers[0].endpoint,
                "mds": self._servers[1].endpoint,
                "commander_first_port": free_port(),
            },
            "calibration": {"file": str(self.calibration_file)},
            "loop": {"ring_frames": 256},
            # The bench shows a still picture.
            "limits": {"frozen_frames": 0},
            "realtime": {"priority": 0, "lock_memory": False},
            "telemetry": {"min_free_mb": 1.0},
        }
        for changes in (self._tables, tables):
            for name, table in changes.items():
                content[name] = {**content.get(name, {}), **table}
        self.runtime_file.write_text(tomli_w.dumps(content))

    def start_server(self, *options: str) -> None:
        """Start the server process and wait until the device answers; its beam may still be starting."""
        self.port = free_port()
        # Handed over by file, as a shell does: a pipe that nobody reads would block the server.
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "devices.server", "test", *options, "-nodb"),
                    *("-ORBendPoint", f"giop:tcp:127.0.0.1:{self.port}"),
                    *("-dlist", f"BaldrBeam::{self.device_name}"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**_without_baldr_variables(), "BALDR_CONFIG": str(self.runtime_file)},
            )
        wait_for(self._answers, "an answer of the device")

    def stop_server(self, number: int = signal.SIGTERM) -> int | None:
        """Stop the process with a signal; return its status."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            return process.wait(LONG_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def wait_for_end(self) -> int:
        """Wait until the process has ended by itself; return its status."""
        assert self._process is not None
        status = self._process.wait(LONG_S)
        self._process = None
        return status

    def connect(self, name: str = "") -> tango.DeviceProxy:
        """Return a client of the device, or of another one of the server."""
        return tango.DeviceProxy(f"tango://127.0.0.1:{self.port}/{name or self.device_name}#dbase=no")

    def wait_state(self, *states: tango.DevState) -> None:
        """Wait until the device is in one of these states."""
        device = self.connect()
        wait_for(lambda: device.state() in states, f"{states}: {self.log()}")

    def log(self) -> str:
        """What the server has written so far."""
        return self.log_file.read_text("utf-8", "replace")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            self.connect().ping()
        except tango.DevFailed:
            return False
        return True


def _without_baldr_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("BALDR_", "TANGO_"))}


class Events:
    """Collects the events of some attributes, of all kinds, and gives the subscriptions back at the end."""

    def __init__(self, device: tango.DeviceProxy, *names: str, kinds: tuple[Any, ...] = EVENT_KINDS) -> None:
        self._device = device
        self._received: dict[tuple[str, Any], list[tango.EventData]] = {}
        self._subscriptions = []
        for name in names:
            for kind in kinds:
                received = self._received.setdefault((name, kind), [])
                self._subscriptions.append(device.subscribe_event(name, kind, received.append))

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        for subscription in self._subscriptions:
            self._device.unsubscribe_event(subscription)

    def of(self, name: str, kind: Any = tango.EventType.CHANGE_EVENT) -> list[tango.DeviceAttribute]:
        """What was delivered so far, errors excluded."""
        return [event.attr_value for event in list(self._received[name, kind]) if not event.err]

    def errors(self) -> list[str]:
        """Errors that were delivered instead of values."""
        return [
            f"{name}: {event.errors[0].desc}"
            for (name, _), received in self._received.items()
            for event in list(received)
            if event.err
        ]

    def wait(self, name: str, accept: Callable[[Any], Any], kind: Any = tango.EventType.CHANGE_EVENT) -> Any:
        """Wait for an event whose value is accepted; return that value."""

        def found() -> list[Any]:
            return [entry for entry in self.of(name, kind) if accept(entry.value)]

        wait_for(found, f"{kind} of {name}; came {[entry.value for entry in self.of(name, kind)][-5:]}")
        return found()[0].value
