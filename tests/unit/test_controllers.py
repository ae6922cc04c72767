"""Commands of the controllers: replies, refusals, and what the loop does with it."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from baldr_tango.beam.controllers import ENTRIES
from baldr_tango.commands import execute
from baldr_tango.configuration.kalman import kalman_model
from baldr_tango.errors import RequestError, StateError
from legacy_zmq.protocol import reply
from tests.beam_bench import BeamBench
from tests.unit.configuration_problem import SIGNALS


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with BeamBench(tmp_path_factory.mktemp("controllers")) as running:
        yield running


@pytest.fixture
def bench(shared):
    """A beam whose configuration has just been loaded: PID, ki 0.3."""
    shared.ask("readBDRConfig", str(shared.directory / "calibration.toml"))
    shared.wait_running()
    return shared


def say(bench, message):
    """Send a commander message; return the decoded reply."""
    return json.loads(reply(message, partial(execute, bench.beam)))


def get(bench, which, name):
    return np.array(bench.ask("ctrl_get", which, name)["value"])


VECTORS = [
    (
        'ctrl_get ["LO","kp"]',
        {"name": "kp", "ok": True, "type": "vector<double>", "value": [0.0, 0.0], "which": "LO"},
    ),
    (
        'ctrl_get ["lo","ctrl_type"]',
        {"name": "ctrl_type", "ok": True, "type": "string", "value": "PID", "which": "lo"},
    ),
    (
        'ctrl_set ["LO","kp",[0.1,0.2]]',
        {"name": "kp", "ok": True, "type": "vector<double>", "value": [0.1, 0.2], "which": "LO"},
    ),
    (
        'update_ctrl_param ["LO","ki","all",0.1]',
        {
            "controller": "lo",
            "indices": "all",
            "parameter": "ki",
            "size": 2,
            "status": "success",
            "value": 0.1,
        },
    ),
    (
        'dg ["LO","ki",0.02]',
        {
            "controller": "lo",
            "delta": 0.02,
            "indices": "all",
            "parameter": "ki",
            "size": 2,
            "status": "success",
        },
    ),
    ('ctrl_get "XX","kp"', {"error": "controller not initialized", "ok": False, "which": "XX"}),
    (
        'ctrl_set ["LO","kp",0.5]',
        {"error": "value is neither vector nor matrix", "name": "kp", "ok": False, "which": "LO"},
    ),
    (
        'ctrl_set ["LO","kp",[[0.5]]]',
        {"error": "PID::set_parameter does not accept matrices for key: kp", "ok": False},
    ),
    ('ctrl_set ["LO","zz",[1,2]]', {"error": "PID::set_parameter unknown vector: zz", "ok": False}),
    ('ctrl_get ["LO","nope"]', {"error": "PID::get_parameter unknown key: nope", "ok": False}),
    ('ctrl_set ["LO","kp",[0.5]]', {"error": "kp: expected 2 values, found 1", "ok": False}),
    ('update_ctrl_param ["LO","ki","7",0.1]', {"error": "Index 7 out of range for ki (size 2)", "ok": False}),
    ('update_ctrl_param ["LO","zz","all",0.1]', {"error": "Invalid parameter: zz", "ok": False}),
    (
        'update_ctrl_param ["XX","ki","all",0.1]',
        {"error": 'Invalid controller: use "LO" or "HO"', "ok": False},
    ),
    ('update_ctrl_param ["LO","ki","",0.1]', {"error": "No valid indices provided", "ok": False}),
    (
        'dg ["LO","set_point",0.1]',
        {"error": "Invalid parameter for dg: set_point (use kp|ki|kd)", "ok": False},
    ),
]


@pytest.mark.parametrize(("message", "expected"), VECTORS)
def test_replies_are_those_of_the_legacy_server(bench, message, expected):
    answer = say(bench, message)
    if "error" in expected:
        assert {key: answer[key] for key in expected} == expected
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("PID", "kp ki kd lower_limits upper_limits set_point output integrals prev_errors"),
        ("LEAKY", "K alpha set_point integral output prev_error"),
        ("KALMAN", "x u z set_point A B H P Q R"),
    ],
)
def test_every_legacy_parameter_is_listed_and_read(bench, kind, names):
    say(bench, f'ctrl_set ["HO","ctrl_type","{kind}"]')
    answer = say(bench, 'ctrl_list ["HO"]')
    assert (answer["ok"], answer["which"]) == (True, "HO")
    rows = {row["name"]: row for row in answer["params"]}
    assert answer["params"][0]["name"] == "ctrl_type"
    assert set(names.split()) <= set(rows)
    for name, row in rows.items():
        value = say(bench, f'ctrl_get ["HO","{name}"]')
        assert value["type"] == row["type"]
        assert list(np.shape(value["value"])) == row["shape"]


@pytest.mark.parametrize(
    ("kind", "alias", "name"),
    [
        ("PID", "setpoint", "set_point"),
        ("PID", "KP", "kp"),
        *(("LEAKY", alias, "K") for alias in ("k", "ki")),
        *(("LEAKY", alias, "alpha") for alias in ("rho", "leak", "lambda")),
        *(("LEAKY", alias, "prev_error") for alias in ("prev", "preverror")),
        ("KALMAN", "q", "Q"),
    ],
)
def test_aliases(bench, kind, alias, name):
    bench.ask("ctrl_set", "LO", "ctrl_type", kind)
    np.testing.assert_array_equal(get(bench, "LO", alias), get(bench, "LO", name))


def test_some_modes_are_changed_and_the_others_stay(bench):
    bench.ask("update_ctrl_param", "HO", "kp", "1,3", 0.5)
    bench.ask("update_ctrl_param", "ho", "KP", [5], 0.25)
    bench.ask("dg", "HO", "kp", "3, 5", 0.125)
    expected = np.zeros(SIGNALS)
    expected[[1, 3, 5]] = [0.5, 0.625, 0.375]
    np.testing.assert_array_equal(get(bench, "HO", "kp"), expected)
    np.testing.assert_array_equal(get(bench, "LO", "kp"), 0.0)
    np.testing.assert_array_equal(bench.loop.slots.current("kp_ho"), expected)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ctrl_set", "LO", "kp", [0.5]),
        ("ctrl_set", "LO", "kp", [0.5] * 200),
        ("ctrl_set", "LO", "kp", [0.5, float("nan")]),
        ("ctrl_set", "LO", "kp", [0.5, float("inf")]),
        ("ctrl_set", "LO", "kp", ["a", "b"]),
        ("ctrl_set", "LO", "kp", [True, False]),
        ("ctrl_set", "LO", "kp", None),
        ("ctrl_set", "LO", "lower_limits", [3.0, 0.0]),
        ("ctrl_set", "LO", "output", [0.0, 0.0]),
        ("ctrl_set", "LO", "ctrl_type", "pid"),
        ("ctrl_set", "LO", "ctrl_type", [1.0]),
        ("update_ctrl_param", "LO", "kp", "0,x", 0.1),
        ("update_ctrl_param", "LO", "kp", "0,2", 0.1),
        ("update_ctrl_param", "LO", "kp", "-1", 0.1),
        ("update_ctrl_param", "LO", "kp", [], 0.1),
        ("update_ctrl_param", "LO", "kp", {"a": 1}, 0.1),
        ("update_ctrl_param", "LO", "kp", 0.5, 0.1),
        ("update_ctrl_param", "LO", "kp", "all", float("nan")),
        ("update_ctrl_param", "LO", "kp", "all", "0.1"),
        ("update_ctrl_param", "LO", "alpha", "all", 0.1),
        ("update_ctrl_param", "LO", "output", "all", 0.1),
        ("update_ctrl_param", "LOW", "kp", "all", 0.1),
        ("dg", "LO", "kp", "all", "x"),
        ("dg", "LO", "kp", float("inf")),
        ("dg", "LO", "kp", [0, 1]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(bench, arguments):
    version = bench.loop.slots.version
    before = {e.name: get(bench, "LO", e.name).tolist() for e in ENTRIES["PID"]}
    with pytest.raises(RequestError):
        bench.ask(*arguments)
    assert {e.name: get(bench, "LO", e.name).tolist() for e in ENTRIES["PID"]} == before
    assert bench.loop.slots.version == version


def test_leaky_has_its_own_names_and_range(bench):
    bench.ask("ctrl_set", "LO", "ctrl_type", "LEAKY")
    assert get(bench, "LO", "K").tolist() == [0.3, 0.3]
    bench.ask("update_ctrl_param", "LO", "ki", "0", 0.1)
    bench.ask("dg", "LO", "ki", 0.05)
    bench.ask("update_ctrl_param", "LO", "alpha", "all", 0.9)
    np.testing.assert_allclose(get(bench, "LO", "K"), [0.15, 0.35])
    for wrong in (1.001, -0.1):
        with pytest.raises(RequestError, match="alpha: expected 0 to 1"):
            bench.ask("update_ctrl_param", "LO", "alpha", "1", wrong)
    with pytest.raises(RequestError, match="alpha: expected 0 to 1"):
        bench.ask("dg", "LO", "alpha", 0.2)
    with pytest.raises(RequestError, match="Invalid parameter: kp"):
        bench.ask("update_ctrl_param", "LO", "kp", "all", 0.1)
    assert get(bench, "LO", "alpha").tolist() == [0.9, 0.9]
    bench.ask("close_baldr_LO")
    bench.step()
    ring = bench.loop.arrays.ring
    np.testing.assert_allclose(
        ring.newest("u_LO"), 0.9 * np.array([0.15, 0.35]) * ring.newest("e_LO"), rtol=1e-5
    )
    np.testing.assert_allclose(get(bench, "LO", "integral"), ring.newest("u_LO"), rtol=1e-6)
    bench.ask("open_all")


def test_the_type_changes_only_while_the_loop_is_open(bench):
    bench.ask("close_baldr_LO")
    assert bench.ask("ctrl_set", "HO", "ctrl_type", "LEAKY")["value"] == "LEAKY"
    assert bench.beam.status()["ctrl_type"] == "PID/LEAKY"
    with pytest.raises(StateError, match="ctrl_type can be set only while the LO loop is open"):
        bench.ask("ctrl_set", "LO", "ctrl_type", "LEAKY")
    bench.ask("open_baldr_LO")
    bench.ask("ctrl_set", "LO", "ctrl_type", "LEAKY")
    assert bench.beam.status()["ctrl_type"] == "LEAKY"
    bench.ask("readBDRConfig", str(bench.directory / "calibration.toml"))
    bench.wait_running()
    assert bench.beam.status()["ctrl_type"] == "PID"


@pytest.mark.parametrize(("kind", "name"), [("PID", "integrals"), ("LEAKY", "integral"), ("KALMAN", "x")])
def test_a_state_set_while_the_loop_is_open_is_where_it_begins(bench, kind, name):
    bench.ask("ctrl_set", "LO", "ctrl_type", kind)
    bench.ask("ctrl_set", "LO", name, [0.01, -0.02])
    bench.ask("close_baldr_LO")
    with pytest.raises(StateError, match="while the LO loop is open"):
        bench.ask("ctrl_set", "LO", name, [0.0, 0.0])
    bench.step()
    ring = bench.loop.arrays.ring
    e, u, start = (
        ring.newest("e_LO").astype(float),
        ring.newest("u_LO").astype(float),
        np.array([0.01, -0.02]),
    )
    model = bench.loop.parameters.kalman_lo
    expected = {
        "PID": start + 0.3 * e,
        "LEAKY": 0.99 * (start + 0.3 * e),
        "KALMAN": model.transition @ (start + model.gain @ (e - start)),
    }
    np.testing.assert_allclose(u, expected[kind], atol=1e-6)
    bench.ask("open_baldr_LO")
    assert get(bench, "LO", name).tolist() == [0.0, 0.0]
    bench.ask("ctrl_set", "LO", name, [0.01, -0.02])
    bench.ask("ctrl_set", "LO", "ctrl_type", "PID" if kind != "PID" else "LEAKY")
    assert not bench.loop.arrays.state.integral_lo.any()
    assert not bench.loop.arrays.state.predicted_lo.any()


def test_states_show_the_newest_frame(bench):
    bench.ask("ctrl_set", "LO", "set_point", [0.005, 0.0])
    bench.ask("ctrl_set", "HO", "ctrl_type", "KALMAN")
    bench.ask("close_all")
    bench.step(4)
    ring = bench.loop.arrays.ring
    np.testing.assert_array_equal(get(bench, "LO", "output"), ring.newest("u_LO"))
    np.testing.assert_allclose(get(bench, "LO", "prev_errors"), ring.newest("e_LO") - [0.005, 0.0], atol=1e-7)
    np.testing.assert_array_equal(get(bench, "HO", "u"), ring.newest("u_HO"))
    np.testing.assert_allclose(get(bench, "HO", "z"), ring.newest("e_HO"), atol=1e-7)
    bench.ask("open_all")


def test_a_kalman_model_is_solved_when_it_changes(bench):
    bench.ask("ctrl_set", "LO", "ctrl_type", "KALMAN")
    np.testing.assert_allclose(get(bench, "LO", "K"), 0.3 * np.eye(2), rtol=1e-12)
    bench.ask("ctrl_set", "LO", "Q", [2e-5, 3e-6])
    bench.ask("ctrl_set", "LO", "A", [[0.9, 0.05], [0.0, 0.95]])
    bench.ask("close_baldr_LO")
    bench.ask("ctrl_set", "LO", "R", [[1e-4, 2e-5], [2e-5, 3e-4]])
    one = np.eye(2)
    a, r = np.array([[0.9, 0.05], [0.0, 0.95]]), np.array([[1e-4, 2e-5], [2e-5, 3e-4]])
    expected = kalman_model(a, one, one, np.diag([2e-5, 3e-6]), r)
    np.testing.assert_allclose(get(bench, "LO", "P"), expected.covariance, rtol=1e-9)
    np.testing.assert_allclose(get(bench, "LO", "K"), expected.gain, rtol=1e-9)
    np.testing.assert_allclose(bench.loop.slots.snapshot("set_point_lo")["set_point_lo"], 0.0)
    slot = bench.loop.slots.version & 1
    np.testing.assert_allclose(bench.loop.arrays.parameters.kalman_lo.gain[slot], expected.gain, rtol=1e-6)
    for name, value in (("R", [1e-4, 0.0]), ("A", [1.5, 0.5]), ("P", [1.0, 1.0]), ("K", [1.0, 1.0])):
        with pytest.raises(RequestError):
            bench.ask("ctrl_set", "LO", name, value)
    np.testing.assert_allclose(get(bench, "LO", "R"), r)
    bench.ask("open_all")


def test_refusals_say_which_controller_and_what_there_is(bench):
    answer = say(bench, 'ctrl_get ["HO","nope"]')
    assert answer["which"] == "HO"
    assert answer["available"] == ["ctrl_type", *(entry.name for entry in ENTRIES["PID"])]


def test_without_a_configuration_there_is_no_controller(tmp_path):
    bench = BeamBench(tmp_path)
    try:
        for arguments in (("ctrl_list", "LO"), ("ctrl_get", "LO", "kp"), ("dg", "LO", "kp", 0.1)):
            with pytest.raises(StateError, match="no configuration is loaded"):
                bench.ask(*arguments)
    finally:
        bench.end()
