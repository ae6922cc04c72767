"""Keywords of a stream: up to a few dozen named values with a comment, 120 bytes each."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np

from baldr_tango.errors import RequestError
from baldr_tango.streams.layout import KEYWORD
from baldr_tango.streams.streamfile import StreamFile

MAX_KEYWORD_NAME: Final = 15
MAX_KEYWORD_TEXT: Final = 15
MAX_KEYWORD_COMMENT: Final = 79
"""Longest texts [bytes]; one less than their fields, for the NUL that C expects."""

UNUSED: Final = b"N"


class Keyword(NamedTuple):
    """One keyword in use."""

    name: str
    value: int | float | str
    comment: str = ""


def read_keywords(file: StreamFile) -> list[Keyword | None]:
    """Read all places for keywords of a stream; None for an unused one."""
    table = file.read_table(file.layout.keyword_offset, file.layout.keywords, KEYWORD)
    return [decode_keyword(record) for record in table]


def write_keyword(file: StreamFile, keyword: Keyword) -> None:
    """Put a keyword into the place of the same name, else into the first unused one.

    Raises
    ------
    RequestError : the keyword does not fit, or no place is left.
    """
    encoded = encode_keyword(keyword)
    present = read_keywords(file)
    places = [i for i, other in enumerate(present) if other is not None and other.name == keyword.name]
    places += [i for i, other in enumerate(present) if other is None]
    if not places:
        raise RequestError(f"{file.path}: no place for keyword {keyword.name}, all {len(present)} are in use")
    file.write_at(file.layout.keyword_offset + places[0] * KEYWORD.itemsize, encoded)


def decode_keyword(record: np.void) -> Keyword | None:
    """Read one KEYWORD record; None when it is unused or of an unknown type."""
    kind = bytes(record["type"])
    raw = bytes(record["value"])
    value: int | float | str
    if kind == b"L":
        value = struct.unpack_from("<q", raw)[0]
    elif kind == b"D":
        value = struct.unpack_from("<d", raw)[0]
    elif kind == b"S":
        value = _text(raw)
    else:
        return None
    return Keyword(_text(bytes(record["name"])), value, _text(bytes(record["comment"])))


def encode_keyword(keyword: Keyword) -> bytes:
    """Write one keyword as the 120 bytes of its record.

    The type follows the value: int "L" (int64), float "D" (double), str "S" (at most 15 characters).

    Raises
    ------
    RequestError : the value, the name or the comment does not fit.
    """
    name, value, comment = keyword
    if not name:
        raise RequestError("keyword name '': expected at least one character")
    record = np.zeros(1, KEYWORD)
    record["name"] = _field(f"keyword name {name!r}", name, MAX_KEYWORD_NAME)
    record["comment"] = _field(f"comment of keyword {name}", comment, MAX_KEYWORD_COMMENT)
    if isinstance(value, str):
        kind, raw = b"S", _field(f"value of keyword {name}", value, MAX_KEYWORD_TEXT)
    elif isinstance(value, float):
        kind, raw = b"D", struct.pack("<d", value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**63:
            raise RequestError(f"value of keyword {name}: {value} does not fit into 64 bits")
        kind, raw = b"L", struct.pack("<q", value)
    else:
        raise RequestError(f"value of keyword {name}: {value!r}, expected an int, a float or a text")
    record["type"] = kind
    record["value"] = np.void(raw.ljust(16, b"\0"))
    return record.tobytes()


def unused_keywords(number: int) -> bytes:
    """Write `number` records that hold no keyword."""
    records = np.zeros(number, KEYWORD)
    records["type"] = UNUSED
    return records.tobytes()


def _field(what: str, text: str, longest: int) -> bytes:
    if not text.isascii() or "\0" in text or len(text) > longest:
        raise RequestError(f"{what}: {text!r}, expected at most {longest} ASCII characters")
    return text.encode("ascii")


def _text(field: bytes) -> str:
    """Decode up to the first NUL; some writers pad with blanks instead."""
    return field.split(b"\0", 1)[0].decode("ascii", "backslashreplace").rstrip(" ")
