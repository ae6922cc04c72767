"""A real-time loop on real streams, stepped frame by frame."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.runtime import BeamSettings
from baldr_tango.configuration.settings import LoopSettings, RealtimeSettings, StreamSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.streams import Stream, semaphore_name

_numbers = itertools.count()
LONG_S = 300.0
"""Bound of waits that only end by failure: generous, because kernels may have to be compiled."""


def wait_for(condition: Callable[[], Any], timeout_s: float = LONG_S, what: str = "the condition") -> None:
    """Wait until `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s} s"
        time.sleep(0.0005)


def stream_directory(prefix: str = "baldr_loop") -> Path:
    """Make a directory for streams that no other test and no running instrument uses."""
    path = Path("/dev/shm") / f"{prefix}_{os.getpid()}_{next(_numbers)}"
    path.mkdir()
    return path


def remove_streams(directory: Path) -> None:
    """Remove a directory made by `stream_directory`, and the semaphores of its streams."""
    own = semaphore_name("x", 0, directory).strip("/").removesuffix("x_sem00")
    for file in Path("/dev/shm").glob(f"sem.{own}*"):
        file.unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def beam_settings(directory: Path, **changes: Any) -> BeamSettings:
    """Settings of beam 1 with streams in `directory`, without scheduling privileges."""
    values: dict[str, Any] = {
        "beam": 1,
        "tango_device": "test/baldr/1",
        "state": directory,
        "streams": StreamSettings(
            directory=str(directory), camera="baldr1", dm_command="dm1disp02", dm_combined="dm1"
        ),
        "commander_endpoint": "",
        "camera_endpoint": "",
        "mds_endpoint": "",
        "timeout_s": 1.0,
        "calibration_file": directory / "calibration.toml",
        "mask": "H3",
        "mode": "bright",
        "loop": LoopSettings(ring_frames=256),
        "realtime": RealtimeSettings(priority=0, lock_memory=False),
    }
    return BeamSettings(**{**values, **changes})


class LoopBench:
    """Streams, a loop, and a hand that posts frames one by one."""

    def __init__(self, parameters: LoopParameters, **settings: Any) -> None:
        self.parameters = parameters
        self.directory = stream_directory()
        self.settings = beam_settings(self.directory, **settings)
        self.loop = RealTimeLoop(parameters, self.settings, logging.getLogger("baldr.test"))
        self.create_streams()

    def create_streams(self) -> None:
        """Create the camera stream and the DM streams anew."""
        side = round(self.parameters.mode_shapes_lo.shape[0] ** 0.5)
        self.camera = Stream.create("baldr1", self.parameters.frame_shape, np.int32, self.directory)
        self.channel = Stream.create("dm1disp02", (side, side), np.float64, self.directory)
        self.combined = Stream.create("dm1", (side, side), np.float64, self.directory)

    def __enter__(self) -> LoopBench:
        self.loop.start()
        self.wait_running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            assert self.loop.stop(10.0), "the real-time thread did not stop"
        finally:
            for stream in (self.camera, self.channel, self.combined):
                stream.close()
            remove_streams(self.directory)

    def wait_running(self) -> None:
        """Wait until the compiled loop waits for frames."""
        version = self.loop.slots.version
        wait_for(lambda: self.loop.has_streams and self.loop.adopted >= version, what="a running loop")

    @property
    def records(self) -> int:
        """Frames recorded so far."""
        return self.loop.arrays.ring.write_index

    def counter(self, index: int) -> int:
        """One of the loop's counters."""
        return int(self.loop.counters[index])

    def post(self, frame: NDArray[np.int32], **how: Any) -> None:
        """Post a frame without waiting for anything."""
        self.camera.write(frame, **how)

    def step(self, frame: NDArray[np.int32]) -> NDArray[np.float64]:
        """Post a frame, wait until it is recorded, return the map in the DM channel (G,)."""
        before = self.records
        self.post(frame)
        wait_for(lambda: self.records > before, 20.0, f"a record of frame {self.camera.counter()}")
        return self.command()

    def command(self) -> NDArray[np.float64]:
        """Map in the DM channel (G,)."""
        return self.channel.read()[0].ravel()

    def newest(self, field: str) -> Any:
        """Newest telemetry value."""
        return self.loop.arrays.ring.newest(field)

    def switch(self, **switches: int) -> None:
        """Put switches in force and wait until the loop works with them."""
        columns = {getattr(d, name): value for name, value in switches.items()}
        version = self.loop.slots.change(switches=columns, timeout_s=10.0)
        assert self.loop.slots.wait_adopted(version, 10.0), "the loop did not take over a change"

    def set_loops(self, lo: bool, ho: bool) -> None:
        """Open or close the loops."""
        self.switch(CLOSE_LO=int(lo), CLOSE_HO=int(ho))
