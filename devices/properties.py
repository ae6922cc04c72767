"""Device properties: which runtime file a beam uses, and what a site overrides of it.

An empty or absent property leaves the choice to the runtime file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tango.server import device_property

from baldr_tango.configuration.runtime import BeamSettings, load_runtime
from baldr_tango.configuration.schema import declared_keys
from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.errors import ConfigError
from devices.placement import cpus_from_environment
from devices.runtime_file import runtime_file

FROM_FILE: Final = -1
"""Value of a numeric property that leaves the choice to the runtime file."""

NO_COMMANDER: Final = "none"
"""Value of CommanderEndpoint without a commander."""


def _text(doc: str) -> device_property:
    return device_property(dtype=str, default_value="", doc=doc)


def property_members() -> dict[str, device_property]:
    """Return the properties of a beam's device, by name."""
    return {
        "ConfigFile": _text(
            "Runtime file baldr.toml (or JSON). Empty: the file named by the environment variable "
            "BALDR_CONFIG, else the one that ships with the product."
        ),
        "StateDirectory": _text(
            "Directory of everything that is written, in place of instrument.state of the runtime file. "
            "Empty: environment variable BALDR_STATE, else the runtime file."
        ),
        "Beam": device_property(
            dtype=int, default_value=0, doc="Number of the beam. 0: the last part of the device name."
        ),
        "CalibrationFile": _text("Calibration file or directory, in place of calibration.file."),
        "Mask": _text("Phase mask, in place of calibration.mask."),
        "CameraStream": _text("Shared-memory stream of camera frames, in place of streams.camera."),
        "DmStream": _text("Stream of the DM channel that the loop writes, in place of streams.dm_command."),
        "DmCombinedStream": _text("Stream that wakes the DM server, in place of streams.dm_combined."),
        "StreamDirectory": _text("Directory of the streams, in place of streams.directory."),
        "CommanderEndpoint": _text(
            "ZMQ endpoint of this beam's commander, for example tcp://127.0.0.1:6662; none: no commander. "
            "Empty: environment variable BALDR_COMMANDER ({beam} in it is replaced), else the runtime file."
        ),
        "CameraEndpoint": _text("ZMQ endpoint of the camera server, in place of endpoints.camera."),
        "MdsEndpoint": _text("ZMQ endpoint of the MDS, in place of endpoints.mds."),
        "Cpus": device_property(
            dtype=(int,),
            default_value=[],
            doc="CPUs of the real-time thread, in place of realtime.cpus. Empty: environment variable"
            " BALDR_CPUS, else from the runtime file.",
        ),
        "Priority": device_property(
            dtype=int,
            default_value=FROM_FILE,
            doc="SCHED_FIFO priority of the real-time thread (0: normal scheduling), in place of "
            "realtime.priority. -1: from the runtime file.",
        ),
        "Waiting": _text(
            "How the real-time thread waits for a frame, semaphore, spin or spin_then_wait, in place of"
            " realtime.waiting. Empty: from the runtime file."
        ),
        "Telemetry": _text("on or off: record from the start, in place of telemetry.record."),
        "TelemetryDirectory": _text("Directory of the telemetry files, in place of telemetry.directory."),
    }


def beam_number(device: str, beam: int) -> int:
    """Return the number of a device's beam: the property, else the digits that end the device name.

    Raises `ConfigError` when neither says it.
    """
    if beam > 0:
        return beam
    digits = re.search(r"(\d+)$", device)
    if beam < 0 or digits is None:
        raise ConfigError(
            f"{device}: property Beam: found {beam}, expected a beam number, or 0 and a device name that"
            " ends in it"
        )
    return int(digits.group(1))


def beam_settings(device: str, properties: Mapping[str, Any]) -> BeamSettings:
    """Load the runtime file and put the properties over it.

    Parameters
    ----------
    device : Tango name of the device.
    properties : values of `property_members` by name.

    Raises
    ------
    ConfigError
        The runtime file or a property is wrong; it names the file or the property.
    """
    file = runtime_file(properties["ConfigFile"])
    state = properties["StateDirectory"] or os.environ.get("BALDR_STATE")
    config = load_runtime(file, state=Path(state) if state else None)
    settings = config.for_beam(beam_number(device, properties["Beam"]))
    try:
        return _override(replace(settings, tango_device=device), properties)
    except ConfigError as error:
        raise ConfigError(f"{device}: {error}") from None


def _override(settings: BeamSettings, properties: Mapping[str, Any]) -> BeamSettings:
    here = settings.runtime_file.parent

    def given(**names: str) -> dict[str, Any]:
        return {key: properties[name] for key, name in names.items() if properties[name]}

    def path(name: str) -> dict[str, Any]:
        return {"directory": here / Path(properties[name]).expanduser()} if properties[name] else {}

    streams = replace(
        settings.streams,
        **given(
            camera="CameraStream",
            dm_command="DmStream",
            dm_combined="DmCombinedStream",
            directory="StreamDirectory",
        ),
    )
    realtime = replace(settings.realtime, **_realtime(properties))
    telemetry = replace(settings.telemetry, **_record(properties["Telemetry"]), **path("TelemetryDirectory"))
    commander = os.environ.get("BALDR_COMMANDER", "").replace("{beam}", str(settings.beam))
    settings = replace(
        settings,
        commander_endpoint=commander or settings.commander_endpoint,
        streams=streams,
        realtime=realtime,
        telemetry=telemetry,
    )
    settings = replace(
        settings,
        **given(
            mask="Mask",
            commander_endpoint="CommanderEndpoint",
            camera_endpoint="CameraEndpoint",
            mds_endpoint="MdsEndpoint",
        ),
    )
    if properties["CalibrationFile"]:
        file = here / Path(properties["CalibrationFile"]).expanduser()
        settings = replace(settings, calibration_file=file)
    _check_endpoint("CommanderEndpoint", settings.commander_endpoint)
    _check_endpoint("CameraEndpoint", settings.camera_endpoint)
    _check_endpoint("MdsEndpoint", settings.mds_endpoint)
    return settings


def _realtime(properties: Mapping[str, Any]) -> dict[str, Any]:
    priority, cpus = properties["Priority"], tuple(properties["Cpus"])
    if not FROM_FILE <= priority <= 99:
        raise ConfigError(f"property Priority: found {priority}, expected 0 to 99, or -1")
    if any(cpu < 0 for cpu in cpus):
        raise ConfigError(f"property Cpus: found {list(cpus)}, expected CPU numbers from 0")
    chosen: dict[str, Any] = {} if priority == FROM_FILE else {"priority": priority}
    waiting, allowed = properties["Waiting"].strip(), declared_keys(RealtimeSettings)["waiting"].choices
    if waiting:
        if waiting not in allowed:
            raise ConfigError(
                f"property Waiting: found {waiting!r}, expected {', '.join(allowed)}, or nothing"
            )
        chosen["waiting"] = waiting
    cpus = cpus or cpus_from_environment()
    return {**chosen, "cpus": cpus} if cpus else chosen


def _record(word: str) -> dict[str, Any]:
    try:
        return {"": {}, "on": {"record": True}, "off": {"record": False}}[word.strip().lower()]
    except KeyError:
        raise ConfigError(f"property Telemetry: found {word!r}, expected on, off or empty") from None


def _check_endpoint(name: str, endpoint: str) -> None:
    allowed = r"(tcp://[^\s/:]+:\d{1,5}|ipc://\S+)?"
    if not re.fullmatch(f"{allowed}|none" if name == "CommanderEndpoint" else allowed, endpoint):
        raise ConfigError(f"property {name}: found {endpoint!r}, expected for example tcp://127.0.0.1:6662")
