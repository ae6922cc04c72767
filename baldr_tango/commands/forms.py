"""The three forms that some commands take: a list, an object with named keys, or one text of words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from baldr_tango.errors import RequestError


def named(
    values: Sequence[Any], keys: Sequence[str], required: int, aliases: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return arguments by name, whatever their form: ``[a, b]``, ``{"key": a}`` or ``"a b"``.

    Parameters
    ----------
    values : arguments as they came; None stands for one that was not given
    keys : names in the order of the list
    required : how many of them must be given
    aliases : other names of keys

    Raises
    ------
    RequestError : a key is missing or unknown, or there are too many values; the text shows the usage.
    """
    given: Any = list(values)
    while given and given[-1] in (None, ""):
        given.pop()
    if len(given) == 1 and isinstance(given[0], dict | list):
        given = given[0]
    elif len(given) == 1 and isinstance(given[0], str):
        given = given[0].replace(",", " ").split()
    if isinstance(given, dict):
        found = {(aliases or {}).get(key, key): value for key, value in given.items()}
        unknown = [key for key in found if key not in keys]
        if unknown:
            raise RequestError(f"usage: {_usage(keys, required)}; unknown {', '.join(unknown)}")
    else:
        if len(given) > len(keys):
            raise RequestError(f"usage: {_usage(keys, required)}; found {len(given)} values")
        found = dict(zip(keys, given, strict=False))
    missing = [key for key in keys[:required] if found.get(key) is None]
    if missing:
        raise RequestError(f"usage: {_usage(keys, required)}; missing {', '.join(missing)}")
    return found


def number(name: str, value: Any) -> float:
    """Return a finite number, which may be written as text."""
    try:
        result = float(value) if isinstance(value, str | int | float) else math.nan
    except (OverflowError, ValueError):
        result = math.nan
    if isinstance(value, bool) or not math.isfinite(result):
        raise RequestError(f"{name} must be numeric, found {value!r}")
    return result


def integer(name: str, value: Any) -> int:
    """Return an integer, which may be written as text."""
    try:
        if isinstance(value, bool):
            raise ValueError
        result = int(value) if isinstance(value, str) else value
        if isinstance(result, float) and result.is_integer():
            return int(result)
        if isinstance(result, int):
            return result
    except ValueError:
        pass
    raise RequestError(f"{name} must be integer, found {value!r}")


def flag(name: str, value: Any) -> bool:
    """Return a truth value, which may be written as text or as 0 or 1."""
    known = {"true": True, "false": False, "1": True, "0": False, "": False, "none": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise RequestError(f"{name} must be true or false, found {value!r}") from None


def branch(value: Any) -> str:
    """Return "LO" or "HO", which may be written in lower case."""
    text = value.strip().upper() if isinstance(value, str) else ""
    if text not in ("LO", "HO"):
        raise RequestError('branch must be "HO" or "LO"', branch=value)
    return text


def _usage(keys: Sequence[str], required: int) -> str:
    words = [f"<{key}>" if i < required else f"[{key}]" for i, key in enumerate(keys)]
    return f"{' '.join(words)}, as a list, as an object with these keys, or as one text"
