"""Optional arguments of commands: given one after the other, as an object, or left out as ``""``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from baldr_tango.errors import RequestError


def options_of(command: str, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """Return the options that a request gives, by name.

    An object may take the place of any value; what is ``""`` or null counts as left out.

    Parameters
    ----------
    names : options in the order of positional values, then those that only an object can give
    values : as they came

    Raises
    ------
    RequestError : there is no such option, or one is given twice.
    """
    found: dict[str, Any] = {}
    for position, value in enumerate(values):
        given = value if isinstance(value, Mapping) else {names[position]: value}
        for name, item in given.items():
            if item is None or item == "":
                continue
            if name not in names:
                raise RequestError(f"{command}: no option {name!r}; there are {', '.join(names)}")
            if name in found:
                raise RequestError(f"{command}: {name} is given twice")
            found[name] = item
    return found


def positive_integer(command: str, name: str, value: Any, least: int = 1, most: int = 1_000_000) -> int:
    """Return a whole number within bounds; `RequestError` for anything else."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or not least <= value <= most:
        raise RequestError(
            f"{command}: {name} must be a whole number from {least} to {most}, found {value!r}"
        )
    return int(value)


def number(command: str, name: str, value: Any, least: float, most: float) -> float:
    """Return a finite number within bounds; `RequestError` for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise RequestError(f"{command}: {name} must be a number from {least:g} to {most:g}, found {value!r}")
    return float(value)


def boolean(command: str, name: str, value: Any) -> bool:
    """Return true or false; `RequestError` for anything else."""
    if not isinstance(value, bool):
        raise RequestError(f"{command}: {name} must be true or false, found {value!r}")
    return value


def text(command: str, name: str, value: Any) -> str:
    """Return a text; `RequestError` for anything else."""
    if not isinstance(value, str):
        raise RequestError(f"{command}: {name} must be a text, found {value!r}")
    return value
