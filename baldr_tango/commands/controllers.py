"""Controllers: list, read and set their parameters, and switch their type."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from baldr_tango.beam import Beam
from baldr_tango.beam.controllers import Controller, Entry
from baldr_tango.beam.fields import UnfitError
from baldr_tango.beam.identification import MOST_GAIN
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json

_TYPE = "ctrl_type"
_TUNABLE = ("kp", "ki", "kd", "set_point", "setpoint", "lower_limits", "upper_limits", "alpha")
_INCREMENTAL = ("kp", "ki", "kd", "alpha")


def _by_letters(beam: Beam, which: str) -> Controller:
    """Controller whose name begins with LO or HO, in any case, as ctrl_* have always read it."""
    name: dict[str, Literal["lo", "ho"]] = {"lo": "lo", "ho": "ho"}
    found = name.get(which[:2].lower())
    if found is None:
        raise RequestError("controller not initialized", which=which, available=["LO", "HO"])
    return Controller(beam, found)


def _by_name(beam: Beam, which: str) -> Controller:
    """Controller LO or HO, in any case."""
    if which.lower() not in ("lo", "ho"):
        raise RequestError('Invalid controller: use "LO" or "HO"', controller=which)
    return _by_letters(beam, which)


def _entry(controller: Controller, which: str, name: str, what: str) -> Entry:
    entry = controller.find(name)
    if entry is None:
        raise RequestError(
            f"{controller.kind}::{what}: {name}",
            which=which,
            name=name,
            available=[_TYPE, *(e.name for e in controller.entries)],
        )
    return entry


@beam_command(reads=True)
def ctrl_list(beam: Beam, which: str) -> dict[str, Json]:
    """List the parameters of a controller.

    Parameters
    ----------
    which : LO or HO
    """
    controller = _by_letters(beam, which)
    size = controller.size
    params: list[Json] = [
        {"name": _TYPE, "type": "string", "shape": [], "unit": "", "access": "read-write",
         "doc": "PID, LEAKY or KALMAN; set with the loop open"}
    ]  # fmt: skip
    params += [
        {
            "name": entry.name,
            "type": entry.type_name,
            "shape": [size, size] if entry.is_matrix else [size],
            "unit": entry.unit,
            "access": "read-only" if entry.set is None else "read-write",
            "doc": entry.doc,
        }
        for entry in controller.entries
    ]
    return {"ok": True, "which": which, "params": params}


@beam_command(reads=True)
def ctrl_get(beam: Beam, which: str, name: str) -> dict[str, Json]:
    """Read a parameter of a controller.

    Parameters
    ----------
    which : LO or HO
    name : name as ctrl_list gives it, or ctrl_type
    """
    controller = _by_letters(beam, which)
    reply: dict[str, Json] = {"ok": True, "which": which, "name": name}
    if name.lower() == _TYPE:
        return reply | {"type": "string", "value": controller.kind}
    entry = _entry(controller, which, name, "get_parameter unknown key")
    return reply | {"type": entry.type_name, "value": entry.get(controller).tolist()}


@beam_command()
def ctrl_set(beam: Beam, which: str, name: str, value: Json) -> dict[str, Json]:
    """Set a parameter of a controller for all modes, or its type while its loop is open.

    Parameters
    ----------
    which : LO or HO
    name : name as ctrl_list gives it, or ctrl_type
    value : one number per mode; for a matrix its rows, or its diagonal; for ctrl_type PID, LEAKY or KALMAN
    """
    controller = _by_letters(beam, which)
    if name.lower() == _TYPE:
        if not isinstance(value, str):
            raise RequestError("value is neither vector nor matrix", which=which, name=name)
        controller.set_type(value)
        return ctrl_get(beam, which, name)
    entry = _entry(controller, which, name, "set_parameter unknown vector")
    _put(controller, entry, value, {"which": which, "name": name})
    return ctrl_get(beam, which, name)


@beam_command()
def update_ctrl_param(
    beam: Beam, controller: str, parameter_type: str, indices: Json, value: float
) -> dict[str, Json]:
    """Set a parameter of a controller for all or some modes to one value.

    Parameters
    ----------
    controller : LO or HO
    parameter_type : kp, ki, kd, alpha, set_point, lower_limits or upper_limits
    indices : all, or mode numbers from 0 on: 3, "1,3" or [1, 3]
    value : number
    """
    return _change_some(
        _by_name(beam, controller), parameter_type, indices, lambda old: np.full_like(old, value)
    ) | {"value": value}


@beam_command()
def dg(
    beam: Beam, controller: str, parameter_type: str, indices: Json, delta: Json = None
) -> dict[str, Json]:
    """Add to a gain of a controller, for all or some modes: dg LO ki 0.02, or dg LO ki "0,1" 0.02.

    Parameters
    ----------
    controller : LO or HO
    parameter_type : kp, ki, kd or alpha
    indices : mode numbers as for update_ctrl_param, or the increment for all modes
    delta : increment
    """
    if delta is None:
        indices, delta = "all", indices
    step = _finite(delta, "delta")
    which = _by_name(beam, controller)
    if parameter_type.lower() not in _INCREMENTAL:
        raise RequestError(f"Invalid parameter for dg: {parameter_type.lower()} (use kp|ki|kd)")
    return _change_some(which, parameter_type, indices, lambda old: old + step) | {"delta": step}


@beam_command()
def ctrl_identify(beam: Beam, which: str, frames: int = 0, most_gain: float = MOST_GAIN) -> dict[str, Json]:
    """Identify a Kalman model from recorded frames, mode by mode, and put it in force; the type stays.

    Parameters
    ----------
    which : LO or HO
    frames : newest frames to use; 0 for as many as usual
    most_gain : largest gain that a mode may get
    """
    controller = _by_letters(beam, which)
    found = controller.identify(frames or None, most_gain)
    m = found.model
    matrices = {"A": m.transition, "Q": m.process_noise, "R": m.measurement_noise, "K": m.gain}
    return {
        "ok": True,
        "which": which,
        "frames": found.frames,
        **{name: np.diag(matrix).tolist() for name, matrix in matrices.items()},
        "residual_rms": found.predicted_rms().tolist(),
    }


def _change_some(controller: Controller, parameter: str, indices: Json, change: Any) -> dict[str, Json]:
    name = parameter.lower()
    entry = controller.find(name) if name in _TUNABLE else None
    if entry is None or entry.is_matrix:
        raise RequestError(f"Invalid parameter: {name}", controller=controller.which, type=controller.kind)
    with controller.beam.exclusive:
        values = np.array(entry.get(controller), dtype=np.float64)
        chosen = _indices(indices, name, values.size)
        values[chosen] = change(values[chosen])
        _put(controller, entry, values, {"controller": controller.which, "parameter": name})
    return {
        "status": "success",
        "controller": controller.which,
        "parameter": name,
        "indices": indices,
        "size": values.size,
    }


def _indices(indices: Json, name: str, size: int) -> list[int]:
    """Read mode numbers: all, a number, a comma list or a list."""
    if isinstance(indices, str) and indices.strip().lower() == "all":
        return list(range(size))
    items = indices.split(",") if isinstance(indices, str) else indices
    items = items if isinstance(items, list) else [items]
    chosen = []
    if items == [""]:
        raise RequestError("No valid indices provided")
    for item in items:
        text = item.strip() if isinstance(item, str) else item
        if isinstance(text, str) and text.isascii() and text.isdigit():
            text = int(text)
        if isinstance(text, bool) or not isinstance(text, int):
            raise RequestError(f"Invalid index: {item!r}; use all, or mode numbers separated by commas")
        if not 0 <= text < size:
            raise RequestError(f"Index {text} out of range for {name} (size {size})")
        chosen.append(text)
    if not chosen:
        raise RequestError("No valid indices provided")
    return sorted(set(chosen))


def _finite(value: Json, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(float(value)):
        raise RequestError(f"{name}: expected a finite number, found {value!r}")
    return float(value)


def _put(controller: Controller, entry: Entry, value: Any, details: dict[str, Json]) -> None:
    if entry.set is None:
        raise RequestError(f"{entry.name} is read-only", **details)
    try:
        entry.set(controller, entry.convert(value, controller.size))
    except UnfitError as error:
        text = str(error)
        if text.startswith("does not accept"):
            text = f"{controller.kind}::set_parameter {text}"
        raise RequestError(text, **details) from None
    controller.beam.log.info("%s %s set", controller.which.upper(), entry.name)
