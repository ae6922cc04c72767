"""Device properties over the runtime file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from baldr_tango.errors import ConfigError
from devices.properties import beam_number, beam_settings, property_members

RUNTIME = """
[instrument]
beams = [1, 2]
state = "{config}/state"
[telemetry]
record = true
[realtime]
priority = 40
cpus = [1]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BALDR_CONFIG", "BALDR_STATE", "BALDR_COMMANDER", "BALDR_CPUS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "baldr.toml"
    path.write_text(RUNTIME)
    return path


def given(**values: Any) -> dict[str, Any]:
    """Property values as Tango hands them over: the defaults, and some that a site has set."""
    defaults = {name: entry.default_value for name, entry in property_members().items()}
    assert set(values) <= set(defaults)
    return {**defaults, **values}


def test_every_property_has_a_default_and_a_description() -> None:
    for name, entry in property_members().items():
        assert entry.default_value is not None, name
        assert len(entry.doc) > 20, name


def test_without_properties_the_runtime_file_decides(file: Path) -> None:
    settings = beam_settings("test/baldr/2", given(ConfigFile=str(file)))
    assert settings.beam == 2
    assert settings.tango_device == "test/baldr/2"
    assert settings.streams.camera == "baldr2"
    assert settings.realtime.priority == 40
    assert settings.realtime.cpus == (1,)
    assert settings.telemetry.record
    assert settings.commander_endpoint == "tcp://127.0.0.1:6663"
    assert settings.state == file.parent / "state"


def test_each_property_replaces_one_setting(file: Path) -> None:
    settings = beam_settings(
        "any/device/name",
        given(
            ConfigFile=str(file),
            StateDirectory=str(file.parent / "elsewhere"),
            Beam=1,
            CalibrationFile="calibration/one.toml",
            Mask="H5",
            CameraStream="cam",
            DmStream="channel",
            DmCombinedStream="mirror",
            StreamDirectory="/somewhere/shm",
            CommanderEndpoint="none",
            CameraEndpoint="tcp://10.0.0.1:1",
            MdsEndpoint="tcp://10.0.0.1:2",
            Cpus=[2, 3],
            Priority=0,
            Waiting="spin",
            Telemetry="off",
            TelemetryDirectory="/somewhere/telemetry",
        ),
    )
    assert settings.beam == 1
    assert settings.state == file.parent / "elsewhere"
    assert settings.calibration_file == file.parent / "calibration/one.toml", "relative to the runtime file"
    assert settings.mask == "H5"
    streams = settings.streams
    assert (streams.camera, streams.dm_command, streams.dm_combined) == ("cam", "channel", "mirror")
    assert streams.directory == "/somewhere/shm"
    assert settings.commander_endpoint == "none"
    assert (settings.camera_endpoint, settings.mds_endpoint) == ("tcp://10.0.0.1:1", "tcp://10.0.0.1:2")
    assert settings.realtime.waiting == "spin"
    assert (settings.realtime.cpus, settings.realtime.priority) == ((2, 3), 0)
    assert not settings.telemetry.record
    assert settings.telemetry.directory == Path("/somewhere/telemetry")


def test_the_environment_stands_in_for_absent_properties(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALDR_CONFIG", str(file))
    monkeypatch.setenv("BALDR_STATE", str(file.parent / "here"))
    monkeypatch.setenv("BALDR_COMMANDER", "tcp://127.0.0.1:700{beam}")
    settings = beam_settings("test/baldr/2", given())
    assert settings.runtime_file == file
    assert settings.state == file.parent / "here"
    assert settings.commander_endpoint == "tcp://127.0.0.1:7002"
    monkeypatch.setenv("BALDR_CPUS", "4, 5")
    assert beam_settings("test/baldr/2", given()).realtime.cpus == (4, 5)
    assert beam_settings("test/baldr/2", given(Cpus=[6])).realtime.cpus == (6,), "a property wins"
    monkeypatch.setenv("BALDR_CPUS", "all")
    with pytest.raises(ConfigError, match="BALDR_CPUS: found 'all', expected CPU numbers"):
        beam_settings("test/baldr/2", given())
    monkeypatch.delenv("BALDR_CPUS")
    own = beam_settings("test/baldr/2", given(CommanderEndpoint="tcp://127.0.0.1:1"))
    assert own.commander_endpoint == "tcp://127.0.0.1:1", "a property wins"


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"Priority": 100}, "Priority"),
        ({"Priority": -2}, "Priority"),
        ({"Waiting": "asleep"}, "Waiting"),
        ({"Cpus": [-1]}, "Cpus"),
        ({"Telemetry": "perhaps"}, "Telemetry"),
        ({"CommanderEndpoint": "6662"}, "CommanderEndpoint"),
        ({"CameraEndpoint": "none"}, "CameraEndpoint"),
        ({"Beam": 3}, "beam"),
        ({"Beam": -1}, "Beam"),
    ],
)
def test_a_wrong_property_is_an_error_that_names_it_and_what_was_found(
    file: Path, properties: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=word) as failure:
        beam_settings("test/baldr/1", given(ConfigFile=str(file), **properties))
    found = next(iter(properties.values()))
    assert str(found).strip("[]") in str(failure.value)


def test_the_device_name_ends_in_the_beam() -> None:
    assert beam_number("asgard/baldr/3", 0) == 3
    assert beam_number("asgard/baldr/beam-2", 0) == 2
    assert beam_number("asgard/baldr/x", 4) == 4
    with pytest.raises(ConfigError, match="asgard/baldr/x"):
        beam_number("asgard/baldr/x", 0)
