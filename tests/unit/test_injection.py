"""Injection into the command and into set points: where the signal goes, and that it goes away again."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from baldr_tango.bases import basis
from baldr_tango.beam.changes import put_in_force
from baldr_tango.beam.fields import FIELDS
from baldr_tango.beam.injection import project
from baldr_tango.beam.injection_settings import ITEMS, InjectionSettings
from baldr_tango.commands import execute
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop
from legacy_zmq.protocol import reply
from tests.mirror_bench import MirrorBench, mirror_problem
from tests.problem import gains
from tests.waveforms import expected

TIP = {"basis": "zernike", "index": 0, "branch": "LO", "amplitude": 0.1}


@pytest.fixture
def bench():
    with MirrorBench(mirror_problem(control_lo=gains(2, kp=1.0, ki=0.0))) as running:
        yield running


def answer(bench, message):
    """Reply of the commander to a message."""
    return json.loads(reply(message, lambda name, args: execute(bench.beam, name, args)))


class TestProjection:
    """Least squares onto the modes of the loops."""

    def test_it_is_the_least_squares_solution(self):
        rng = np.random.default_rng(1)
        shapes = rng.normal(size=(144, 7))
        target = rng.normal(size=144)
        found = project(target, shapes[:, :2], shapes, "HO")
        modes, *_ = np.linalg.lstsq(shapes, target, rcond=None)
        np.testing.assert_allclose(found.modes_ho, modes, rtol=1e-6)
        np.testing.assert_allclose(found.command, shapes @ modes, rtol=1e-6)

    def test_what_the_modes_can_make_comes_back_whole_and_what_they_cannot_is_nothing(self):
        p = mirror_problem()
        tip, other = basis("zernike").mode(0), basis("zernike").mode(7)
        found = project(tip, p.mode_shapes_lo, p.mode_shapes_ho, "LO")
        np.testing.assert_allclose(found.command, tip, atol=1e-6)
        np.testing.assert_allclose(found.modes_lo, [0.5, 0.0], atol=0.02)
        residue = project(other, p.mode_shapes_lo, p.mode_shapes_ho, "LO").command
        assert np.abs(residue).max() < 0.2 * np.abs(other).max()

    def test_modes_that_cannot_be_told_apart_share(self):
        shapes = np.ones((144, 2))
        found = project(np.ones(144), shapes, shapes, "LO")
        np.testing.assert_allclose(found.modes_lo, [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("closed", [False, True])
def test_a_signal_in_the_command_is_added_whatever_the_loops_do(bench, closed):
    bench.set_loops(closed, closed)
    bench.ask("inject", {"waveform": "sine", "freq_hz": 100.0, **TIP})
    s = bench.beam.injection.settings
    for n in range(12):
        command = bench.step(bench.frame())
        injected = expected(s, n, 1000.0) * basis("zernike").mode(0)
        np.testing.assert_allclose(bench.newest("c_inj"), injected, atol=1e-6)
        loops = -(bench.newest("c_LO") + bench.newest("c_HO"))
        assert loops.any() == closed
        np.testing.assert_allclose(command, loops + injected, atol=1e-6)


@pytest.mark.parametrize(
    ("branch", "lo", "ho"), [("LO", True, False), ("HO", False, True), ("ALL", True, True)]
)
def test_a_signal_in_the_set_points_does_not_accumulate_and_is_undone(bench, branch, lo, ho):
    """With a proportional controller the output shows the set point of the very frame."""
    n_ho = bench.parameters.control_ho.kp.size
    put_in_force(bench.loop, kp_ho=np.full(n_ho, 0.5), ki_ho=np.zeros(n_ho), set_point_lo=[0.01, -0.02])
    bench.set_loops(True, True)
    bench.ask(
        "inject",
        {"waveform": "square", "freq_hz": 100.0, **TIP, "branch": branch, "apply_to": "setpoint"},
    )
    found = project(
        basis("zernike").mode(0), bench.parameters.mode_shapes_lo, bench.parameters.mode_shapes_ho, branch
    )
    s = bench.beam.injection.settings
    seen = set()
    for n in range(60):
        if n == 45:
            bench.ask("inject_off")
        bench.step(bench.frame())
        a = expected(s, n, 1000.0) if n < 45 else 0.0
        seen.add(a)
        target_lo = np.array([0.01, -0.02]) + (a * found.modes_lo if lo else 0.0)
        target_ho = a * found.modes_ho if ho else np.zeros(n_ho)
        np.testing.assert_allclose(bench.newest("u_LO"), bench.newest("e_LO") - target_lo, atol=1e-6)
        np.testing.assert_allclose(bench.newest("u_HO"), 0.5 * (bench.newest("e_HO") - target_ho), atol=1e-6)
        shown = a * (lo * found.shape_lo + ho * found.shape_ho)
        np.testing.assert_allclose(bench.newest("c_inj"), shown, atol=1e-6)
        loops = -(bench.newest("c_LO") + bench.newest("c_HO"))
        np.testing.assert_allclose(bench.command(), loops, atol=1e-6)
    assert seen == {0.0, 0.1}
    np.testing.assert_array_equal(bench.loop.slots.current("set_point_lo"), [0.01, -0.02])


def test_a_signal_in_the_set_points_leaves_open_loops_alone(bench):
    bench.set_loops(False, True)
    bench.ask("inject", {"waveform": "step", **TIP, "apply_to": "setpoint"})
    bench.step(bench.frame())
    assert not bench.newest("c_inj").any()
    assert not bench.newest("u_LO").any()


def test_every_change_starts_the_waveform_again(bench):
    bench.ask("inject", {"waveform": "chirp", "chirp_T": 0.02, "chirp_f1": 400.0, **TIP})
    first = bench.run(30)
    bench.beam.injection.set(phase_deg=0.0)
    np.testing.assert_array_equal(bench.run(30), first)
    bench.beam.injection.rearm()
    np.testing.assert_array_equal(bench.run(30), first)


def test_switching_off_takes_the_signal_off_the_mirror_without_a_frame(bench):
    bench.ask("inject", {"waveform": "step", **TIP})
    assert bench.step(bench.frame()).any()
    bench.ask("inject_off")
    assert not bench.command().any()
    assert not bench.run(3).any()


def test_a_trip_ends_the_injection_in_the_same_frame(bench):
    bench.set_loops(False, True)
    bench.ask("inject", {"waveform": "step", **TIP})
    bench.step(bench.frame())
    bench.set_limit(1e-4)
    assert not bench.step(bench.frame()).any()
    assert bench.counter(d.TRIP) == d.TRIP_LIMIT
    assert not bench.run(2).any()
    bench.beam.open_after_trip()
    assert not bench.beam.injection.is_on
    assert bench.beam.read(["inj_enabled"]) == {"inj_enabled": 0}
    with pytest.raises(StateError, match="reset_fault"):
        bench.ask("inject", {"waveform": "step", **TIP})


def test_an_acknowledged_fault_does_not_bring_the_signal_back(bench):
    """Even when the fault is acknowledged before anybody else has noticed it."""
    bench.ask("inject", {"waveform": "step", **TIP})
    bench.step(bench.frame())
    limit = bench.parameters.limits.command
    bench.set_limit(1e-4)
    bench.step(bench.frame())
    bench.set_limit(limit)
    bench.ask("reset_fault")
    assert not bench.run(3).any()
    assert bench.beam.status()["inj_enabled"] == 0


def test_the_end_of_the_real_time_thread_ends_the_injection(bench):
    bench.ask("inject", {"waveform": "step", **TIP})
    bench.step(bench.frame())
    bench.ask("stop_baldr")
    assert not bench.command().any()
    assert not bench.beam.injection.is_on
    bench.ask("start_baldr")
    bench.wait_running()
    assert not bench.run(3).any()


def test_the_signal_goes_on_through_opening_closing_and_pausing(bench):
    bench.ask("inject", {"waveform": "step", **TIP})
    bench.step(bench.frame())
    for name in ("close_all", "open_all"):
        bench.ask(name)
        assert bench.run(2).any()
    bench.ask("pauseRTC")
    assert bench.command().any()
    bench.ask("resumeRTC")
    assert bench.run(2).any()


def test_other_mode_shapes_arm_the_signal_anew(bench):
    bench.ask("inject", {"waveform": "chirp", "chirp_T": 0.02, "chirp_f1": 400.0, **TIP})
    first = bench.run(20)
    shapes = bench.parameters.mode_shapes_lo[:, ::-1] * 0.3
    bench.beam.update(replace(bench.parameters, mode_shapes_lo=shapes))
    again = bench.run(20)
    scale = np.linalg.norm(again, axis=1)
    np.testing.assert_allclose(scale, np.linalg.norm(first, axis=1), atol=1e-5)
    np.testing.assert_allclose(bench.loop.slots.current("inject_lo"), [0.0, 1 / 0.6], atol=0.03)
    bench.beam.update(replace(bench.loop.parameters, boxcar=1, frame_rate_hz=500.0))
    expected_start = bench.run(3)
    np.testing.assert_allclose(expected_start[0], first[0], atol=1e-6)


class TestNewConfiguration:
    """A loop that takes the place of another."""

    def loop(self, bench, **changes):
        return RealTimeLoop(mirror_problem(1, **changes), bench.settings, bench.beam.log)

    def test_it_is_armed_with_its_own_modes(self, bench):
        bench.ask("inject", {"waveform": "prbs", **TIP})
        shapes = 0.7 * basis("zernike").modes[[4, 1]].T
        loop = self.loop(bench, mode_shapes_lo=shapes)
        bench.beam.injection.configure(loop)
        assert loop.slots.switch(d.INJECT) == 1
        assert loop.slots.switch(d.INJECT_EPOCH) > 0
        target = basis("zernike").mode(0)
        found = project(target, shapes, loop.parameters.mode_shapes_ho, "LO")
        np.testing.assert_allclose(loop.slots.current("inject_map"), found.command, atol=1e-6)
        np.testing.assert_allclose(loop.slots.current("inject_lo"), found.modes_lo, atol=1e-9)

    def test_a_signal_beyond_its_limit_is_switched_off(self, bench, caplog):
        bench.ask("inject", {"waveform": "step", **TIP})
        loop = self.loop(bench, limits=LimitSettings(command=0.001))
        bench.beam.injection.configure(loop)
        assert loop.slots.switch(d.INJECT) == 0
        assert not bench.beam.injection.is_on
        assert "switched off" in caplog.text

    def test_it_is_not_armed_after_a_trip(self, bench):
        bench.ask("inject", {"waveform": "step", **TIP})
        bench.set_limit(1e-4)
        bench.step(bench.frame())
        loop = self.loop(bench)
        bench.beam.injection.configure(loop)
        assert loop.slots.switch(d.INJECT) == 0


def test_the_loops_own_modes_are_a_basis_in_their_own_scale(bench):
    wanted = {"waveform": "step", "basis": "M2C_LO", "index": 1, "branch": "LO", "amplitude": 0.1}
    bench.ask("inject", wanted)
    np.testing.assert_allclose(bench.run(1)[0], 0.1 * bench.parameters.mode_shapes_lo[:, 1], atol=1e-6)
    np.testing.assert_allclose(bench.loop.slots.current("inject_lo"), [0.0, 1.0], atol=1e-6)
    with pytest.raises(RequestError, match="n_modes: 2"):
        bench.ask("inject", {**wanted, "index": 2})


class TestSettings:
    """The fields ``inj_signal.*``."""

    def test_defaults_and_types_are_the_legacy_ones(self):
        s = InjectionSettings()
        assert s.as_dict() == {
            "enabled": False,
            "basis": "zonal",
            "basis_index": 0,
            "amplitude": 0.05,
            "waveform": "sine",
            "freq_hz": 10.0,
            "phase_deg": 0.0,
            "duty": 0.5,
            "t_start_s": 0.0,
            "t_stop_s": 0.0,
            "latency_frames": 0,
            "hold_frames": 1,
            "prbs_seed": 0xACE1,
            "chirp_f0": 1.0,
            "chirp_f1": 50.0,
            "chirp_T": 5.0,
            "branch": "HO",
            "apply_to": "command",
        }
        types = {name: item["type"] for name, item in ITEMS.items()}
        assert (types["enabled"], types["prbs_seed"], types["chirp_T"]) == ("int", "uint32", "double")
        assert all(item["doc"] for item in ITEMS.values())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("enabled", 1),
            ("amplitude", float("nan")),
            ("amplitude", "0.1"),
            ("amplitude", True),
            ("freq_hz", -1),
            ("duty", 1.5),
            ("hold_frames", 0),
            ("latency_frames", -1),
            ("latency_frames", 1.5),
            ("prbs_seed", -1),
            ("chirp_T", 0),
            ("t_start_s", -1),
            ("waveform", "triangle"),
            ("branch", "TT"),
            ("apply_to", "mirror"),
            ("basis", 3),
            ("nonsense", 1),
        ],
    )
    def test_wrong_values_are_refused_by_name(self, name, value):
        with pytest.raises(RequestError, match=name):
            InjectionSettings().changed({name: value})

    def test_words_are_taken_in_any_case(self):
        s = InjectionSettings().changed({"branch": "all", "apply_to": "SetPoint", "waveform": "PRBS"})
        assert (s.branch, s.apply_to, s.waveform) == ("ALL", "setpoint", "prbs")

    def test_a_stop_before_the_start_is_refused(self):
        with pytest.raises(RequestError, match="t_stop_s"):
            InjectionSettings(t_start_s=2.0, t_stop_s=1.0)

    def test_a_refused_change_changes_nothing(self, bench):
        bench.ask("inject", {"waveform": "sine", **TIP})
        before, version = bench.beam.injection.settings, bench.loop.slots.version
        for wrong in ({"basis": "nope"}, {"basis_index": 140}, {"amplitude": 100.0}, {"duty": 2}):
            with pytest.raises(RequestError):
                bench.beam.injection.set(freq_hz=55.0, **wrong)
        assert bench.beam.injection.settings is before
        assert bench.loop.slots.version == version

    def test_fields_can_be_set_one_by_one(self, bench):
        injection = bench.beam.injection
        for name, value in {"basis": "zernike", "branch": "LO", "waveform": "step", "amplitude": 0.1}.items():
            injection.set(**{name: value})
            assert injection.get(name) == value
        assert not bench.run(1).any()
        injection.set(enabled=True)
        assert bench.run(1).any()
        injection.set(enabled=False)
        assert not bench.run(1).any()


class TestReplies:
    """The commander's words."""

    def test_recorded_pairs(self, bench):
        assert answer(bench, 'tt_inj ["sine",0.02,"command"]') == {
            "amplitude": 0.02,
            "apply_to": "command",
            "branch": "LO",
            "method": "sine",
            "ok": True,
        }
        refused = answer(bench, 'tt_inj ["zzz"]')
        assert "zzz" in refused.pop("error")
        assert refused == {
            "amplitude": 0.02,
            "apply_to": "setpoint",
            "branch": "LO",
            "method": "zzz",
            "ok": False,
        }
        assert bench.beam.injection.get("waveform") == "sine", "a refused request changes nothing"

    @pytest.mark.parametrize(
        "message",
        [
            'tt_inj ["prbs",0.1,"command"]',
            'tt_inj "prbs",0.1,"command"',
            'tt_inj {"method":"probs","amplitude":0.1,"apply_to":"command"}',
            'tt_inj "prbs 0.1 command"',
            'TT_INJ ["PRBS","0.1","COMMAND"]',
        ],
    )
    def test_all_forms_say_the_same(self, bench, message):
        assert answer(bench, message)["ok"] is True
        s = bench.beam.injection.settings
        assert (s.enabled, s.waveform, s.amplitude, s.apply_to) == (True, "prbs", 0.1, "command")
        assert (s.branch, s.basis, s.basis_index, s.hold_frames) == ("LO", "zernike", 0, 2)

    def test_without_arguments_it_is_the_legacy_chirp(self, bench):
        assert answer(bench, "tt_inj []")["method"] == "chirp"
        s = bench.beam.injection.settings
        assert (s.chirp_f0, s.chirp_f1, s.chirp_T, s.amplitude, s.apply_to) == (
            0.5,
            400.0,
            60.0,
            0.02,
            "setpoint",
        )

    @pytest.mark.parametrize(("asked", "used"), [(5.0, 0.3), (-1.0, 0.0)])
    def test_the_reply_tells_the_amplitude_that_is_used(self, bench, asked, used):
        assert answer(bench, f'tt_inj ["prbs",{asked}]')["amplitude"] == used
        assert bench.beam.injection.get("amplitude") == used

    def test_it_is_tip_whatever_was_injected_before(self, bench):
        bench.ask("inject", {"waveform": "step", "basis": "zonal", "index": 65, "branch": "HO"})
        bench.ask("tt_inj", "sine", 0.1, "command")
        bench.run(25)
        shown = bench.run(1)[0]
        np.testing.assert_allclose(shown / np.linalg.norm(shown), basis("zernike").mode(0), atol=1e-5)
        bench.ask("tt_inj", {"method": "sine", "amplitude": 0.1, "apply_to": "command", "index": 1})
        bench.run(25)
        shown = bench.run(1)[0]
        np.testing.assert_allclose(shown / np.linalg.norm(shown), basis("zernike").mode(1), atol=1e-5)

    def test_off_is_off(self, bench):
        bench.ask("tt_inj", "prbs", 0.1, "command")
        assert bench.beam.status()["inj_enabled"] == 1
        assert answer(bench, "tt_inj off")["ok"] is False, "bare words are not JSON"
        assert answer(bench, 'tt_inj "off"') == {
            "branch": "LO",
            "enabled": False,
            "method": "off",
            "ok": True,
        }
        assert bench.beam.status()["inj_enabled"] == 0

    @pytest.mark.parametrize(
        ("message", "words"),
        [
            ('tt_inj ["sine","x"]', "amplitude"),
            ('tt_inj ["sine",0.1,"mirror"]', "apply_to"),
            ('tt_inj {"method":"sine","size":1}', "size"),
            ("inject", "settings"),
            ("inject 5", "object"),
            ("inject {}", "waveform"),
            ('inject {"waveform":"sine","frequency":3}', "frequency"),
            ('inject {"waveform":"sine","basis":"nope"}', "basis not found"),
            ('inject {"waveform":"sine","index":140}', "index out of range"),
            ('inject {"waveform":"sine","amplitude":2}', "limits.command"),
            ('inject {"waveform":"sine","hold_frames":0}', "hold_frames"),
        ],
    )
    def test_wrong_requests_are_refused_and_named(self, bench, message, words):
        found = answer(bench, message)
        assert found["ok"] is False
        assert words in found["error"]
        assert not bench.beam.injection.is_on

    def test_the_reply_of_inject_shows_all_of_it(self, bench):
        found = answer(bench, 'inject {"waveform":"square","index":3,"amplitude":0.2,"branch":"ALL"}')
        assert found.pop("ok") is True
        assert found.pop("peak") == pytest.approx(0.2)
        assert found == bench.beam.injection.settings.as_dict()
        assert answer(bench, "inject_off") == {"enabled": False, "ok": True}

    def test_a_request_does_not_depend_on_the_one_before(self, bench):
        bench.ask("inject", {"waveform": "sine", "latency_frames": 7, "phase_deg": 90.0})
        bench.ask("inject", {"waveform": "sine"})
        assert bench.beam.injection.settings == InjectionSettings(enabled=True)

    def test_the_published_text_says_what_is_injected(self, bench):
        assert bench.beam.read(["injection"])["injection"] == ""
        bench.ask("inject", {"waveform": "sine", "freq_hz": 12.5})
        assert "sine 12.5 Hz" in bench.beam.read(["injection"])["injection"]


class TestRuntimeFields:
    """``inj_signal.*`` of get_rtc_field and set_rtc_field."""

    def test_recorded_pair(self, bench):
        assert answer(bench, 'set_rtc_field "inj_signal.enabled",true') == {
            "field": "inj_signal.enabled",
            "ok": True,
            "type": "int",
            "value": True,
        }
        assert bench.beam.injection.is_on
        assert bench.run(2).any()
        assert answer(bench, 'set_rtc_field "inj_signal.enabled",false')["value"] is False
        assert not bench.run(1).any()

    def test_every_field_is_listed_and_can_be_read(self, bench):
        listed = {entry.path: entry for entry in FIELDS}
        for name, value in InjectionSettings().as_dict().items():
            assert listed[f"inj_signal.{name}"].access == "read-write"
            assert answer(bench, f'get_rtc_field "inj_signal.{name}"')["value"] == value

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("enabled", "1", "int"),
            ("enabled", '"true"', "int"),
            ("waveform", '"triangle"', "string"),
            ("branch", "1", "string"),
            ("amplitude", "99", "double"),
            ("hold_frames", "0", "int"),
            ("hold_frames", "1.5", "int"),
            ("basis", '"nope"', "string"),
            ("basis_index", "140", "int"),
            ("prbs_seed", "-1", "uint32"),
        ],
    )
    def test_wrong_values_are_refused_in_the_usual_words(self, bench, name, value, expected):
        bench.ask("inject", {"waveform": "step"})
        before = bench.beam.injection.settings
        found = answer(bench, f'set_rtc_field "inj_signal.{name}",{value}')
        assert (found["ok"], found["error"], found["expected"]) == (False, "bad value/type", expected)
        assert bench.beam.injection.settings is before


def test_nothing_is_injected_before_a_configuration_or_after_the_stop(bench):
    bench.ask("stop_baldr")
    with pytest.raises(StateError, match="start_baldr"):
        bench.ask("inject", {"waveform": "sine"})
    loop, bench.beam.loop = bench.beam.loop, None
    with pytest.raises(StateError, match="readBDRConfig"):
        bench.ask("tt_inj", "sine")
    assert bench.ask("inject_off") == {"ok": True, "enabled": False}
    bench.beam.loop = loop
