"""Tango attributes and commands are derived from the product's tables, completely and without clashes."""

from __future__ import annotations

import enum
import math
from typing import Any

import numpy as np
import pytest
import tango
from tango import CmdArgType, DevFailed
from tango.server import Device

from baldr_tango.commands import COMMANDS
from baldr_tango.errors import BackendError, BaldrError, ConfigError, RequestError, StateError
from baldr_tango.interface import VALUES, CommandTable, Value, command
from devices.attributes import attribute_members, attribute_options, neutral, on_the_wire
from devices.commands import (
    arguments_of,
    command_members,
    describe_input,
    input_type,
    output_type,
    reply,
)
from devices.failures import raise_failure
from devices.properties import property_members
from devices.text import json_text, tango_text

BY_NAME = {value.name: value for value in VALUES}


def test_no_name_hides_a_member_of_a_tango_device() -> None:
    members = set(dir(Device))
    for names in (attribute_members(), command_members(COMMANDS), property_members()):
        assert not members & set(names)
    lower = [entry.tango_name.lower() for entry in COMMANDS]
    assert len(set(lower)) == len(lower), "Tango names do not tell capitals from small letters"
    assert not {"state", "status", "init"} & set(lower)
    attributes = [value.name.lower() for value in VALUES]
    assert len(set(attributes)) == len(attributes)
    assert not {"state", "status"} & set(attributes)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_every_attribute_declares_all_three_kinds_of_events(value: Value) -> None:
    options = attribute_options(value)
    assert options["change_event_implemented"]
    assert options["alarm_event_implemented"], "else change subscribers get garbage"
    assert options["archive_event_implemented"]
    assert options["change_event_detect"] is False
    # A number without an archive limit could never be archived if Tango filtered it.
    assert options["archive_event_detect"] == ("archive_abs_change" in options)
    assert "polling_period" not in options


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.name)
def test_an_absent_beam_has_a_value_of_the_right_type_for_everything(value: Value) -> None:
    nothing = neutral(value)
    if value.shape != "scalar":
        assert nothing.size == 0
        assert nothing.ndim == (1 if value.shape == "spectrum" else 2)
    else:
        assert isinstance(nothing, value.kind)
        assert not nothing or math.isnan(nothing)


def test_values_become_the_attributes_own_type() -> None:
    assert on_the_wire(BY_NAME["frames"], np.int64(7)) == 7
    assert type(on_the_wire(BY_NAME["frames"], np.int64(7))) is int
    assert type(on_the_wire(BY_NAME["strehl"], np.float32(0.5))) is float
    assert on_the_wire(BY_NAME["telemetry_on"], np.bool_(True)) is True
    assert on_the_wire(BY_NAME["TT_state"], 1) == 1
    assert isinstance(on_the_wire(BY_NAME["TT_state"], 1), enum.IntEnum)
    assert on_the_wire(BY_NAME["frame"], np.ones((2, 3), np.int64)).dtype == np.int32
    assert on_the_wire(BY_NAME["frame"], None) is None
    assert on_the_wire(BY_NAME["e_LO"], []) is None, "Tango has no empty spectrum"
    assert on_the_wire(BY_NAME["config_file"], "/data/λ.toml") == "/data/?.toml"


def test_texts_fit_into_tango_strings() -> None:
    tango_text("Zernike λ/D, 2 µm \0").encode("latin-1")
    assert "\0" not in tango_text("a\0b")
    assert (
        json_text({"a": float("nan"), "b": np.arange(2), "c": "λ"})
        == '{"a": null, "b": [0, 1], "c": "\\u03bb"}'
    )


def _table() -> CommandTable:
    table = CommandTable()

    @command(table)
    def nothing(beam: Any) -> None:
        """Do nothing."""

    @command(table)
    def number(beam: Any, frames: int) -> float:
        """Take an integer.

        Parameters
        ----------
        frames : how many
        """
        return frames / 2

    @command(table)
    def several(beam: Any, file: str, gain: float = 0.5) -> dict[str, Any]:
        """Take two things."""
        return {"file": file, "gain": gain}

    @command(table)
    def shape(beam: Any, modes: list[float]) -> list[float]:
        """Take a list."""
        return modes

    return table


def test_types_follow_the_signature() -> None:
    table = _table()
    found = {entry.name: (input_type(entry), output_type(entry)) for entry in table}
    assert found == {
        "nothing": (CmdArgType.DevVoid, CmdArgType.DevVoid),
        "number": (CmdArgType.DevLong64, CmdArgType.DevDouble),
        "several": (CmdArgType.DevString, CmdArgType.DevString),
        "shape": (CmdArgType.DevString, CmdArgType.DevString),
    }
    assert describe_input(table.find("number")) == "frames: how many"
    assert describe_input(table.find("several")) == "JSON array: [file, gain (default 0.5)]"


def test_arguments_come_as_a_value_or_as_json() -> None:
    table = _table()
    assert arguments_of(table.find("nothing"), []) == []
    assert arguments_of(table.find("number"), 4) == [4]
    for text in ('["a", 2.5]', '"a", 2.5'):
        assert arguments_of(table.find("several"), text) == ["a", 2.5]
    assert arguments_of(table.find("several"), "") == []
    assert arguments_of(table.find("shape"), "[[1, 2]]") == [[1, 2]]
    with pytest.raises(RequestError, match="several"):
        arguments_of(table.find("several"), "[")


def test_replies_are_scalars_or_json() -> None:
    table = _table()
    assert reply(table.find("nothing"), None) is None
    assert reply(table.find("number"), 2.0) == 2.0
    assert reply(table.find("several"), {"b": 1, "a": None}) == '{"a": null, "b": 1}'


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RequestError("x"), "BAD_REQUEST"),
        (StateError("x"), "OPERATION_NOT_ALLOWED"),
        (ConfigError("x"), "CONFIGURATION_WRONG"),
        (BackendError("x"), "COMMUNICATION_BROKEN"),
        (BaldrError("x"), "SOFTWARE_FAILURE"),
        (KeyError("x"), "SOFTWARE_FAILURE"),
    ],
)
def test_a_failure_carries_reason_text_and_origin(error: Exception, reason: str) -> None:
    with pytest.raises(DevFailed) as failure:
        raise_failure(error, "here")
    first = failure.value.args[0]
    assert (first.reason, first.origin, first.severity) == (reason, "here", tango.ErrSeverity.ERR)
    assert "x" in first.desc
