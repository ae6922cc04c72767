"""Read TOML whose content is mostly matrices: the same result as `tomllib`, ten times sooner.

`tomllib` is Python code that looks at every character: half a second for a calibration file, and as much
for each of four beams, because it holds the GIL. An array of plain numbers on a key of its own, however, is
the same text in TOML and in JSON but for trailing commas, and `json` is C code that makes its numbers with
the same ``int`` and ``float``. Such arrays are read by `json`, everything around them, and every array that
is not so plain, by `tomllib`.
"""

from __future__ import annotations

import json
import re
import sys
from hashlib import sha256
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ARRAY: Final = re.compile(
    r"^([A-Za-z0-9_-]+[ \t]*=[ \t]*)(\[[-0-9eE.,\[\] \t\n]*\])(?=[ \t]*$)", re.MULTILINE
)
"""A key at the beginning of a line, and an array with nothing but numbers; the line ends after it."""

_TRAILING: Final = re.compile(r",(?=[ \t\n]*\])(?<=[0-9\]],)")
"""A comma after the last member, which JSON does not know."""


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of a TOML document: what ``tomllib.loads`` returns, to the last bit.

    Raises `ValueError` as ``tomllib.loads``, with its message and line number.
    """
    try:
        document = _parse_quickly(text)
    except (ValueError, RecursionError):
        document = None
    # tomllib has the last word, and the line number, on whatever is unusual.
    return tomllib.loads(text) if document is None else document


def _parse_quickly(text: str) -> dict[str, Any] | None:
    """Return the content; None when something that looked like an array of a key was none."""
    text = text.replace("\r\n", "\n")
    # No document contains its own digest: nobody else's text can be taken for one of these.
    mark = sha256(text.encode()).hexdigest()
    arrays: dict[str, list[Any]] = {}

    def set_aside(found: re.Match[str]) -> str:
        try:
            array = json.loads(_TRAILING.sub("", found[2]))
        except (ValueError, RecursionError):
            return found[0]
        name = f"{mark}:{len(arrays)}"
        arrays[name] = array
        return f'{found[1]}"{name}"'

    rest = _ARRAY.sub(set_aside, text)
    document = tomllib.loads(rest)
    return document if _put_back(document, arrays) == len(arrays) else None


def _put_back(content: dict[str, Any], arrays: dict[str, list[Any]]) -> int:
    """Put the arrays in the places that their names keep; return how many there were."""
    count = 0
    for key, value in content.items():
        if isinstance(value, str):
            if value in arrays:
                content[key] = arrays[value]
                count += 1
        elif isinstance(value, dict):
            count += _put_back(value, arrays)
        elif isinstance(value, list):
            count += sum(_put_back(member, arrays) for member in value if isinstance(member, dict))
    return count
