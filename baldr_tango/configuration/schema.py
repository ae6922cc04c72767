"""Declaration and check of configuration keys: each key is declared once, as a dataclass field.

A table of the runtime file is a frozen dataclass whose fields are made by `key`. From this one
declaration come the default, the check of a value read from a file, and the row of the manual.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from baldr_tango.errors import ConfigError

Settings = TypeVar("Settings")

Gain = typing.Union[float, tuple[float, ...]]  # noqa: UP007 - also read at run time by `get_type_hints`
"""One number for all modes, or one number per mode."""


@dataclass(frozen=True)
class Key:
    """What is allowed for one key, and what it means."""

    doc: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    length: tuple[int, int] | None = None

    def allowed(self) -> str:
        """Return the allowed values in words; empty when everything of the right type is."""
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        parts = []
        if self.above is not None:
            parts.append(f"> {self.above:g}")
        if self.minimum is not None:
            parts.append(f">= {self.minimum:g}")
        if self.maximum is not None:
            parts.append(f"<= {self.maximum:g}")
        if self.length is not None:
            low, high = self.length
            parts.append(f"{low} items" if low == high else f"{low} to {high} items")
        return ", ".join(parts)


@dataclass(frozen=True)
class KeyRow:
    """One row of the generated reference of configuration keys."""

    table: str
    key: str
    type: str
    default: str
    unit: str
    allowed: str
    doc: str


def key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: Sequence[str] = (),
    length: tuple[int, int] | None = None,
) -> Any:
    """Declare a key: its default, its meaning in one sentence, its unit and what is allowed.

    `minimum` and `maximum` are allowed values, `above` is not; for a list they hold for each item.
    """
    declaration = Key(doc, unit, minimum, maximum, above, tuple(choices), length)
    return dataclasses.field(default=default, metadata={"key": declaration})


def declared_keys(settings: type) -> dict[str, Key]:
    """Return the keys that the dataclass `settings` declares, in order."""
    return {field.name: field.metadata["key"] for field in dataclasses.fields(settings)}


def fault(file: Path | str, name: str, found: object, expected: str) -> ConfigError:
    """Return the error of one wrong value: file, key, what was found, what was expected."""
    text = found if isinstance(found, Found) else repr(found)
    if len(text) > 80:
        text = text[:77] + "..."
    return ConfigError(f"{file}: {name}: found {text}, expected {expected}")


class Found(str):
    """Words for what was found, where the value itself would not help."""


def unknown(file: Path | str, kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error of an unknown table or key, with the nearest known name."""
    last = name.rsplit(".", 1)[-1]
    names = list(known)
    near = difflib.get_close_matches(last, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"{file}: {name}: unknown {kind}, expected one of {', '.join(sorted(names))}{hint}")


def check_table(file: Path | str, table: str, values: object, settings: type) -> dict[str, Any]:
    """Check the keys and values of one table against the declarations of `settings`.

    Returns the values that the table gives, converted (a list becomes a tuple, an integer in a float
    key a float, a path text a `Path`). Raises `ConfigError` for anything that is not declared.
    """
    if not isinstance(values, Mapping):
        raise fault(file, f"[{table}]", values, "a table")
    declared = declared_keys(settings)
    hints = typing.get_type_hints(settings)
    checked = {}
    for name, value in values.items():
        if name not in declared:
            raise unknown(file, "key", f"{table}.{name}", declared)
        checked[name] = check_value(file, f"{table}.{name}", value, hints[name], declared[name])
    return checked


def build(file: Path | str, table: str, values: object, settings: type[Settings]) -> Settings:
    """Make the dataclass `settings` from one table; missing keys take their defaults."""
    return settings(**check_table(file, table, values, settings))


def check_value(file: Path | str, name: str, value: object, hint: Any, declaration: Key) -> Any:
    """Check one value against its declared type and range, and convert it."""
    expected = " ".join(filter(None, [type_name(hint), declaration.allowed()]))
    members = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union:
        hint = tuple[float, ...] if isinstance(value, list) else float
        members = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise fault(file, name, value, expected)
        if declaration.length and not declaration.length[0] <= len(value) <= declaration.length[1]:
            raise fault(file, name, Found(f"{len(value)} items"), expected)
        return tuple(
            _check_scalar(file, f"{name}[{i}]", item, members[0], declaration, expected)
            for i, item in enumerate(value)
        )
    return _check_scalar(file, name, value, hint, declaration, expected)


def _check_scalar(
    file: Path | str, name: str, value: object, kind: type, declaration: Key, expected: str
) -> Any:
    wrong = fault(file, name, value, expected)
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
        return value
    if kind in (str, Path):
        if not isinstance(value, str) or (declaration.choices and value not in declaration.choices):
            raise wrong
        if kind is Path and not value:
            raise wrong
        return kind(value)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise wrong
    number = kind(value) if abs(value) < _HUGE else math.inf
    if not math.isfinite(number):
        raise wrong
    too_low = (declaration.minimum is not None and number < declaration.minimum) or (
        declaration.above is not None and number <= declaration.above
    )
    if too_low or (declaration.maximum is not None and number > declaration.maximum):
        raise wrong
    return number


_HUGE = 10**300  # Python integers have no end, floats have

_TYPE_NAMES = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "path"}


def type_name(hint: Any) -> str:
    """Return the name of a declared type as the manual says it."""
    if typing.get_origin(hint) is typing.Union:
        return "number or list of numbers"
    if typing.get_origin(hint) is tuple:
        return f"list of {_TYPE_NAMES[typing.get_args(hint)[0]]}s"
    return _TYPE_NAMES[hint]


def describe(table: str, settings: type) -> list[KeyRow]:
    """Return the rows of the manual for one table."""
    hints = typing.get_type_hints(settings)
    return [
        KeyRow(
            table,
            field.name,
            type_name(hints[field.name]),
            toml_text(field.default),
            field.metadata["key"].unit,
            field.metadata["key"].allowed(),
            field.metadata["key"].doc,
        )
        for field in dataclasses.fields(settings)
    ]


def toml_text(value: object) -> str:
    """Write a default as it would stand in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_text(item) for item in value) + "]"
    return repr(value)
