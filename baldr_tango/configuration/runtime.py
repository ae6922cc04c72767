"""Runtime configuration: the file ``baldr.toml`` as a whole, and what follows from it for one beam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baldr_tango.configuration.settings import (
    TELEMETRY_DEFAULT_FIELDS,
    CalibrationSettings,
    ControlSettings,
    EndpointSettings,
    InstrumentSettings,
    LimitSettings,
    LoopSettings,
    RealtimeSettings,
    SimulatorSettings,
    StreamSettings,
    TelemetrySettings,
)

__all__ = [
    "TELEMETRY_DEFAULT_FIELDS",
    "BeamSettings",
    "CalibrationSettings",
    "ControlSettings",
    "EndpointSettings",
    "InstrumentSettings",
    "LimitSettings",
    "LoopSettings",
    "RealtimeSettings",
    "RuntimeConfig",
    "SimulatorSettings",
    "StreamSettings",
    "TelemetrySettings",
]


@dataclass(frozen=True)
class BeamSettings:
    """Everything that concerns one beam, resolved: no placeholder is left, paths are absolute."""

    beam: int
    tango_device: str
    state: Path
    streams: StreamSettings
    commander_endpoint: str
    camera_endpoint: str
    mds_endpoint: str
    timeout_s: float
    calibration_file: Path
    mask: str
    mode: str
    loop: LoopSettings = field(default_factory=LoopSettings)
    control_lo: ControlSettings = field(default_factory=ControlSettings)
    control_ho: ControlSettings = field(default_factory=ControlSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    realtime: RealtimeSettings = field(default_factory=RealtimeSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    runtime_file: Path = Path()
    runtime_sha256: str = ""


@dataclass(frozen=True)
class RuntimeConfig:
    """The runtime file: one dataclass per table; `overrides` holds the tables ``[beam.N]``."""

    file: Path
    sha256: str = ""
    instrument: InstrumentSettings = field(default_factory=InstrumentSettings)
    streams: StreamSettings = field(default_factory=StreamSettings)
    endpoints: EndpointSettings = field(default_factory=EndpointSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    control_lo: ControlSettings = field(default_factory=ControlSettings)
    control_ho: ControlSettings = field(default_factory=ControlSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    realtime: RealtimeSettings = field(default_factory=RealtimeSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    simulator: SimulatorSettings = field(default_factory=SimulatorSettings)
    overrides: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def beams(self) -> tuple[int, ...]:
        """Numbers of the beams of this instrument."""
        return self.instrument.beams

    def for_beam(self, beam: int) -> BeamSettings:
        """Return the settings of one beam, everything resolved.

        Raises `ConfigError` when the instrument does not have this beam.
        """
        raise NotImplementedError
