"""Whatever a client sends to fields and controllers is answered, and takes effect whole or not at all."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldr_tango.beam.controllers import ENTRIES
from baldr_tango.beam.fields import FIELDS
from baldr_tango.commands import execute
from legacy_zmq.protocol import reply
from tests.beam_bench import BeamBench
from tests.unit.configuration_problem import SIGNALS

numbers = st.one_of(
    st.integers(-3, 200),
    st.floats(-1.5, 1.5),
    st.sampled_from([1e300, -1e300, 1e-320, 2**31, -(2**31) - 1, 2**63, 10**30, 0.0, -0.0, float("nan")]),
)
leaves = st.one_of(
    numbers, st.booleans(), st.none(), st.text(max_size=5), st.sampled_from(["all", "0,1", "PID"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
) | st.lists(st.floats(-1.0, 1.0), min_size=SIGNALS, max_size=SIGNALS)
paths = st.sampled_from([entry.path for entry in FIELDS]) | st.text(max_size=12)
names = st.sampled_from(
    sorted({e.name for entries in ENTRIES.values() for e in entries} | {"ctrl_type", "ki", "nope"})
)
branches = st.sampled_from(["LO", "HO", "lo", "X", ""])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with BeamBench(tmp_path_factory.mktemp("properties")) as running:
        yield running


def everything(bench):
    """All that can be read."""
    fields = {entry.path: bench.ask("get_rtc_field", entry.path)["value"] for entry in FIELDS}
    gains = {
        (which, row["name"]): bench.ask("ctrl_get", which, row["name"])["value"]
        for which in ("LO", "HO")
        for row in bench.ask("ctrl_list", which)["params"]
    }
    return fields, gains


def check(bench, name, *arguments):
    """Give a command; a refusal must have changed nothing, and all that the loop holds must be finite."""
    before, version = everything(bench), bench.loop.slots.version
    answer = json.loads(reply(f"{name} {json.dumps(arguments)}", partial(execute, bench.beam)))
    assert "internal error" not in str(answer)
    if answer.get("ok") is False:
        assert answer["error"]
        assert everything(bench) == before
        assert bench.loop.slots.version == version
    p = bench.loop.arrays.parameters
    slot = bench.loop.slots.version & 1
    for array in (p.reference, p.inverse_clear_pupil, p.kp_lo, p.ki_ho, p.limits, p.reconstructor_ho.weights):
        assert np.isfinite(array[slot]).all()
    assert bench.loop.is_alive


everywhere = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@everywhere
@given(path=paths, value=values)
def test_set_rtc_field(bench, path, value):
    check(bench, "set_rtc_field", path, value)


@everywhere
@given(which=branches, name=names, value=values)
def test_ctrl_set(bench, which, name, value):
    check(bench, "ctrl_set", which, name, value)


@everywhere
@given(which=branches, name=names, indices=leaves | st.lists(leaves, max_size=3), value=leaves)
def test_update_ctrl_param_and_dg(bench, which, name, indices, value):
    check(bench, "update_ctrl_param", which, name, indices, value)
    check(bench, "dg", which, name, indices, value)
    check(bench, "dg", which, name, value)
