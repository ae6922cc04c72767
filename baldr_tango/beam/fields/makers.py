"""The kinds of runtime fields: by which level of the configuration they read, and what a set does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.beam.fields.conversion import Domain, UnfitError
from baldr_tango.beam.fields.field import Field
from baldr_tango.beam.live_configuration import LiveConfiguration
from baldr_tango.configuration.derived import lit_signals
from baldr_tango.configuration.schema import declared_keys
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.errors import StateError
from baldr_tango.names import LoopState

FloatArray = NDArray[np.float64]
Shape = tuple[str, ...]


def reading(
    path: str,
    kind: str,
    get: Callable[[LiveConfiguration], Any],
    doc: str,
    shape: Shape = (),
    unit: str = "",
) -> Field:
    """Make a field that is only read."""
    return Field(path, Domain(kind), doc, get, None, shape, unit)


def key(
    path: str,
    kind: str,
    name: str,
    doc: str,
    shape: Shape = (),
    unit: str = "",
    *,
    derives: tuple[str, ...] | None = None,
    followers: tuple[str, ...] = (),
    only_open: str = "",
) -> Field:
    """Make the field of one key of the calibration.

    derives : members of `LoopParameters` that follow a set; None: read-only
    only_open : "LO" or "HO", the loop that must be open for a set
    """

    def change(live: LiveConfiguration, value: Any) -> None:
        if only_open:
            _require_open(live, only_open, path)
        live.change_calibration(*(derives or ()), **{name: value})

    return Field(
        path,
        Domain(kind),
        doc,
        lambda live: getattr(live.calibration, name),
        None if derives is None else change,
        shape,
        unit,
        followers,
    )


def derived(
    path: str,
    name: str,
    doc: str,
    shape: Shape,
    *,
    check: Callable[[Any], dict[str, Any]] | None = None,
    followers: tuple[str, ...] = (),
) -> Field:
    """Make the field of one derived vector, whose set goes on to what is in force.

    check : returns further members that belong to a value
    """
    return Field(
        path,
        Domain("vector<double>"),
        doc,
        lambda live: getattr(live.derived, name),
        lambda live, value: live.change_derived(**{name: value}, **(check(value) if check else {})),
        shape,
        followers=followers,
    )


def member(path: str, kind: str, name: str, doc: str, shape: Shape = (), unit: str = "") -> Field:
    """Make a field that reads what is in force."""
    return reading(path, kind, lambda live: getattr(live.parameters, name), doc, shape, unit)


def in_force(
    path: str,
    kind: str,
    name: str,
    doc: str,
    shape: Shape,
    unit: str = "",
    *,
    check: Callable[[Any], dict[str, Any]] | None = None,
) -> Field:
    """Make a field that reads and sets what is in force; nothing follows."""
    return Field(
        path,
        Domain(kind),
        doc,
        lambda live: getattr(live.parameters, name),
        lambda live, value: live.change_in_force(**{name: value}, **(check(value) if check else {})),
        shape,
        unit,
    )


def interpolated(path: str, kind: str, name: str, doc: str, unit: str = "") -> Field:
    """Make the field of a pixel map of the calibration, interpolated to the actuators."""
    return reading(
        path, kind, lambda live: live.calibration.I2A @ getattr(live.calibration, name), doc, ("A",), unit
    )


def pixels(name: str, doc: str) -> Field:
    """Make the field of a list of pixels."""

    def get(live: LiveConfiguration) -> Any:
        in_force = {"bad_pixels": "bad_pixels", "exterior_pixels": "exterior_pixels"}
        return getattr(live.parameters if name in in_force else live.calibration, name)

    return reading(f"pixels.{name}", "vector<int32>", get, f"{doc}, flat indices", ("*",))


def camera(name: str) -> Field:
    """Make the field of one camera setting at the calibration."""

    def get(live: LiveConfiguration) -> str:
        settings = live.calibration.camera_config
        # The pipeline writes "cropping rows", the legacy reader asks for "cropping_rows".
        return str(settings.get(name, settings.get(name.replace("_", " "), "")))

    return reading(f"cam.{name}", "string", get, f"{name.replace('_', ' ')} of the camera at the calibration")


def note(path: str, kind: str, doc: str, default: Any, shape: Shape = ()) -> Field:
    """Make a field that nothing uses: it can be set and read."""

    def change(live: LiveConfiguration, value: Any) -> None:
        live.notes[path] = value

    return Field(path, Domain(kind), doc, lambda live: live.notes.get(path, default), change, shape)


def size(path: str, name: str, letter: str, doc: str) -> Field:
    """Make the field of a size in the calibration; it must stay true."""

    def change(live: LiveConfiguration, value: int) -> None:
        actual = live.sizes()[letter]
        allowed = (actual,) if name == "sza" else (0, actual)
        if value not in allowed:
            raise UnfitError(f"expected {' or '.join(map(str, allowed))}, which is the size of the matrices")
        live.change_calibration(**{name: value})

    return Field(path, Domain("int"), doc, lambda live: getattr(live.calibration, name), change)


def limit(name: str, doc: str, unit: str = "") -> Field:
    """Make the field of one limit of the calibration."""

    def change(live: LiveConfiguration, value: float) -> None:
        live.change_calibration(**{name: value})
        live.beam.calibration_limits = {**live.beam.calibration_limits, name: value}

    return Field(
        f"limits.{name}",
        Domain("float"),
        doc,
        lambda live: float(live.beam.calibration_limits.get(name, getattr(live.calibration, name))),
        change,
        unit=unit,
    )


def automation(path: str, name: str, doc: str) -> Field:
    """Make the field of one switch of the automation."""

    def change(live: LiveConfiguration, value: int) -> None:
        live.beam.automation.set(**{name: bool(value)})

    return Field(
        path, Domain("int", 0, 1), doc, lambda live: int(getattr(live.beam.automation.rules, name)), change
    )


def safety(name: str, unit: str, doc: str) -> Field:
    """Make the field of one safety limit of the loop."""
    declaration = declared_keys(LimitSettings)[name]
    kind = type(getattr(LimitSettings(), name))
    lowest = declaration.minimum if declaration.above is None else np.nextafter(declaration.above, 1.0)

    def change(live: LiveConfiguration, value: float) -> None:
        live.change_in_force(limits=replace(live.parameters.limits, **{name: value}))  # type: ignore[arg-type]

    return Field(
        f"limits.{name}",
        Domain("int" if kind is int else "double", lowest, declaration.maximum),
        doc,
        lambda live: getattr(live.parameters.limits, name),
        change,
        unit=unit,
    )


def rate(path: str, doc: str, unit: str, name: str) -> Field:
    """Make the field of the camera's frame rate or gain."""
    smallest = 1e-6
    return Field(
        path,
        Domain("double", smallest, 1e6),
        doc,
        lambda live: float(getattr(live.parameters, name)),
        lambda live, value: live.change_camera(**{name: value}),
        unit=unit,
        followers=("reduction.dark",),
    )


def scale(path: str, doc: str) -> Field:
    """Make the field that the legacy server calls scale."""

    def get(live: LiveConfiguration) -> float:
        return float(live.notes.get(path, live.parameters.gain / live.parameters.frame_rate_hz))

    def change(live: LiveConfiguration, value: float) -> None:
        known = live.derived
        live.change_in_force(
            reconstructor_lo=known.reconstructor_lo,
            reconstructor_ho=known.reconstructor_ho,
            strehl_line=known.strehl_line,
        )
        live.notes[path] = value

    return Field(path, Domain("double"), doc, get, change, followers=("I2M_LO_runtime", "I2M_HO_runtime"))


def with_light(clear_pupil: FloatArray) -> dict[str, Any]:
    """Return the signal mask of a clear pupil, or raise `UnfitError` when no actuator has light."""
    if not (clear_pupil > 0).any():
        raise UnfitError("expected light at some actuator")
    return {"signal_mask": lit_signals(clear_pupil)}


def controller_type(live: LiveConfiguration) -> str:
    """Type of both controllers, or both types."""
    low, high = live.parameters.controller_type_lo, live.parameters.controller_type_ho
    return low if low == high else f"{low}/{high}"


def is_saving(live: LiveConfiguration) -> int:
    """1 while a telemetry file is being saved."""
    return int(live.beam.saving.is_saving)


def dark_dm(live: LiveConfiguration) -> Any:
    """Dark in force at the actuators."""
    return live.calibration.I2A @ live.parameters.dark


def zero_command(live: LiveConfiguration) -> FloatArray:
    """Flat command."""
    return np.zeros(live.sizes()["G"])


def _require_open(live: LiveConfiguration, which: str, path: str) -> None:
    state = live.beam.state()
    if (state.lo if which == "LO" else state.ho) == LoopState.CLOSED:
        raise StateError(
            f"{path}: the {which} loop is closed and its command would jump; open_baldr_{which} first"
        )
