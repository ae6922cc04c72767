"""Several beams and the device of all of them, in servers of their own, with streams and a database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import tango
import tomli_w

from baldr_tango.configuration.calibration import load_calibration, write_calibration
from baldr_tango.streams import Stream
from devices.database import EmbeddedDatabase, open_database, register_devices
from tests.harness import remove_streams, stream_directory
from tests.system.device_bench import LONG_S, Camera, Peer, free_port, wait_for
from tests.system.zmq_servers import RepServer
from tests.unit.configuration_problem import GRID, SIDE, calibration_table

PREFIX = "test/baldr"
BEAMS = (1, 2, 3)


class InstrumentBench:
    """Beams 1 and 2 with the device of all beams in one server, beam 3 in another one.

    Parameters
    ----------
    directory : empty directory for configuration, state and logs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime_file = directory / "baldr.toml"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> InstrumentBench:
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            camera = self._stack.enter_context(
                RepServer(Peer({b"fps": b'"200.0\\r\\nfli-cli>"', b"gain": b'"10\\r\\nfli-cli>"'}).answer)
            )
            mds = self._stack.enter_context(RepServer(Peer({b"is_on": b"True\n"}).answer))
            self._write_configuration(camera.endpoint, mds.endpoint)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.processes):
            self.stop(name)
        self._stack.close()

    def _write_configuration(self, camera: str, mds: str) -> None:
        streams = stream_directory("baldr_instrument")
        self._stack.callback(remove_streams, streams)
        grid = (round(GRID**0.5),) * 2
        for beam in BEAMS:
            file = self.directory / f"calibration_{beam}.toml"
            write_calibration(file, calibration_table(), beam, "H3")
            calibration = load_calibration(file, beam, "H3")
            light = np.asarray(calibration.dark).reshape(-1) + 60000.0 * np.asarray(calibration.I0).reshape(
                -1
            )
            frame = np.round(light).astype(np.int32).reshape(SIDE, SIDE)
            for name in (f"dm{beam}disp02", f"dm{beam}"):
                self._stack.callback(Stream.create(name, grid, np.float64, streams).close)
            stream = Stream.create(f"baldr{beam}", (SIDE, SIDE), np.int32, streams)
            self._stack.callback(stream.close)
            source = Camera(stream, frame)
            source.begin()
            self._stack.callback(source.end)
        content = {
            "instrument": {
                "beams": list(BEAMS),
                "tango_prefix": PREFIX,
                "state": str(self.directory / "state"),
            },
            "streams": {"directory": str(streams), "silent_after_s": 0.5},
            "endpoints": {"camera": camera, "mds": mds},
            "calibration": {"file": str(self.directory / "calibration_{beam}.toml")},
            "loop": {"ring_frames": 256},
            "limits": {"frozen_frames": 0},  # the cameras of these tests show a still picture
            "realtime": {"priority": 0, "lock_memory": False},
            "telemetry": {"min_free_mb": 1.0},
        }
        self.runtime_file.write_text(tomli_w.dumps(content))

    def start_database(self) -> None:
        """Start a Tango database and register the devices of both servers."""
        database = EmbeddedDatabase(self.directory / "tango.sqlite", self.directory / "database.log")
        self._stack.callback(database.stop)
        self.tango_host = database.tango_host
        self.database = open_database(self.tango_host)
        register_devices(self.database, "BaldrRTC/main", "BaldrBeam", [f"{PREFIX}/1", f"{PREFIX}/2"])
        register_devices(self.database, "BaldrRTC/main", "BaldrInstrument", [f"{PREFIX}/all"])
        register_devices(self.database, "BaldrRTC/other", "BaldrBeam", [f"{PREFIX}/3"])

    def start(self, instance: str, *options: str, tango_host: str = "") -> None:
        """Start one of the servers; its beams may still be starting."""
        kept = {key: text for key, text in os.environ.items() if not key.startswith(("BALDR_", "TANGO_"))}
        given = {"BALDR_CONFIG": str(self.runtime_file), "BALDR_COMMANDER": "none"}
        if tango_host:
            given["TANGO_HOST"] = tango_host
        where = options or ("-ORBendPoint", f"giop:tcp:127.0.0.1:{free_port()}")
        with (self.directory / f"{instance}.log").open("wb") as log:
            self.processes[instance] = subprocess.Popen(
                [sys.executable, "-m", "devices.server", instance, *where],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**kept, **given},
            )

    def start_both(self) -> None:
        """Start both servers with the database and wait until every beam is ready."""
        for instance in ("main", "other"):
            self.start(instance, tango_host=self.tango_host)
        self.wait_states("STANDBY", "STANDBY", "STANDBY")

    def signal(self, instance: str, number: int) -> None:
        """Send a signal to one of the servers."""
        self.processes[instance].send_signal(number)

    def stop(self, instance: str) -> None:
        """End one of the servers."""
        process = self.processes.pop(instance)
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LONG_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self, instance: str) -> None:
        """End one of the servers with SIGKILL."""
        process = self.processes.pop(instance)
        process.kill()
        process.wait(LONG_S)

    def device(self, name: str | int = "all") -> tango.DeviceProxy:
        """Return a client of a device."""
        return tango.DeviceProxy(f"tango://{self.tango_host}/{PREFIX}/{name}")

    def states(self) -> list[str]:
        """Return the states of the beams that the device of all beams shows; none while it is not there."""
        try:
            return list(self.device().read_attribute("states").value)
        except tango.DevFailed:
            return []

    def wait_states(self, *states: str) -> None:
        """Wait until the device of all beams shows these states."""
        wait_for(lambda: self.states() == list(states), f"{states}; seen {self.states()}: {self.logs()}")

    def logs(self) -> str:
        """What the servers have written so far."""
        files = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {file.name}\n{file.read_text('utf-8', 'replace')[-3000:]}" for file in files)
