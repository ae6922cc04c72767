"""A real loop on real streams whose telemetry is recorded, frame by frame, as a replay needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.writer import TelemetryWriter
from tests.harness import LoopBench, wait_for
from tests.problem import random_frame


class RecordedLoop(LoopBench):
    """A `LoopBench` with a telemetry writer.

    Parameters
    ----------
    directory : of the telemetry files
    telemetry : settings that differ from: all fields, every image
    """

    def __init__(
        self,
        parameters: LoopParameters,
        directory: Path,
        telemetry: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(parameters, **settings)
        values = {
            "directory": directory,
            "fields": tuple(FIELD_BY_NAME),
            "image_every": 1,
            "chunk_s": 60.0,
            "min_free_mb": 0.0,
            **(telemetry or {}),
        }
        self.rng = np.random.default_rng(5)
        self.writer = TelemetryWriter(
            self.loop.arrays.ring, TelemetrySettings(**values), 1, journal=self.loop.journal
        )

    def __enter__(self) -> RecordedLoop:
        self.writer.start()
        super().__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        try:
            assert self.writer.stop(20.0), "the telemetry thread did not stop"
        finally:
            super().__exit__(*details)

    def record(self) -> None:
        """Record from the next frame on."""
        self.writer.record(True)
        wait_for(lambda: self.writer.status().file, 20.0, "a telemetry file")

    def flush(self) -> None:
        """Have everything so far on the disk."""
        assert self.writer.flush(20.0), self.writer.status().error

    def finish(self) -> Path:
        """End the recording; return its newest file."""
        path = Path(self.writer.status().file)
        self.writer.record(False)
        wait_for(lambda: self.writer.flush(20.0) and self.writer.status().frames_written, 20.0, "a file")
        return path

    def frames(self, count: int, flux: float = 60000.0) -> list[NDArray[np.int32]]:
        """Step the loop through random frames; return them."""
        frames = [random_frame(self.parameters, self.rng, flux) for _ in range(count)]
        for frame in frames:
            self.step(frame)
        return frames

    def change(self, **values: Any) -> None:
        """Put parameters in force and wait until the loop works with them."""
        version = self.loop.slots.change(timeout_s=10.0, **values)
        assert self.loop.slots.wait_adopted(version, 10.0), "the loop did not take over a change"
