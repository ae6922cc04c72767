"""The commander protocol as pure functions: text in, text out.

A request is a command name and, after the first blank, JSON arguments. Both dialects in use are
understood: ``cmd 2,3`` (positional values, the C++ server) and ``cmd [2,3]`` (one list, the
specification). A reply is compact JSON in UTF-8, except the literal ``Exiting!`` for ``exit``.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from baldr_tango.errors import BaldrError, RequestError
from baldr_tango.interface.command import Json

log = logging.getLogger(__name__)

Execute: TypeAlias = Callable[[str, list[Json]], Any]
"""The door: runs a command by name with positional arguments."""

MAX_REQUEST_BYTES: Final = 1 << 20
"""Longest request accepted (1 MiB); the longest one in use, 1024 pixel values, has about 20 kB."""

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects accepted; no command needs more than 3."""

_PADDING: Final = " \t\r\n\0"
_NAME: Final = re.compile(r"[A-Za-z_]\w{0,127}", re.ASCII)
_INT64: Final = range(-(1 << 63), 1 << 63)
_MAX_INT_DIGITS: Final = 20
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
_GRAMMAR: Final = 'a command name, then JSON values: cmd, cmd 2,3, cmd [2,3], cmd {"key": 1} or cmd "text"'


def parse(message: str | bytes) -> tuple[str, list[Json]]:
    """Split a request into command name and positional arguments.

    Leading blanks and trailing blanks, newlines and NULs are ignored. A lone array stands for the
    list of arguments; it is unwrapped once, so ``cmd [[2,3]]`` passes one list.

    Raises `RequestError` for anything that is not a request, saying what is allowed.
    """
    text = _decode(message).strip(_PADDING)
    if not text:
        raise RequestError(f"empty request; expected {_GRAMMAR}")
    name, *rest = re.split(r"[ \t\r\n]+", text, maxsplit=1)
    if not _NAME.fullmatch(name):
        raise RequestError(f"{_shorten(name)} is not a command name; expected {_GRAMMAR}")
    return name, _arguments(name, rest[0]) if rest else []


def reply(message: str | bytes, execute: Execute) -> str:
    """Answer one commander message; every failure becomes an error reply."""
    try:
        name, arguments = parse(message)
    except RequestError as error:
        return error_reply(str(error))
    return run(name, arguments, execute)


def run(name: str, arguments: list[Json], execute: Execute) -> str:
    """Execute a parsed request and word its reply; never raises."""
    try:
        result = execute(name, arguments)
        if isinstance(result, str) and name.lower() == "exit":
            return result
        return encode(result)
    except RequestError as error:
        return error_reply(error.text, error.details)
    except BaldrError as error:
        return error_reply(str(error))
    except Exception as error:
        log.exception("%s failed in an unforeseen way", name)
        return error_reply(f"{name}: {type(error).__name__}: {error}")


def error_reply(text: str, details: Mapping[str, Any] | None = None) -> str:
    """Word a failure; ``ok`` is false because the back-end server takes any other object as success.

    details : further keys of the reply.
    """
    return encode({**(details or {}), "ok": False, "error": text})


def encode(value: Any) -> str:
    """Write a value as the C++ server would: compact, keys sorted, NaN and infinity as null, no NUL.

    numpy scalars and arrays, enumerations, paths and dataclasses are converted.

    Raises `TypeError` for a value that JSON cannot express.
    """
    text = _ENCODER.encode(to_json(value))
    # A file name that is not UTF-8 arrives as lone surrogates, which no reply may carry.
    return text.encode("utf-8", "replace").decode("utf-8")


def to_json(value: Any) -> Json:
    """Convert a value to plain JSON types; non-finite numbers become None."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else None
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(to_json(key)): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"JSON cannot express {type(value).__name__}")


def _decode(message: str | bytes) -> str:
    if len(message) > MAX_REQUEST_BYTES:
        raise RequestError(
            f"request of {len(message)} bytes is too long; at most {MAX_REQUEST_BYTES} are accepted"
        )
    if isinstance(message, str):
        _check_text(message)
        return message
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"request is not UTF-8 text: byte 0x{message[error.start]:02x} at position {error.start};"
            f" expected {_GRAMMAR}"
        ) from None


def _arguments(name: str, text: str) -> list[Json]:
    try:
        values = json.loads(
            f"[{text}]", parse_constant=_refuse_constant, parse_int=_integer, parse_float=_number
        )
        _check_depth(values)
        if "\\u" in text:  # an escaped half of a surrogate pair is JSON for Python
            _check_text(json.dumps(values, ensure_ascii=False))
    except RecursionError:
        raise RequestError(f"{name}: arguments are nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        position = max(error.pos - 1, 0)
        raise RequestError(
            f"{name}: arguments are not JSON at character {position}"
            f" ({_shorten(text[position:]) if text[position:] else 'end of request'}: {error.msg});"
            f" expected {_GRAMMAR}; text needs double quotes"
        ) from None
    except RequestError as error:
        raise RequestError(f"{name}: {error}") from None
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _refuse_constant(text: str) -> float:
    raise RequestError(f"{text} is not a finite number")


def _integer(text: str) -> int:
    if len(text) > _MAX_INT_DIGITS or int(text) not in _INT64:
        raise RequestError(f"{_shorten(text)} does not fit a 64-bit integer")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RequestError(f"{_shorten(text)} is too large for a number")
    return value


def _check_depth(values: list[Json]) -> None:
    """Raise `RequestError` when `values` is nested too deep; level by level, without recursion."""
    level: list[Any] = [values]
    for _ in range(MAX_DEPTH + 1):
        containers = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in containers for item in items if isinstance(item, list | dict)]
        if not level:
            return
    raise RequestError(f"arguments are nested more than {MAX_DEPTH} deep")


def _check_text(text: str) -> None:
    """Raise `RequestError` when `text` cannot be sent or stored."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("half a surrogate pair is not text") from None


def _shorten(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[:most] + "...")
