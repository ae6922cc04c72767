"""Runtime fields: what they read, what a set does and what follows, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from baldr_tango.beam.fields import FIELDS, Domain, FieldTable, UnfitError
from baldr_tango.beam.fields import makers as m
from baldr_tango.commands import execute
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from legacy_zmq.protocol import reply
from tests.beam_bench import BeamBench
from tests.unit.configuration_problem import GRID, PIXELS, SIGNALS, calibration_table


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with BeamBench(tmp_path_factory.mktemp("fields")) as running:
        yield running


@pytest.fixture
def bench(shared):
    """A beam whose configuration has just been loaded."""
    shared.ask("readBDRConfig", str(shared.directory / "calibration.toml"))
    shared.wait_running()
    return shared


def say(bench, message):
    """Send a commander message; return the decoded reply."""
    return json.loads(reply(message, partial(execute, bench.beam)))


def get(bench, path):
    answer = bench.ask("get_rtc_field", path)
    assert answer["ok"] is True
    return answer["value"]


def put(bench, path, value):
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return bench.ask("set_rtc_field", path, value).get("changed", [])


def test_replies_are_those_of_the_legacy_server(bench):
    assert say(bench, 'set_rtc_field "gain",2') == {
        "field": "gain",
        "ok": True,
        "type": "double",
        "value": 2.0,
    }
    assert say(bench, 'get_rtc_field "gain"') == {"field": "gain", "ok": True, "type": "double", "value": 2.0}
    wrong = say(bench, 'set_rtc_field "gain","x"')
    assert wrong.pop("message") == "expected a number, found 'x'"
    assert wrong == {"error": "bad value/type", "expected": "double", "field": "gain", "ok": False}
    assert say(bench, 'set_rtc_field "cam.fps","2"') == {
        "error": "read-only field",
        "field": "cam.fps",
        "ok": False,
    }
    unknown = say(bench, 'get_rtc_field "nope"')
    assert unknown.pop("available") == [entry.path for entry in FIELDS]
    assert unknown == {"error": "unknown field", "field": "nope", "ok": False}
    assert say(bench, 'set_rtc_field ["gain",3]')["value"] == 3.0
    assert say(bench, 'get_rtc_field ["gain"]')["value"] == 3.0


def test_the_list_says_everything_about_every_field(bench):
    answer = say(bench, 'list_rtc_fields ""')
    assert answer["ok"] is True
    for row in answer["fields"]:
        assert set(row) == {"field", "type", "shape", "unit", "access", "doc"}
        value = get(bench, row["field"])
        assert list(np.shape(value)) == row["shape"] or row["shape"] == [0, 0]
        kind = {"string": str, "int": int, "uint32": int, "float": float, "double": float}
        if row["type"] in kind and not FIELDS.find(row["field"]).domain.is_boolean:
            assert type(value) is kind[row["type"]], row
        assert row["access"] in ("read-only", "read-write")
        assert row["doc"]
    assert len({row["field"] for row in answer["fields"]}) == len(FIELDS)


LEGACY = {
    "state": "DM_flat signal_space LO controller_type inverse_method_LO inverse_method_HO phasemask"
    " auto_tune take_telemetry simulation_mode",
    "reduction": "bias bias_dm dark dark_dm",
    "pixels": "crop_pixels bad_pixels pupil_pixels interior_pixels secondary_pixels exterior_pixels",
    "cam": "fps gain testpattern bias flat imagetags led events extsynchro rawimages cooling mode resetwidth"
    " nbreadworeset cropping cropping_columns cropping_rows aduoffset",
    "filters": "bad_pixel_mask pupil secondary exterior inner_pupil_filt bad_pixel_mask_dm pupil_dm"
    " secondary_dm exterior_dm inner_pupil_filt_dm",
    "": "zeroCmd I2M_HO_runtime sec_idx m_s_runtime b_s_runtime",
}
LEGACY_WRITABLE = {
    "state": "auto_close auto_open",
    "reference_pupils": "I0 N0 norm_pupil norm_pupil_dm I0_dm",
    "matrices": "I2A I2M I2M_LO I2M_HO M2C M2C_LO M2C_HO I2rms_sec I2rms_ext szm sza szp",
    "limits": "close_on_strehl_limit open_on_strehl_limit open_on_flux_limit open_on_dm_limit"
    " LO_offload_limit",
    "": "I0_dm_runtime N0_dm_runtime I2M_LO_runtime fps gain scale",
}


@pytest.mark.parametrize(("tables", "access"), [(LEGACY, "read-only"), (LEGACY_WRITABLE, "read-write")])
def test_every_legacy_path_is_there_with_its_access(tables, access):
    paths = [f"{group}.{name}".lstrip(".") for group, names in tables.items() for name in names.split()]
    assert {path: FIELDS.find(path).access for path in paths} == dict.fromkeys(paths, access)


def test_values_are_those_of_the_calibration(bench):
    table = calibration_table()
    for path, key in (
        ("reference_pupils.I0", "I0"),
        ("matrices.I2M_HO", "I2M_HO"),
        ("filters.pupil", "pupil"),
    ):
        np.testing.assert_allclose(get(bench, path), table[key], rtol=1e-12)
    interpolation = table["I2A"]
    np.testing.assert_allclose(get(bench, "I0_dm_runtime"), interpolation @ table["I0"], rtol=1e-12)
    np.testing.assert_allclose(get(bench, "N0_dm_runtime"), interpolation @ table["norm_pupil"], rtol=1e-12)
    np.testing.assert_allclose(get(bench, "reduction.dark_dm"), interpolation @ table["dark"], rtol=1e-12)
    np.testing.assert_allclose(
        get(bench, "filters.exterior_dm"), interpolation @ table["exterior"], rtol=1e-12
    )
    assert get(bench, "cam.fps") == "1730.0"
    assert get(bench, "sec_idx") == 27
    assert get(bench, "zeroCmd") == [0.0] * GRID
    assert (get(bench, "m_s_runtime"), get(bench, "b_s_runtime")) == (2.5e-6, -0.05)


def test_a_reference_goes_on_to_the_actuators_and_to_the_loop(bench):
    table = calibration_table()
    image = np.roll(table["I0"], 3)
    changed = put(bench, "reference_pupils.I0", image)
    assert changed == ["reference_pupils.I0_dm", "I0_dm_runtime"]
    expected = table["I2A"] @ image
    assert get(bench, "reference_pupils.I0") == image.tolist()
    for path in ("reference_pupils.I0_dm", "I0_dm_runtime"):
        np.testing.assert_allclose(get(bench, path), expected, rtol=1e-12)
    bench.step()
    p, ring = bench.loop.parameters, bench.loop.arrays.ring
    signal = (ring.newest("img_dm") - expected) / p.clear_pupil
    np.testing.assert_allclose(ring.newest("signal"), signal, atol=1e-4)


def test_a_value_of_one_level_leaves_the_levels_above_alone(bench):
    before = get(bench, "reference_pupils.I0"), get(bench, "reference_pupils.I0_dm")
    vector = np.linspace(0.01, 0.02, SIGNALS)
    assert put(bench, "I0_dm_runtime", vector) == []
    assert (get(bench, "reference_pupils.I0"), get(bench, "reference_pupils.I0_dm")) == before
    assert put(bench, "reference_pupils.I0_dm", 2 * vector) == ["I0_dm_runtime"]
    assert get(bench, "reference_pupils.I0") == before[0]
    assert get(bench, "I0_dm_runtime") == get(bench, "reference_pupils.I0_dm") == (2 * vector).tolist()
    # The level above, set again to what it was, is what follows from now on.
    assert put(bench, "reference_pupils.I0", np.array(before[0])) == [
        "reference_pupils.I0_dm",
        "I0_dm_runtime",
    ]
    assert get(bench, "I0_dm_runtime") == before[1]


def test_an_image_with_another_sum_is_normalised_for_the_loop(bench):
    before = get(bench, "I0_dm_runtime")
    dark = get(bench, "reduction.dark")
    put(bench, "reference_pupils.I0", 5e4 * calibration_table()["I0"])
    np.testing.assert_allclose(get(bench, "I0_dm_runtime"), before, rtol=1e-12)
    assert get(bench, "reduction.dark") == dark


@pytest.mark.parametrize(
    "path", ["reference_pupils.norm_pupil", "N0_dm_runtime", "reference_pupils.norm_pupil_dm"]
)
def test_a_clear_pupil_decides_where_there_is_a_signal(bench, path):
    entry = FIELDS.find(path)
    value = np.array(get(bench, path))
    if len(value) == PIXELS:
        value[np.flatnonzero(calibration_table()["I2A"][4])] = 0.0
    else:
        value[4] = 0.0
    changed = put(bench, path, value)
    assert set(changed) == set(entry.followers)
    p = bench.loop.parameters
    assert not p.signal_mask[4]
    bench.step()
    signal = bench.loop.arrays.ring.newest("signal")
    assert signal[4] == 0.0
    np.testing.assert_array_equal(signal != 0.0, p.signal_mask)


def test_an_interpolation_matrix_takes_everything_along(bench):
    matrix = np.roll(calibration_table()["I2A"], 1, axis=1)
    changed = put(bench, "matrices.I2A", matrix)
    assert {"I0_dm_runtime", "N0_dm_runtime", "reference_pupils.I0_dm", "reduction.dark_dm"} <= set(changed)
    bench.step()
    ring, p = bench.loop.arrays.ring, bench.loop.parameters
    expected = matrix @ (ring.newest("img").astype(float) - p.dark) / ring.newest("flux")
    np.testing.assert_allclose(ring.newest("img_dm"), expected, rtol=1e-4)


def test_a_full_matrix_replaces_a_sparse_one_and_reload_brings_it_back(bench):
    old = get(bench, "matrices.I2M_HO")
    matrix = np.random.default_rng(1).normal(size=(SIGNALS, SIGNALS))
    assert put(bench, "matrices.I2M_HO", matrix) == ["I2M_HO_runtime"]
    bench.step()
    ring = bench.loop.arrays.ring
    signal = ring.newest("signal").astype(float)
    np.testing.assert_allclose(ring.newest("e_HO"), matrix @ signal, rtol=1e-3, atol=1e-5)
    bench.ask("reload_config", str(bench.directory / "calibration.toml"), "H3")
    bench.wait_running()
    assert get(bench, "matrices.I2M_HO") == get(bench, "I2M_HO_runtime") == old


def test_scale_restores_the_reconstructors_of_the_calibration(bench):
    known = get(bench, "matrices.I2M_LO")
    put(bench, "I2M_LO_runtime", np.ones((2, SIGNALS)))
    assert get(bench, "matrices.I2M_LO") == known
    assert put(bench, "scale", 1.5) == ["I2M_LO_runtime"]
    assert get(bench, "I2M_LO_runtime") == known
    assert get(bench, "scale") == 1.5


@pytest.mark.parametrize(("loop", "path"), [("LO", "matrices.M2C_LO"), ("HO", "matrices.M2C_HO")])
def test_mode_shapes_change_only_while_their_loop_is_open(bench, loop, path):
    shapes = np.array(get(bench, path))
    shapes[5] *= 0.5
    bench.ask(f"close_baldr_{loop}")
    with pytest.raises(StateError, match=f"the {loop} loop is closed"):
        put(bench, path, shapes)
    bench.ask(f"open_baldr_{loop}")
    put(bench, path, shapes)
    bench.ask(f"close_baldr_{loop}")
    bench.step()
    ring = bench.loop.arrays.ring
    modes = ring.newest(f"u_{loop}").astype(float)
    np.testing.assert_allclose(ring.newest(f"c_{loop}"), shapes @ modes, atol=1e-5)
    bench.ask("open_all")


def test_safety_limits_and_frame_rate_reach_the_loop(bench):
    put(bench, "limits.lo_command", 0.125)
    put(bench, "limits.ho_violations", 7)
    put(bench, "fps", 500)
    assert bench.loop.slots.current("limits")[d.LO_LIMIT] == 0.125
    assert bench.loop.slots.switch(d.HO_VIOLATIONS) == 7
    assert bench.loop.slots.switch(d.PERIOD_NS) == 2_000_000
    assert bench.beam.status()["frequency"] == 500.0


def test_limits_of_the_calibration_show_in_the_status(bench):
    put(bench, "limits.close_on_strehl_limit", 0.1)
    assert bench.beam.status()["close_on_strehl"] == 0.1


def test_the_strehl_line_follows_its_matrix(bench):
    changed = put(bench, "matrices.I2rms_sec", np.diag([3e-6, -0.04]))
    assert changed == ["m_s_runtime", "b_s_runtime"]
    assert bench.loop.parameters.strehl_line == (3e-6, -0.04)


BAD = [
    ("reference_pupils.I0", [0.1] * (PIXELS - 1), f"expected {PIXELS} numbers, found {PIXELS - 1}"),
    ("reference_pupils.I0", [[0.1] * PIXELS], f"expected {PIXELS} numbers"),
    ("reference_pupils.I0", [0.0] * PIXELS, "with light in it"),
    ("reference_pupils.I0", "abc", f"expected {PIXELS} numbers"),
    ("reference_pupils.I0", 0.5, f"expected {PIXELS} numbers"),
    ("I0_dm_runtime", [float("nan")] * SIGNALS, "finite"),
    ("I0_dm_runtime", [10**400] * SIGNALS, "expected"),
    ("I0_dm_runtime", [True] * SIGNALS, "expected"),
    ("I0_dm_runtime", ["1"] * SIGNALS, "expected"),
    ("N0_dm_runtime", [0.0] * SIGNALS, "light"),
    ("matrices.I2M_LO", [[1.0] * SIGNALS], f"expected 2 rows of {SIGNALS} numbers, found 1"),
    ("matrices.I2M_LO", [[1.0] * SIGNALS, [1.0]], f"expected 2 rows of {SIGNALS} numbers"),
    ("matrices.I2A", [0.5], f"expected {SIGNALS} rows of {PIXELS} numbers"),
    ("matrices.sza", GRID + 1, f"expected {GRID}"),
    ("matrices.szm", 2.5, "expected a whole number"),
    ("gain", 0, "expected"),
    ("gain", float("inf"), "expected a finite number"),
    ("fps", True, "expected a number"),
    ("fps", -1000.0, "expected"),
    ("limits.command", 0.0, "expected"),
    ("limits.ho_violations", 3.7, "expected a whole number, found 3.7"),
    ("matrices.I2M", [[1.0]], "expected 0 rows"),
]


@pytest.mark.parametrize(("path", "value", "text"), BAD)
def test_a_wrong_value_is_refused_and_nothing_changes(bench, path, value, text):
    before, version = get(bench, path), bench.loop.slots.version
    with pytest.raises(RequestError, match="bad value/type") as error:
        put(bench, path, value)
    assert text in error.value.details["message"]
    assert error.value.details["expected"] == FIELDS.find(path).domain.kind
    assert get(bench, path) == before
    assert bench.loop.slots.version == version


def test_every_writable_field_takes_back_what_it_gave(bench):
    for entry in FIELDS:
        if entry.set is not None and not entry.path.startswith("inj_signal."):
            value = get(bench, entry.path)
            assert put(bench, entry.path, value) == [], entry.path
            assert get(bench, entry.path) == value, entry.path


def test_setting_a_field_keeps_closed_loops_and_their_integrals(bench):
    bench.ask("close_all")
    bench.step(3)
    before = bench.loop.arrays.state.integral_lo.copy()
    assert before.any()
    put(bench, "matrices.I2M_HO", np.random.default_rng(2).normal(0.0, 0.01, (SIGNALS, SIGNALS)))
    put(bench, "reference_pupils.I0", np.array(get(bench, "reference_pupils.I0")))
    np.testing.assert_array_equal(bench.loop.arrays.state.integral_lo, before)
    state = bench.beam.status()
    assert (state["TT_state"], state["HO_state"]) == (1, 1)
    lost = bench.lost()
    bench.step(3)
    assert bench.lost() == lost
    bench.ask("open_all")


def test_measured_references_are_those_that_fields_show_and_files_get(bench, tmp_path):
    file = {path: get(bench, path) for path in ("reference_pupils.I0", "reference_pupils.norm_pupil")}
    put(bench, "reference_pupils.I0_dm", [0.02] * SIGNALS)
    bench.step(20)
    bench.ask("I0_update")
    bench.ask("N0_update")
    table = calibration_table()
    for path, runtime in (
        ("reference_pupils.I0", "I0_dm_runtime"),
        ("reference_pupils.norm_pupil", "N0_dm_runtime"),
    ):
        assert get(bench, path) != file[path]
        np.testing.assert_allclose(table["I2A"] @ get(bench, path), get(bench, runtime), rtol=1e-9)
    np.testing.assert_allclose(get(bench, "reference_pupils.I0_dm"), get(bench, "I0_dm_runtime"), rtol=1e-9)
    put(bench, "reference_pupils.I0", np.roll(table["I0"], 2))
    put(bench, "matrices.I2M_LO", 2.0 * table["I2M_LO"])
    in_force = {path: get(bench, path) for path in ("I0_dm_runtime", "N0_dm_runtime", "I2M_LO_runtime")}
    saved = bench.ask("save_references", str(tmp_path / "saved.toml"))["path"]
    bench.ask("undo_references")
    assert {path: get(bench, path) for path in file} == file
    np.testing.assert_allclose(get(bench, "I0_dm_runtime"), table["I2A"] @ table["I0"], rtol=1e-9)
    assert get(bench, "I2M_LO_runtime") == in_force["I2M_LO_runtime"]
    bench.ask("readBDRConfig", saved)
    bench.wait_running()
    for path, value in in_force.items():
        np.testing.assert_allclose(get(bench, path), value, rtol=1e-5, err_msg=path)


def test_without_a_configuration_the_list_is_there_and_values_are_not(tmp_path):
    bench = BeamBench(tmp_path)
    try:
        rows = bench.ask("list_rtc_fields")["fields"]
        assert rows[[row["field"] for row in rows].index("matrices.I2A")]["shape"] == ["A", "P"]
        for path in ("gain", "matrices.I2A", "reference_pupils.I0_dm"):
            with pytest.raises(StateError, match="no configuration is loaded"):
                bench.ask("get_rtc_field", path)
            with pytest.raises(StateError, match="no configuration is loaded"):
                bench.ask("set_rtc_field", path, 1.0)
    finally:
        bench.end()


def test_a_module_adds_its_own_fields(bench):
    table = FieldTable()
    mine = m.note("mine.enabled", "int", "a switch", False)
    table.add(replace(mine, domain=Domain("int", is_boolean=True)))
    assert table.put(bench.beam.live, "mine.enabled", True) == []
    assert table.find("mine.enabled").read(bench.beam.live) is True
    with pytest.raises(RequestError, match="bad value/type"):
        table.put(bench.beam.live, "mine.enabled", 1)
    with pytest.raises(ValueError, match="declared twice"):
        table.add(mine)


@pytest.mark.parametrize(
    ("domain", "value", "expected"),
    [
        (Domain("int"), 3.0, 3),
        (Domain("uint32"), 2**32 - 1, 2**32 - 1),
        (Domain("double"), 2, 2.0),
        (Domain("double"), np.float32(0.5), 0.5),
        (Domain("string", choices=("a", "b")), "b", "b"),
    ],
)
def test_conversions(domain, value, expected):
    converted = domain.convert(value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("domain", "value"),
    [
        (Domain("int"), 2**31),
        (Domain("int"), "3"),
        (Domain("uint32"), -1),
        (Domain("uint32"), 2**32),
        (Domain("double"), None),
        (Domain("double"), {}),
        (Domain("string"), 3),
        (Domain("string", choices=("a",)), "A"),
        (Domain("int", is_boolean=True), 1),
        (Domain("double", minimum=0.0, maximum=1.0), 1.01),
    ],
)
def test_what_legacy_would_have_bent_is_refused(domain, value):
    with pytest.raises(UnfitError, match="expected"):
        domain.convert(value)
