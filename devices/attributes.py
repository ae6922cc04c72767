"""Tango attributes, derived from the table of published values.

An attribute is never polled: its events come from the device's publisher. Each declares change,
archive *and* alarm events; with the alarm event left out, Tango delivers wrong values to change
subscribers as soon as somebody subscribes to alarms.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from tango import AttrQuality, CmdArgType, DispLevel
from tango.server import attribute

from baldr_tango.interface import VALUES, Value
from devices.text import tango_text

_SCALAR_TYPES: Final = {bool: CmdArgType.DevBoolean, int: CmdArgType.DevLong64, float: CmdArgType.DevDouble}
_ARRAY_TYPES: Final = {int: np.int32, float: np.float64}


def attribute_members(values: Iterable[Value] = VALUES) -> dict[str, attribute]:
    """Return one attribute for each value, under names that clash with nothing in a device.

    The device reads through its method ``read_value(value)``: a value of the attribute's own type, or
    None for one that does not exist at the moment.
    """
    return {f"_value_{value.name}": _attribute(value) for value in values}


def _attribute(value: Value) -> attribute:
    def read(device: Any) -> Any:
        ready = device.read_value(value)
        if ready is None:
            return neutral(value), time.time(), AttrQuality.ATTR_INVALID
        return ready

    return attribute(fget=read, **attribute_options(value))


def attribute_options(value: Value) -> dict[str, Any]:
    """Return the options of the attribute: type, properties and event flags."""
    options: dict[str, Any] = {
        "name": value.name,
        "dtype": _tango_type(value),
        "doc": tango_text(value.doc),
        "label": tango_text(value.label or value.name),
        "unit": tango_text(value.unit),
        "display_level": DispLevel.EXPERT if value.expert else DispLevel.OPERATOR,
        "change_event_implemented": True,
        "change_event_detect": False,
        "alarm_event_implemented": True,
        "alarm_event_detect": True,
        "archive_event_implemented": True,
        "archive_event_detect": filters_archive(value),
    }
    if value.format:
        options["format"] = value.format
    if value.shape != "scalar":
        options["max_dim_x"] = value.max_dim[0]
    if value.shape == "image":
        options["max_dim_y"] = value.max_dim[1]
    limits = {
        "min_value": value.minimum,
        "max_value": value.maximum,
        "min_warning": value.warning[0],
        "max_warning": value.warning[1],
        "min_alarm": value.alarm[0],
        "max_alarm": value.alarm[1],
    }
    if filters_archive(value):
        limits["archive_abs_change"] = value.archive_change
    options.update({name: value.kind(limit) for name, limit in limits.items() if limit is not None})
    return options


def _tango_type(value: Value) -> Any:
    if value.enum is not None:
        return value.enum
    if value.shape == "spectrum":
        return (str if value.kind is str else _ARRAY_TYPES[value.kind],)
    if value.shape == "image":
        return ((_ARRAY_TYPES[value.kind],),)
    return _SCALAR_TYPES.get(value.kind, CmdArgType.DevString)


def filters_archive(value: Value) -> bool:
    """Tell whether Tango filters the archive events by ``archive_abs_change``.

    Sites may change that limit. For other attributes the publisher decides what is archived.
    """
    return value.shape == "scalar" and value.enum is None and bool(value.archive_change)


def neutral(value: Value) -> Any:
    """Return what is published while there is no beam: zero, empty, or NaN for a measurement."""
    if value.shape != "scalar":
        if value.kind is str:
            return []
        return np.zeros((0,) if value.shape == "spectrum" else (0, 0), _ARRAY_TYPES[value.kind])
    if value.enum is not None:
        return next(iter(value.enum))
    return float("nan") if value.kind is float else value.kind()


def on_the_wire(value: Value, raw: Any) -> Any:
    """Return a value of the attribute's own type; None for one that does not exist at the moment."""
    if raw is None:
        return None
    if value.shape != "scalar":
        if value.kind is str:
            return [tango_text(entry) for entry in raw] or None
        array = np.asarray(raw, _ARRAY_TYPES[value.kind])
        return array if array.size else None
    if value.kind is str:
        return tango_text(raw)
    return value.kind(raw)
