"""What else the virtual MDS moves: axes, flippers and shutters that the frames do not show."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["VirtualBench"]

_BEAMS: Final = (1, 2, 3, 4)
_SUBSETS: Final = {"heimdallr": "H", "baldr": "B", "solarstein": "S", "all": "HBS"}
_FOCI: Final = ("c_red_one_focus", "intermediate_focus", "baldr")
_FILE_NAME: Final = re.compile(r"\w[\w.+-]*")
_LOOP_KEYS: Final = ("m_pin_val", "setpoint", "integral", "k_prop", "k_int")
# Probes of the bench and its two temperature loops, in counts of the converter as the real server has them.
_PROBES: Final = {"Lower T": 258.0, "Upper T": 255.0, "Bench T": 253.0, "Floor T": 250.0}
_LOOPS: Final = {"Lower": (258, 258, 0, 360, 10), "Upper": (255, 255, 0, 360, 10)}


@dataclass(frozen=True)
class _Kind:
    """What axes of one name have in common; named places: moves only between them."""

    motor_type: str
    unit: str
    range: tuple[float, float]
    eso_unit: float = 1e-3
    """Unit of ESO commands, in units of the axis."""
    beams: Sequence[int] = _BEAMS
    names: dict[str, float] | None = None


_TILT: Final = _Kind("M100D", "deg", (-0.75, 0.75))
_KINDS: Final = {
    "BDS": _Kind("X-LHM100A-SE03", "mm", (0.0, 100.0)),
    "BTT": _TILT,
    "BTP": _TILT,
    "BOTT": _Kind("M100D", "deg", (-0.75, 0.75), beams=(2, 3, 4)),
    "BOTP": _Kind("M100D", "deg", (-0.75, 0.75), beams=(2, 3, 4)),
    "BLF": _Kind("MFF101M", "", (0.0, 1.0), 1.0, names={"STANDARD": 0.0, "FAINT": 1.0}),
    "BFO": _Kind("LAC10A-T4A", "um", (0.0, 1e4), 1.0, beams=()),
    "SSS": _Kind("X-LSM150A-SE03", "mm", (0.0, 150.0), beams=()),
    "SSF": _Kind("8893KM", "", (0.0, 1.0), 1.0, names={"OUT": 0.0, "IN": 1.0}),
    "HFO": _Kind("LS16P", "mm", (0.0, 16.0)),
    **dict.fromkeys(("HTPP", "HTTP", "HTPI", "HTTI"), _TILT),
}


class VirtualBench:
    """Axes that have a position and nothing else; every move is done at once.

    Parameters
    ----------
    directory : of saved states; made when the first is saved.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kinds = {
            f"{name}{beam}": kind
            for name, kind in _KINDS.items()
            for beam in (kind.beams if kind.beams else ("",))
        }
        self._positions = {
            axis: 0.0 if kind.names else sum(kind.range) / 2 for axis, kind in self._kinds.items()
        }
        self._shut: set[int] = set()

    def commands(self) -> dict[str, tuple[int, int, Callable[..., str]]]:
        """Return by name: fewest and most words after it, handler."""
        return {
            "mv_img": (4, 4, self._move_light),
            "mv_pup": (4, 4, self._move_light),
            "h_shut": (2, 2, self._shutter),
            "h_splay": (1, 1, self._splay),
            "tt_step": (2, 2, self._step),
            "tt_config_step": (2, 2, self._step),
            "home_steppers": (1, 1, lambda name: ""),
            "online": (1, 1, lambda axes: ""),
            "dmapplyflat": (1, 1, lambda mirror: _mirror(mirror, "Flat map applied to ")),
            "dmapplycross": (1, 1, lambda mirror: _mirror(mirror, "Cross map applied to  ")),
            "set_kaya": (1, 1, _kaya),
            "temp_status": (1, 1, self._temperature_status),
        }

    def axes(self) -> tuple[str, ...]:
        """Names of all axes."""
        return tuple(self._kinds)

    def motor_type(self, axis: str) -> str:
        """Type of the motor of an axis, as the instrument's configuration names it."""
        return self._kinds[axis].motor_type

    def position(self, axis: str) -> float:
        """Where an axis is, in its unit; `KeyError` for an unknown one."""
        return self._positions[axis]

    def state(self, axis: str) -> str:
        """Return what follows the state of an axis: whether its beam is shut."""
        return " SHUTTERED" if self._is_shut(axis) else ""

    def temperatures(self) -> list[float]:
        """Temperatures of the probes [deg C]."""
        return [round(42.5 + (counts - 512) * 0.11, 2) for counts in _PROBES.values()]

    def check(self, axis: str, to: float) -> None:
        """Raise `ValueError` when an axis cannot go to a position in its unit."""
        kind = self._kinds[axis]
        if kind.names and to not in kind.range:
            raise ValueError(f"Invalid position for bistable motor {axis}")
        if not kind.range[0] <= to <= kind.range[1]:  # NaN neither
            low, high = kind.range
            raise ValueError(f"{axis}: found {to:g}, expected {low:g} to {high:g} {kind.unit}")
        if self._is_shut(axis):
            raise ValueError(f"Cannot move motor {axis} to {to:g} as it is shuttered")

    def move_to(self, axis: str, to: float) -> None:
        """Move an axis to a position in its unit; `ValueError` when it cannot go there."""
        self.check(axis, to)
        self._positions[axis] = to

    def move_by(self, axis: str, by: float) -> None:
        """Move an axis by a distance in its unit; `ValueError` when it cannot."""
        if self._kinds[axis].names:
            raise ValueError(f"Relative movement not implemented for bistable motor {axis}")
        self.move_to(axis, self._positions[axis] + by)

    def prepare(self, axis: str, keyword: str, value: Any) -> Callable[[], None]:
        """Return what sets an axis up; `ValueError` for a keyword or value that it does not take."""
        kind = self._kinds[axis]
        match keyword:
            case "NAME" if kind.names:
                if value not in kind.names:
                    raise ValueError(f"{axis}.NAME: found {value!r}, expected {', '.join(kind.names)}")
                to = kind.names[value]
            case "NAME" if isinstance(value, str):  # no named places: nothing moves in the real one
                return lambda: None
            case "ENC":
                to = _number(axis, value) * kind.eso_unit
            case "ENCREL" if not kind.names:
                to = self._positions[axis] + _number(axis, value) * kind.eso_unit
            case _:
                raise ValueError(f"{axis}.{keyword}: found {value!r}, expected NAME, ENC or ENCREL")
        self.check(axis, to)
        return lambda: self.move_to(axis, to)

    def save(self, subset: str, name: str, others: dict[str, float]) -> str:
        """Write the positions of a part of the instrument, these axes and the `others`, into a new file."""
        if subset.lower() not in _SUBSETS:
            return "NACK: Invalid subset, must be 'heimdallr', 'baldr', 'solarstein' or 'all'"
        if not _FILE_NAME.fullmatch(name):
            raise ValueError(f"file: found {name!r}, expected a name of letters, digits, _ . + -")
        first = tuple(_SUBSETS[subset.lower()])
        states = [
            {"name": axis, "is_connected": True, "position": position}
            for axis, position in (self._positions | others).items()
            if axis.startswith(first)
        ]
        path = self._directory / f"{name}.json"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with path.open("x") as file:
                json.dump(states, file, indent=4)
        except FileExistsError:
            return "NACK: File already exists, please choose a different name."
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        return "ACK: saved"

    def _is_shut(self, axis: str) -> bool:
        return axis.startswith("H") and int(axis[-1]) in self._shut

    def _move_light(self, config: str, beam: str, x: str, y: str) -> str:
        """Move image or pupil: the virtual instrument has them where they belong, so nothing moves."""
        for number in (x, y):
            # The real server's template for numbers has no match without a decimal point.
            if "." not in number or not math.isfinite(float(number)):
                raise ValueError
        if int(beam) not in _BEAMS:
            raise ValueError("beam_number must be in the range [1, 4]")
        if config not in _FOCI:
            raise ValueError("config must be 'c_red_one_focus' or 'intermediate_focus' or 'baldr'")
        if config == "baldr":
            self.position(f"BOTP{int(beam)}")  # beam 1 has none, and the real server says so
        return "ACK: moved"

    def _shutter(self, state: str, beams: str) -> str:
        found = set(_BEAMS) if beams == "all" else {int(beam) for beam in beams.split(",")}
        if state not in ("open", "close"):
            raise ValueError("Invalid state for h_shut, must be 'open' or 'close'")
        for beam in sorted(found.difference(_BEAMS)):
            raise KeyError(beam)
        self._shut = self._shut | found if state == "close" else self._shut - found
        return ""

    def _splay(self, state: str) -> str:
        if state not in ("on", "off"):
            raise ValueError("state must be 'on' or 'off'")
        return ""

    def _step(self, axis: str, steps: str) -> str:
        """Step in open loop: how far that is, only the real motor knows."""
        if "HT" not in axis:
            raise ValueError(f"{axis} is not a valid tip-tilt stage")
        if axis not in self._kinds:
            raise ValueError(f"{axis} not found in instrument")
        if int(steps) and self._is_shut(axis):
            raise ValueError(f"Cannot move motor {axis} to {steps} steps as it is shuttered")
        return ""

    def _temperature_status(self, mode: str) -> str:
        if mode == "now":
            return str([*_PROBES.values(), *(value for loop in _LOOPS.values() for value in loop)])
        if mode == "keys":
            return f"[{','.join([*_PROBES, *(f'{loop} {key}' for loop in _LOOPS for key in _LOOP_KEYS)])}]"
        raise ValueError("Invalid mode for temp_status, must be 'now' or 'keys'")


def _mirror(name: str, told: str) -> str:
    if not re.fullmatch(r"DM[1-4]", name):
        raise ValueError(f"DM {name} not found")
    return f"ACK: {told}{name}"


def _kaya(state: str) -> str:
    if state not in ("on", "off"):
        raise ValueError("Invalid state for set_kaya, must be 'on' or 'off'")
    return "ACK"


def _number(axis: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{axis}: found {value!r}, expected a number")
    return number
