"""The quick reader of TOML against the standard library: the same content, or the same complaint."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldr_tango.configuration.toml_reading import parse_toml
from tests.real_data import FILES, needs_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _outcome(read: Any, text: str) -> tuple[str, str]:
    """Return what a reader makes of a text, so that -0.0, nan, 1 and True are told from 0.0, 1.0 and 1."""
    try:
        return "content", repr(read(text))
    except (ValueError, RecursionError) as error:
        return type(error).__name__, str(error)


def _check(text: str) -> None:
    assert _outcome(parse_toml, text) == _outcome(tomllib.loads, text)


@pytest.mark.parametrize(
    "text",
    [
        "a = [1, 2.5, -0.0, -0, 1e300, 1E-320, 1e999]\n",
        "a = [ [ 0.1, 0.2,], [ 1, 2,],]\nb = [ 3 ]  # remark\n[t.u]\nc = [1,\n 2,\n]\n",
        "a = [1]\r\nb = [\r\n2,\r\n]\r\n",
        "[[t]]\na = [1]\n[[t]]\na = [2]\n",
        'a = """\nb = [1, 2]\n"""\nc = [3]\n',
        "a = '''\nb = [1, 2]\n'''\n",
        'a = [\n"""\nb = [1, 2]\n""",\n]\n',
        "a.b = [1]\n'c' = [2]\n\"d\" = [3]\n  e = [4]\n",
        "a = [1, 2]\n[3]\nb = [4]\n[[5]]\n[[5]]\n",
        "a = [01]\n",
        "a = [+1, 1_000, 0x1f, inf, nan]\n",
        "a = [1.]\n",
        "a = [.5]\n",
        "a = [1,,]\n",
        "a = [,]\n",
        "a = []\nb = [ [], [], ]\n",
        "a = [1 2]\n",
        "a = [2024-01-01, 07:32]\n",
        "a = [1]\na = [2]\n",
        "a = [1]\n[a]\nb = 1\n",
        "x = 1\na = [1, 2]\nb = nonsense\n",
        "a = [1,\n2,\n3]\nb = [4\n",
        "a = [1]]\n",
        "a = [1] b = [2]\n",
        "a = [1,\r2]\n",
        "a = [1, # one\n 2]\n",
        "a = [" + "9" * 5000 + "]\n",
    ],
)
def test_it_reads_and_complains_as_the_standard_library(text: str) -> None:
    _check(text)


def test_arrays_in_arrays_are_read_or_refused_however_deep() -> None:
    """How deep is too deep is a matter of the Python version, and of the parser."""
    depth = 3000
    try:
        found = parse_toml("a = " + "[" * depth + "]" * depth)["a"]
    except RecursionError:
        return
    for _ in range(depth - 1):
        (found,) = found
    assert found == []


_numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
_pieces = st.one_of(
    _numbers.map(repr),
    st.sampled_from(
        [
            "a = [",
            "b = [[",
            "]",
            "]]",
            ",",
            " ",
            "\n",
            "\r\n",
            "[t]\n",
            "[1]\n",
            "= ",
            "c",
            '"',
            '"""\n',
            "'''",
            "#",
        ]
    ),
    st.lists(st.lists(_numbers, max_size=3), max_size=3).map(lambda rows: f"\nx = {json.dumps(rows)}\n"),
    st.lists(_numbers, max_size=3).map(lambda row: "\n1e = [ " + "".join(f"{n!r}, " for n in row) + "]\n"),
)


@given(st.lists(_pieces, max_size=12).map("".join))
def test_no_mixture_of_the_pieces_of_toml_tells_them_apart(text: str) -> None:
    _check(text)


@given(st.lists(_numbers))
def test_numbers_are_those_that_were_written(numbers: list[float]) -> None:
    assert repr(parse_toml(f"a = {numbers!r}\n")) == repr({"a": numbers})


@pytest.mark.real_data
@needs_files
@pytest.mark.parametrize("beam", FILES)
def test_calibration_files_of_the_instrument(beam: int) -> None:
    text = FILES[beam].read_text()
    assert repr(parse_toml(text)) == repr(tomllib.loads(text))
