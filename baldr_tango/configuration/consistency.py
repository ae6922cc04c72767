"""Checks of runtime settings that concern more than one key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from baldr_tango.configuration.placeholders import check_placeholders, fill_name
from baldr_tango.configuration.schema import Found, fault
from baldr_tango.configuration.settings import (
    CalibrationSettings,
    ControlSettings,
    EndpointSettings,
    InstrumentSettings,
    SimulatorSettings,
    StreamSettings,
    TelemetrySettings,
)

_ENDPOINT = re.compile(r"tcp://[^\s/:]+:\d{1,5}|tcp://\[[0-9a-fA-F:]+\]:\d{1,5}|(ipc|inproc)://\S+")


def check_instrument(file: Path, table: str, settings: InstrumentSettings) -> None:
    """Refuse repeated beams, and a Tango prefix that is not <domain>/<family>."""
    if len(set(settings.beams)) < len(settings.beams):
        raise fault(file, f"{table}.beams", list(settings.beams), "each beam once")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", settings.tango_prefix):
        raise fault(file, f"{table}.tango_prefix", settings.tango_prefix, "<domain>/<family>")
    if not re.fullmatch(r"[\w.-]+", settings.server_instance):
        raise fault(file, f"{table}.server_instance", settings.server_instance, "one word")
    check_placeholders(file, f"{table}.state", settings.state, ["config"])


def check_streams(file: Path, table: str, settings: StreamSettings) -> None:
    """Refuse names that are no stream names."""
    check_placeholders(file, f"{table}.directory", settings.directory, ["state", "config"])
    for name in ("camera", "dm_command", "dm_combined"):
        value = getattr(settings, name)
        check_placeholders(file, f"{table}.{name}", value, ["beam"])
        if not re.fullmatch(r"[\w.-]+", fill_name(value, 1)):
            raise fault(file, f"{table}.{name}", value, "a stream name (letters, digits, '_', '-', '.')")


def check_shared_names(file: Path, instrument: InstrumentSettings, streams: StreamSettings) -> None:
    """Refuse two streams of one name: beams must not write each other's mirror."""
    names = Counter(
        fill_name(getattr(streams, key), beam)
        for beam in instrument.beams
        for key in ("camera", "dm_command", "dm_combined")
    )
    for name, count in names.items():
        if count > 1:
            raise fault(
                file,
                "[streams]",
                Found(f"stream {name!r} {count} times"),
                f"another name for every stream of beams {list(instrument.beams)} (use {{beam}})",
            )


def check_endpoints(file: Path, table: str, settings: EndpointSettings) -> None:
    """Refuse what ZMQ could not connect to."""
    for name in ("camera", "mds", "dm_server"):
        value = getattr(settings, name)
        if not _ENDPOINT.fullmatch(value):
            raise fault(file, f"{table}.{name}", value, "an endpoint like 'tcp://127.0.0.1:6667'")
    if not re.fullmatch(r"[^\s/]+", settings.commander_host):
        raise fault(file, f"{table}.commander_host", settings.commander_host, "a host name or address")


def check_calibration(file: Path, table: str, settings: CalibrationSettings) -> None:
    """Refuse an empty mask and unknown placeholders."""
    check_placeholders(file, f"{table}.file", settings.file, ["state", "config", "beam"])
    if not settings.mask:
        raise fault(file, f"{table}.mask", settings.mask, "the name of a phase mask")


def check_control(file: Path, table: str, settings: ControlSettings) -> None:
    """Refuse bounds that leave no room, and lists of different lengths."""
    names = ("kp", "ki", "kd", "leak", "lower", "upper")
    lengths = {name: len(value) for name in names if isinstance(value := getattr(settings, name), tuple)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise fault(file, f"[{table}]", Found(found), "lists of one length (one number per mode)")
    if not np.all(np.less(settings.lower, settings.upper)):
        raise fault(file, f"{table}.lower", settings.lower, f"less than upper = {settings.upper}")


def check_telemetry(file: Path, table: str, settings: TelemetrySettings) -> None:
    """Refuse repeated fields and unknown placeholders."""
    check_placeholders(file, f"{table}.directory", settings.directory, ["state", "config", "beam"])
    if len(set(settings.fields)) < len(settings.fields):
        raise fault(file, f"{table}.fields", list(settings.fields), "each field once")


def check_simulator(file: Path, table: str, settings: SimulatorSettings) -> None:
    """Refuse a model that cannot be built."""
    if len(settings.vibration_hz) != len(settings.vibration_nm):
        found = Found(f"{len(settings.vibration_nm)} items")
        raise fault(
            file, f"{table}.vibration_nm", found, f"{len(settings.vibration_hz)} (one per vibration_hz)"
        )
    if settings.rate_hz == 0 and settings.plant != "linear":
        raise fault(file, f"{table}.rate_hz", settings.rate_hz, 'more than 0 (0 needs plant = "linear")')


CHECKS: dict[type, Callable[[Path, str, Any], None]] = {
    InstrumentSettings: check_instrument,
    StreamSettings: check_streams,
    EndpointSettings: check_endpoints,
    CalibrationSettings: check_calibration,
    ControlSettings: check_control,
    TelemetrySettings: check_telemetry,
    SimulatorSettings: check_simulator,
}


def check_settings(file: Path, table: str, settings: object) -> None:
    """Run the checks of one table, if it has any."""
    check = CHECKS.get(type(settings))
    if check is not None:
        check(file, table, settings)
