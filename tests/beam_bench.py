"""A beam on real streams with a small calibration, stepped frame by frame."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.beam import Beam
from baldr_tango.commands import execute
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import RtcState
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.streams import Stream
from tests.harness import LONG_S, beam_settings, remove_streams, stream_directory, wait_for
from tests.problem import random_frame
from tests.unit.configuration_problem import GRID, SIDE, calibration_table

_NOBODY = "tcp://127.0.0.1:1"


class BeamBench:
    """A beam, its streams and a hand that posts frames.

    Parameters
    ----------
    directory : empty directory for calibration and telemetry
    settings : changes of `beam_settings`
    """

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.streams = stream_directory("baldr_beam")
        write_calibration(directory / "calibration.toml", calibration_table(), 1, "H3")
        changes: dict[str, Any] = {
            "calibration_file": directory / "calibration.toml",
            "camera_endpoint": _NOBODY,
            "mds_endpoint": _NOBODY,
            "timeout_s": 0.05,
            "telemetry": TelemetrySettings(directory=directory / "telemetry", min_free_mb=0.0),
        }
        self.beam = Beam(beam_settings(self.streams, **{**changes, **settings}))
        side = round(GRID**0.5)
        self.camera = Stream.create("baldr1", (SIDE, SIDE), np.int32, self.streams)
        self.channel = Stream.create("dm1disp02", (side, side), np.float64, self.streams)
        self.combined = Stream.create("dm1", (side, side), np.float64, self.streams)
        self.rng = np.random.default_rng(11)

    def __enter__(self) -> BeamBench:
        try:
            self.beam.start()
            self.wait_running()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close the beam and remove its streams."""
        self.beam.close()
        for stream in (self.camera, self.channel, self.combined):
            stream.close()
        remove_streams(self.streams)

    @property
    def loop(self) -> RealTimeLoop:
        """The loop of the configuration in force."""
        assert self.beam.loop is not None
        return self.beam.loop

    def wait_running(self) -> None:
        """Wait until the loop waits for frames."""
        assert self.beam.wait_until(lambda state: state.rtc == RtcState.RUNNING, LONG_S), self.beam.state()
        wait_for(lambda: self.loop.has_streams and self.loop.adopted >= self.loop.slots.version)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Give a command."""
        return execute(self.beam, name, list(arguments))

    def frame(self) -> NDArray[np.int32]:
        """A plausible frame, another one each time."""
        return random_frame(self.loop.parameters, self.rng)

    def step(self, count: int = 1) -> None:
        """Post frames, each after the one before has been recorded."""
        for _ in range(count):
            before = self.loop.arrays.ring.write_index
            self.camera.write(self.frame())
            deadline = time.monotonic() + LONG_S
            while self.loop.arrays.ring.write_index == before:
                assert time.monotonic() < deadline, "a frame was not recorded"

    def counter(self, index: int) -> int:
        """One of the loop's counters."""
        return int(self.loop.counters[index])

    def lost(self) -> int:
        """Frames lost so far."""
        return self.counter(d.LOST)
