"""Runtime configuration: the file ``baldr.toml`` as a whole, and what follows from it for one beam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from baldr_tango.configuration.consistency import check_settings, check_shared_names
from baldr_tango.configuration.document import absolute, read_document
from baldr_tango.configuration.placeholders import fill_name, fill_path
from baldr_tango.configuration.schema import (
    KeyRow,
    build,
    check_table,
    declared_keys,
    describe,
    fault,
    unknown,
)
from baldr_tango.configuration.settings import (
    TELEMETRY_DEFAULT_FIELDS,
    AutomationSettings,
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
from baldr_tango.configuration.shipped import shipped_config
from baldr_tango.errors import ConfigError

__all__ = [
    "TELEMETRY_DEFAULT_FIELDS",
    "AutomationSettings",
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
    "describe_runtime_keys",
    "load_runtime",
    "shipped_config",
]

TABLES: dict[str, type] = {
    "instrument": InstrumentSettings,
    "streams": StreamSettings,
    "endpoints": EndpointSettings,
    "calibration": CalibrationSettings,
    "loop": LoopSettings,
    "control_lo": ControlSettings,
    "control_ho": ControlSettings,
    "limits": LimitSettings,
    "automation": AutomationSettings,
    "realtime": RealtimeSettings,
    "telemetry": TelemetrySettings,
    "simulator": SimulatorSettings,
}
"""Tables of the runtime file, in the order of the manual."""

BEAM_TABLES = ("loop", "control_lo", "control_ho", "limits", "automation", "realtime", "telemetry")
"""Tables of which one beam may have its own keys, as ``[beam.N.loop]``."""


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
    automation: AutomationSettings = field(default_factory=AutomationSettings)
    realtime: RealtimeSettings = field(default_factory=RealtimeSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    camera_timeout_s: float = 3.0
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
    automation: AutomationSettings = field(default_factory=AutomationSettings)
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
        if beam not in self.instrument.beams:
            raise ConfigError(
                f"{self.file}: beam: found {beam}, expected one of {list(self.instrument.beams)}"
            )
        own = self.overrides.get(beam, {})
        here = self.file.parent
        state = fill_path(self.instrument.state, config=here, state=None, beam=None)

        def resolve(path: Path | str) -> Path:
            return fill_path(path, config=here, state=state, beam=beam)

        calibration = replace(self.calibration, **own.get("calibration", {}))
        telemetry = replace(self.telemetry, **own.get("telemetry", {}))
        streams = replace(
            self.streams,
            directory=str(resolve(self.streams.directory)) if self.streams.directory else "",
            camera=fill_name(self.streams.camera, beam),
            dm_command=fill_name(self.streams.dm_command, beam),
            dm_combined=fill_name(self.streams.dm_combined, beam),
        )
        port = self.endpoints.commander_first_port + beam - 1
        return BeamSettings(
            beam=beam,
            tango_device=f"{self.instrument.tango_prefix}/{beam}",
            state=state,
            streams=streams,
            commander_endpoint=f"tcp://{self.endpoints.commander_host}:{port}",
            camera_endpoint=self.endpoints.camera,
            mds_endpoint=self.endpoints.mds,
            timeout_s=self.endpoints.timeout_s,
            camera_timeout_s=self.endpoints.camera_timeout_s,
            calibration_file=resolve(calibration.file),
            mask=calibration.mask,
            mode=calibration.mode,
            loop=_with_basis_file(replace(self.loop, **own.get("loop", {})), resolve),
            control_lo=replace(self.control_lo, **own.get("control_lo", {})),
            control_ho=replace(self.control_ho, **own.get("control_ho", {})),
            limits=replace(self.limits, **own.get("limits", {})),
            automation=replace(self.automation, **own.get("automation", {})),
            realtime=replace(self.realtime, **own.get("realtime", {})),
            telemetry=replace(telemetry, directory=resolve(telemetry.directory)),
            runtime_file=self.file,
            runtime_sha256=self.sha256,
        )


def _with_basis_file(loop: LoopSettings, resolve: Callable[[str], Path]) -> LoopSettings:
    """Make the path of the basis file absolute, if there is one."""
    return replace(loop, basis_file=str(resolve(loop.basis_file))) if loop.basis_file else loop


def load_runtime(path: str | Path, *, state: Path | None = None) -> RuntimeConfig:
    """Load the runtime file, TOML or (by its suffix) JSON.

    Parameters
    ----------
    path : the file; relative paths inside it start at its directory.
    state : directory that takes the place of ``instrument.state``.

    Raises
    ------
    ConfigError
        For anything that is not declared in `TABLES`, of a wrong type or out of range; it names the
        file, the key, what was found and what was expected.
    """
    file = absolute(path)
    document, digest = read_document(file)
    for name in document:
        if name not in TABLES and name != "beam":
            raise unknown(file, "table", name, [*TABLES, "beam"])
    tables: dict[str, Any] = {}
    for name, settings in TABLES.items():
        tables[name] = build(file, name, document.get(name, {}), settings)
        check_settings(file, name, tables[name])
    if state is not None:
        tables["instrument"] = replace(tables["instrument"], state=absolute(state))
    config = RuntimeConfig(
        file=file, sha256=digest, overrides=_beam_tables(file, document.get("beam", {}), tables), **tables
    )
    check_shared_names(file, config.instrument, config.streams)
    return _resolved(config)


def _beam_tables(
    file: Path, document: object, tables: Mapping[str, Any]
) -> dict[int, dict[str, dict[str, Any]]]:
    """Check the tables ``[beam.N]``: keys of [calibration], and tables of `BEAM_TABLES`."""
    if not isinstance(document, Mapping):
        raise fault(file, "[beam]", document, "tables like [beam.1]")
    overrides = {}
    for number, content in document.items():
        name = f"beam.{number}"
        if number not in ("1", "2", "3", "4"):
            raise fault(file, f"[{name}]", number, "the number of a beam, 1 to 4")
        if not isinstance(content, Mapping):
            raise fault(file, f"[{name}]", content, "a table")
        own = {}
        calibration = {key: value for key, value in content.items() if key not in BEAM_TABLES}
        known = [*declared_keys(CalibrationSettings), *BEAM_TABLES]
        for key in calibration:
            if key not in known:
                raise unknown(file, "key", f"{name}.{key}", known)
        own["calibration"] = check_table(file, name, calibration, CalibrationSettings)
        check_settings(file, name, replace(tables["calibration"], **own["calibration"]))
        for table in BEAM_TABLES:
            if table in content:
                own[table] = check_table(file, f"{name}.{table}", content[table], TABLES[table])
                check_settings(file, f"{name}.{table}", replace(tables[table], **own[table]))
        overrides[int(number)] = own
    return overrides


def _resolved(config: RuntimeConfig) -> RuntimeConfig:
    """Fill in every placeholder but {beam}, and make paths absolute."""
    here = config.file.parent
    state = fill_path(config.instrument.state, config=here, state=None, beam=None)

    def resolve(path: Path | str) -> Path:
        return fill_path(path, config=here, state=state, beam=None)

    directory = str(resolve(config.streams.directory)) if config.streams.directory else ""
    return replace(
        config,
        instrument=replace(config.instrument, state=state),
        streams=replace(config.streams, directory=directory),
        calibration=replace(config.calibration, file=resolve(config.calibration.file)),
        loop=_with_basis_file(config.loop, resolve),
        telemetry=replace(config.telemetry, directory=resolve(config.telemetry.directory)),
        simulator=replace(config.simulator, cube_directory=resolve(config.simulator.cube_directory)),
    )


def describe_runtime_keys() -> list[KeyRow]:
    """Return one row per key of the runtime file, for the manual."""
    return [row for name, settings in TABLES.items() for row in describe(name, settings)]
