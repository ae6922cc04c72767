"""Virtual instruments of tests: runtime settings on streams of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from baldr_tango.configuration.runtime import (
    CalibrationSettings,
    InstrumentSettings,
    RealtimeSettings,
    RuntimeConfig,
    SimulatorSettings,
    StreamSettings,
)


def simulator_config(
    directory: Path, beams: tuple[int, ...] = (1,), calibration: Path | None = None, **simulator: Any
) -> RuntimeConfig:
    """Runtime configuration with streams in `directory`, without scheduling privileges.

    Further arguments are keys of the table ``[simulator]``.
    """
    return RuntimeConfig(
        file=directory / "baldr.toml",
        instrument=InstrumentSettings(beams=beams, state=directory / "state"),
        streams=replace(StreamSettings(), directory=str(directory)),
        calibration=CalibrationSettings(
            file=calibration or directory / "calibration" / "baldr_config_{beam}.toml"
        ),
        realtime=RealtimeSettings(priority=0, lock_memory=False),
        simulator=replace(SimulatorSettings(), **simulator),
    )
