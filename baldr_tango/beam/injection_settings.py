"""What is injected: the fields ``inj_signal.*`` with their types, ranges and defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from baldr_tango.errors import RequestError
from baldr_tango.kernels import injection as kernel
from baldr_tango.kernels import loop_data as d

WAVEFORMS: Final = {
    "sine": kernel.SINE,
    "square": kernel.SQUARE,
    "step": kernel.STEP,
    "chirp": kernel.CHIRP,
    "prbs": kernel.PRBS,
    "none": kernel.NONE,
}
BRANCHES: Final = {"LO": d.INJECT_LO, "HO": d.INJECT_HO, "ALL": d.INJECT_ALL}
TARGETS: Final = {"command": 0, "setpoint": 1}

_MOST_FRAMES: Final = 1_000_000
_MOST_HZ: Final = 1e5
_MOST_S: Final = 1e6


def _item(default: Any, type_name: str, doc: str, unit: str = "", **limits: Any) -> Any:
    """Declare a field: legacy type name, meaning, unit, and what is allowed."""
    return field(default=default, metadata={"type": type_name, "doc": doc, "unit": unit, **limits})


@dataclass(frozen=True)
class InjectionSettings:
    """A signal and where it goes; names and defaults are the legacy ones.

    Raises
    ------
    RequestError : a value has the wrong type or is out of range; the text names field, value and range.
    """

    enabled: bool = _item(False, "int", "a signal is injected")
    basis: str = _item("zonal", "string", "family of DM maps, upper or lower case")
    basis_index: int = _item(0, "int", "mode of the basis", least=0)
    amplitude: float = _item(0.05, "double", "factor of the mode's map", "DM units")
    waveform: str = _item("sine", "string", "shape in time", choices=tuple(WAVEFORMS))
    freq_hz: float = _item(10.0, "double", "frequency of sine and square", "Hz", least=0.0, most=_MOST_HZ)
    phase_deg: float = _item(0.0, "double", "phase of sine, square and chirp", "deg")
    duty: float = _item(0.5, "double", "part of a period that the square is on", least=0.0, most=1.0)
    t_start_s: float = _item(
        0.0, "double", "time of the first sample after arming", "s", least=0.0, most=_MOST_S
    )
    t_stop_s: float = _item(
        0.0, "double", "time of the last sample after arming; 0: no end", "s", least=0.0, most=_MOST_S
    )
    latency_frames: int = _item(0, "int", "frames from a sample to its action", least=0, most=_MOST_FRAMES)
    hold_frames: int = _item(1, "int", "frames that a sample lasts", least=1, most=_MOST_FRAMES)
    prbs_seed: int = _item(
        kernel.DEFAULT_SEED, "uint32", "start of the pseudo-random sequence", least=0, most=2**32 - 1
    )
    chirp_f0: float = _item(1.0, "double", "first frequency of the chirp", "Hz", least=0.0, most=_MOST_HZ)
    chirp_f1: float = _item(50.0, "double", "last frequency of the chirp", "Hz", least=0.0, most=_MOST_HZ)
    chirp_T: float = _item(5.0, "double", "duration of the chirp", "s", least=1e-3, most=_MOST_S)
    branch: str = _item("HO", "string", "modes that take part", choices=tuple(BRANCHES))
    apply_to: str = _item(
        "command",
        "string",
        "the mirror, or the set points of the closed loops",
        choices=tuple(TARGETS),
    )

    def __post_init__(self) -> None:
        """Check every value, and bring words to their usual case."""
        for entry in fields(self):
            value = _checked(entry.name, type(entry.default), getattr(self, entry.name), entry.metadata)
            object.__setattr__(self, entry.name, value)
        if 0.0 < self.t_stop_s < self.t_start_s:
            raise RequestError(f"t_stop_s {self.t_stop_s:g} is before t_start_s {self.t_start_s:g}")

    def changed(self, values: Mapping[str, Any]) -> InjectionSettings:
        """Return these settings with some values changed; `RequestError` for a name that is none of them."""
        unknown = sorted(set(values) - set(ITEMS))
        if unknown:
            raise RequestError(f"injection: no field {', '.join(unknown)}; there are {', '.join(ITEMS)}")
        return replace(self, **values)

    def as_dict(self) -> dict[str, Any]:
        """Return every field by its name."""
        return asdict(self)

    def switches(self) -> dict[int, int]:
        """Columns of the loop's switches."""
        return {
            d.INJECT: int(self.enabled),
            d.INJECT_WAVEFORM: WAVEFORMS[self.waveform],
            d.INJECT_BRANCH: BRANCHES[self.branch],
            d.INJECT_SET_POINT: TARGETS[self.apply_to],
            d.INJECT_LATENCY: self.latency_frames,
            d.INJECT_HOLD: self.hold_frames,
            d.INJECT_SEED: self.prbs_seed,
        }

    def waveform_values(self) -> list[float]:
        """The loop's vector ``injection``."""
        values = [0.0] * kernel.N_VALUES
        values[kernel.AMPLITUDE] = self.amplitude
        values[kernel.FREQUENCY_HZ] = self.freq_hz
        values[kernel.PHASE_RAD] = math.radians(self.phase_deg)
        values[kernel.DUTY] = self.duty
        values[kernel.START_S] = self.t_start_s
        values[kernel.STOP_S] = self.t_stop_s
        values[kernel.CHIRP_F0_HZ] = self.chirp_f0
        values[kernel.CHIRP_F1_HZ] = self.chirp_f1
        values[kernel.CHIRP_S] = self.chirp_T
        return values


ITEMS: Final[Mapping[str, Mapping[str, Any]]] = {
    entry.name: entry.metadata for entry in fields(InjectionSettings)
}
"""Every field in the legacy order of ``inj_signal``: its legacy type name, meaning and unit."""


def _checked(name: str, kind: type, value: Any, allowed: Mapping[str, Any]) -> Any:
    """Return a value in its own type and usual case, or raise `RequestError`."""
    if kind is bool:
        return _boolean(name, value)
    if kind is str:
        return _word(name, value, allowed.get("choices", ()))
    return _number(name, kind, value, allowed.get("least", -math.inf), allowed.get("most", math.inf))


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{name}: found {value!r}, expected true or false")
    return value


def _word(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{name}: found {value!r}, expected a word")
    if not choices:
        return value.strip().lower()
    for choice in choices:
        if choice.lower() == value.strip().lower():
            return choice
    raise RequestError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")


def _number(name: str, kind: type, value: Any, least: float, most: float) -> int | float:
    wanted = "an integer" if kind is int else "a number"
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or (kind is int and value != int(value)):
        raise RequestError(f"{name}: found {value!r}, expected {wanted}")
    if not least <= value <= most:
        bounds = f"from {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
        raise RequestError(f"{name}: found {value!r}, expected {wanted} {bounds}")
    number: int | float = kind(value)
    return number
