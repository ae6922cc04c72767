"""Arguments of many forms: whatever is sent, a command does it whole or refuses it and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldr_tango.commands import execute, forms
from baldr_tango.errors import RequestError
from baldr_tango.kernels import loop_data as d
from tests.mirror_bench import MirrorBench, mirror_problem

NUMBERS = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 150) | st.floats(allow_nan=False, allow_infinity=False)
)
WORDS = st.sampled_from(
    [
        "LO",
        "ho",
        "zonal",
        "KL",
        "m2c_lo",
        "sine",
        "prbs",
        "off",
        "command",
        "setpoint",
        "true",
        "0.1",
        "1e999",
        "nan",
        ",",
    ]
) | st.sampled_from(["HO 65 0.1", "LO zernike 0 0.01 true", "", " "])
KEYS = st.sampled_from(
    [
        "branch",
        "idx",
        "value",
        "basis",
        "index",
        "amplitude",
        "accumulate",
        "method",
        "apply_to",
        "waveform",
        "reads",
        "hold_frames",
        "latency_frames",
        "t_start_s",
        "t_stop_s",
        "freq_hz",
        "enabled",
        "chirp_T",
        "x",
    ]
)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=8
)
COMMANDS = (
    *("ol_set_actuator", "ol_set_mode", "clear_openloop_offsets"),
    *("change_boxcar", "tt_inj", "inject", "inject_off"),
)


@pytest.fixture(scope="module")
def bench():
    with MirrorBench(mirror_problem()) as running:
        yield running


def everything(bench):
    """What these commands can change."""
    slots = bench.loop.slots
    offsets = bench.beam.offsets
    return (
        slots.version,
        bench.beam.injection.settings,
        bench.beam.processing.boxcar,
        offsets.map("LO").tobytes(),
        offsets.map("HO").tobytes(),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(COMMANDS), arguments=st.lists(VALUES, max_size=5))
def test_no_argument_does_half_of_anything(bench, name, arguments):
    before = everything(bench)
    try:
        reply = execute(bench.beam, name, arguments)
    except RequestError:
        assert everything(bench) == before
    else:
        assert reply["ok"] is True
    slots = bench.loop.slots
    for branch in ("lo", "ho"):
        shown = slots.current(f"offset_{branch}")
        assert np.abs(shown).max() <= bench.parameters.limits.command
        np.testing.assert_allclose(
            shown, bench.beam.offsets.map(branch.upper()) if shown.any() else 0, atol=1e-6
        )
    assert slots.switch(d.INJECT) == int(bench.beam.injection.is_on)


@pytest.mark.parametrize("amplitude", [1e307, -1e307, 1e30, 10**18])
def test_numbers_beyond_all_measure_are_refused(bench, amplitude):
    before = everything(bench)
    for request in (
        ("ol_set_mode", "LO", "m2c_lo", 0, amplitude),
        ("ol_set_mode", "HO", "m2c_lo", 0, 10 * amplitude, True),
        ("ol_set_actuator", "HO", 65, amplitude),
        ("inject", {"waveform": "step", "basis": "m2c_lo", "branch": "ALL", "amplitude": amplitude}),
    ):
        with pytest.raises(RequestError, match=r"limits\.command"):
            execute(bench.beam, request[0], request[1:])
    assert everything(bench) == before


class TestForms:
    """The three forms."""

    KEYS = ("branch", "idx", "value")

    @pytest.mark.parametrize(
        "values",
        [
            ("HO", 65, 0.1),
            (["HO", 65, 0.1],),
            ({"branch": "HO", "idx": 65, "value": 0.1},),
            ({"place": 65, "value": 0.1, "branch": "HO"},),
            ("HO", 65, 0.1, None, ""),
        ],
    )
    def test_they_mean_the_same(self, values):
        found = forms.named(values, self.KEYS, 3, {"place": "idx"})
        assert found == {"branch": "HO", "idx": 65, "value": 0.1}

    @pytest.mark.parametrize("text", ["HO 65 0.1", " HO,65, 0.1 ", "HO\t65\n0.1"])
    def test_a_text_is_words(self, text):
        assert forms.named((text,), self.KEYS, 3) == {"branch": "HO", "idx": "65", "value": "0.1"}

    @pytest.mark.parametrize(
        ("value", "number"),
        [(3, 3.0), ("3", 3.0), ("-1e-3", -0.001), (0.5, 0.5), (10**400, None), ("1e999", None)],
    )
    def test_numbers(self, value, number):
        if number is None:
            with pytest.raises(RequestError, match="value must be numeric"):
                forms.number("value", value)
        else:
            assert forms.number("value", value) == number

    @pytest.mark.parametrize(("value", "truth"), [(True, True), ("FALSE", False), (1, True), (None, False)])
    def test_flags(self, value, truth):
        assert forms.flag("flag", value) is truth
