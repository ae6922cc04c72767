"""Properties of the commander protocol for any request and any result."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baldr_tango.errors import RequestError
from legacy_zmq.protocol import encode, parse, reply

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
near_requests = st.builds(
    "".join,
    st.lists(
        st.sampled_from([*' \0\n[]{}",:\\-1é', "status", "exit", "cmd", "1e5", "NaN", "null", "\\u", "d800"]),
        max_size=30,
    ),
)
results = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8), inner, max_size=4)
        | st.lists(st.floats(), max_size=4).map(np.array)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=200) | st.text(max_size=200) | near_requests)
@example(b"")
@example(b"\0")
def test_any_request_is_parsed_or_refused(message):
    try:
        name, arguments = parse(message)
    except RequestError:
        return
    else:
        assert name
        assert isinstance(arguments, list)
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode("utf-8")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | near_requests, results)
def test_any_reply_is_json_in_utf_8_or_the_literal(message, result):
    sent = reply(message, lambda name, arguments: "Exiting!" if name.lower() == "exit" else result)
    assert not sent.endswith("\0")
    if sent != "Exiting!":
        json.loads(sent.encode("utf-8"), parse_constant=_no_constant)


def _no_constant(text):
    raise AssertionError(f"{text} in a reply")


@settings(deadline=None, max_examples=300)
@given(names, st.lists(json_values, max_size=4), st.sampled_from(["", "\0", "\n", " ", "\0\n"]))
def test_arguments_arrive_as_they_were_sent(name, arguments, ending):
    listed = f"{name} {json.dumps(arguments)}{ending}"
    assert parse(listed) == (name, arguments)
    bare = f"{name} {', '.join(json.dumps(value, ensure_ascii=False) for value in arguments)}{ending}"
    if len(arguments) == 1 and isinstance(arguments[0], list):
        assert parse(bare) == (name, arguments[0])  # a lone array is the list of arguments
    else:
        assert parse(bare) == (name, arguments)


@settings(deadline=None)
@given(st.lists(st.floats()))
def test_every_finite_number_of_a_reply_is_exact_and_every_other_is_null(numbers):
    for read, sent in zip(json.loads(encode(np.array(numbers))), numbers, strict=True):
        assert read == sent if math.isfinite(sent) else read is None
