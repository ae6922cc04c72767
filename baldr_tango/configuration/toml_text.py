"""Write TOML whose matrices take one line per row, as calibration files have them.

Everything else is left to `tomli_w`, which puts each number of an array on a line of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tomli_w


def table_text(content: Mapping[str, Any], path: tuple[str, ...] = (), brackets: str = "[]") -> str:
    """Return the TOML text of nested tables; numpy arrays and lists of numbers become rows.

    `path` and `brackets` are those of the header of `content` itself.
    """
    tables = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    lists = {name: value for name, value in content.items() if _is_list_of_tables(value)}
    values = {name: value for name, value in content.items() if name not in tables and name not in lists}
    text = ""
    if path and (values or not tables or len(brackets) > 2):
        opening, closing = brackets[: len(brackets) // 2], brackets[len(brackets) // 2 :]
        text += f"\n{opening}{'.'.join(_key(name) for name in path)}{closing}\n"
    text += "".join(_assignment(name, value) for name, value in values.items())
    text += "".join(table_text(value, (*path, name)) for name, value in tables.items())
    return text + "".join(
        table_text(item, (*path, name), "[[]]") for name, items in lists.items() for item in items
    )


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _assignment(name: str, value: Any) -> str:
    if isinstance(value, (list, tuple, np.ndarray)):
        array = _numbers(value)
        if array is not None:
            return f"{_key(name)} = {_rows(array)}\n"
    return tomli_w.dumps({name: value})


def _numbers(value: Any) -> np.ndarray | None:
    """Return `value` as a finite numeric array of one or two dimensions; None if it is no such thing."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not np.isfinite(array).all():
        return None
    return array


def _rows(array: np.ndarray) -> str:
    if array.ndim == 1:
        return json.dumps(array.tolist())
    return "[\n" + "".join(f"  {json.dumps(row)},\n" for row in array.tolist()) + "]"


def _key(name: str) -> str:
    """Return a key as TOML wants it, quoted if need be."""
    return tomli_w.dumps({name: 0}).rpartition(" = ")[0]
