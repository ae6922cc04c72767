"""Open-loop offsets: on the mirror while their loop is open, with and without frames."""

from __future__ import annotations

import json

import numpy as np
import pytest

from baldr_tango.bases import basis
from baldr_tango.commands import execute
from baldr_tango.configuration.settings import LimitSettings
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import CORNERS
from baldr_tango.rtc import RealTimeLoop
from legacy_zmq.protocol import reply
from tests.mirror_bench import MirrorBench, mirror_problem

LIMIT = 0.4


@pytest.fixture
def bench():
    limits = LimitSettings(command=LIMIT, lo_command=0.4, ho_mode=0.4)
    with MirrorBench(mirror_problem(limits=limits)) as running:
        yield running


def answer(bench, message):
    """Reply of the commander to a message."""
    return json.loads(reply(message, lambda name, args: execute(bench.beam, name, args)))


def poke(index, value):
    """Map with one actuator."""
    shape = np.zeros(144)
    shape[index] = value
    return shape


def test_an_offset_is_on_the_mirror_before_any_frame_and_stays(bench):
    bench.ask("ol_set_actuator", "HO", 65, 0.1)
    np.testing.assert_allclose(bench.command(), poke(65, 0.1), rtol=1e-6)
    np.testing.assert_allclose(bench.run(3, "command")[-1], poke(65, 0.1), rtol=1e-6)
    bench.ask("ol_set_actuator", "HO", 65, -0.2)
    np.testing.assert_allclose(bench.command(), poke(65, -0.2), rtol=1e-6)


def test_an_offset_reaches_a_paused_mirror(bench):
    bench.ask("pauseRTC")
    bench.ask("ol_set_mode", "LO", "zernike", 0, 0.5)
    np.testing.assert_allclose(bench.command(), 0.5 * basis("zernike").mode(0), atol=1e-7)


def test_each_offset_acts_while_its_own_loop_is_open(bench):
    bench.ask("ol_set_actuator", "LO", 20, 0.1)
    bench.ask("ol_set_actuator", "HO", 30, 0.2)
    np.testing.assert_allclose(bench.command(), poke(20, 0.1) + poke(30, 0.2), rtol=1e-6)
    for lo, ho in ((True, False), (False, True), (True, True), (False, False)):
        bench.set_loops(lo, ho)
        command = bench.step(bench.frame())
        loops = -(bench.newest("c_LO") + bench.newest("c_HO"))
        expected = (not lo) * poke(20, 0.1) + (not ho) * poke(30, 0.2)
        np.testing.assert_allclose(command - loops, expected, atol=1e-7)


def test_offsets_return_when_a_loop_is_opened_without_a_frame(bench):
    bench.ask("ol_set_actuator", "HO", 30, 0.2)
    bench.set_loops(False, True)
    bench.step(bench.frame())
    bench.set_loops(False, False)
    np.testing.assert_allclose(bench.command(), poke(30, 0.2), rtol=1e-6)


def test_clearing_takes_them_off_at_once(bench):
    bench.ask("ol_set_actuator", "LO", 20, 0.1)
    bench.ask("ol_set_mode", "HO", "zonal", 7, 0.1)
    assert bench.beam.status()["TT_offsets"] == 1
    assert answer(bench, 'clear_openloop_offsets ""') == {"TT_offsets": 0, "ok": True}
    assert not bench.command().any()
    assert bench.beam.status()["TT_offsets"] == 0
    assert not bench.run(2, "command").any()


def test_high_order_offsets_are_no_tip_tilt_offsets(bench):
    bench.ask("ol_set_actuator", "HO", 20, 0.1)
    assert bench.beam.status()["TT_offsets"] == 0


def test_stop_flattens_and_start_brings_them_back(bench):
    bench.ask("ol_set_actuator", "HO", 30, 0.2)
    bench.ask("stop_baldr")
    assert not bench.command().any()
    bench.ask("start_baldr")
    bench.wait_running()
    np.testing.assert_allclose(bench.command(), poke(30, 0.2), rtol=1e-6)


def test_a_fault_flattens_and_its_acknowledgement_brings_them_back(bench):
    bench.ask("ol_set_actuator", "HO", 30, 0.2)
    bench.set_limit(0.1)
    assert not bench.step(bench.frame()).any()
    assert bench.counter(d.TRIP) == d.TRIP_LIMIT
    bench.set_limit(LIMIT)
    bench.beam.open_after_trip()
    assert not bench.command().any()
    bench.ask("reset_fault")
    np.testing.assert_allclose(bench.command(), poke(30, 0.2), rtol=1e-6)


def test_offsets_can_be_cleared_in_a_fault(bench):
    bench.ask("ol_set_actuator", "HO", 30, 0.2)
    bench.set_limit(0.1)
    bench.step(bench.frame())
    bench.beam.open_after_trip()
    bench.ask("clear_openloop_offsets")
    bench.ask("reset_fault")
    assert not bench.run(2, "command").any()
    assert bench.counter(d.TRIP) == 0


class TestModes:
    """`ol_set_mode`."""

    @pytest.mark.parametrize("name", ["zonal", "zernike", "hadamard", "fourier_10x10", "fourier_12x12", "KL"])
    def test_every_basis_is_there_and_not_transposed(self, bench, name):
        bench.ask("ol_set_mode", "HO", name, 4, 0.3)
        np.testing.assert_allclose(bench.command(), 0.3 * basis(name).mode(4), atol=1e-7)
        assert not np.allclose(bench.command().reshape(12, 12), bench.command().reshape(12, 12).T)

    def test_a_zonal_mode_pokes_the_actuator_of_its_number(self, bench):
        bench.ask("ol_set_mode", "LO", "zonal", 10, 0.1)
        np.testing.assert_allclose(bench.command(), poke(12, 0.1), rtol=1e-6)

    def test_a_mode_replaces_or_adds(self, bench):
        zernike = basis("zernike")
        bench.ask("ol_set_mode", "LO", "zernike", 0, 0.5)
        bench.ask("ol_set_mode", "LO", "zernike", 1, 0.2, True)
        both = 0.5 * zernike.mode(0) + 0.2 * zernike.mode(1)
        np.testing.assert_allclose(bench.command(), both, atol=1e-7)
        bench.ask("ol_set_mode", "LO", "zernike", 3, 0.1)
        np.testing.assert_allclose(bench.command(), 0.1 * zernike.mode(3), atol=1e-7)


class TestLimits:
    """What the mirror is protected from."""

    def test_the_limit_itself_is_allowed_and_does_not_trip(self, bench):
        bench.ask("ol_set_actuator", "HO", 65, LIMIT)
        assert bench.command()[65] == pytest.approx(LIMIT)
        bench.run(2)
        assert bench.counter(d.TRIP) == 0

    @pytest.mark.parametrize("value", [0.4001, -0.4001, 5.0, 1e300])
    def test_more_is_refused_and_nothing_changes(self, bench, value):
        bench.ask("ol_set_actuator", "HO", 65, 0.1)
        with pytest.raises(RequestError, match=r"limits\.command"):
            bench.ask("ol_set_actuator", "HO", 65, value)
        with pytest.raises(RequestError, match=r"limits\.command"):
            bench.ask("ol_set_mode", "LO", "zonal", 3, value)
        np.testing.assert_allclose(bench.command(), poke(65, 0.1), rtol=1e-6)

    def test_both_offsets_count_together(self, bench):
        bench.ask("ol_set_actuator", "HO", 65, 0.3)
        with pytest.raises(RequestError, match="together"):
            bench.ask("ol_set_actuator", "LO", 65, 0.2)
        bench.ask("ol_set_actuator", "LO", 65, -0.4)
        assert bench.command()[65] == pytest.approx(-0.1, abs=1e-6)

    def test_an_accumulated_mode_is_checked_as_a_whole(self, bench):
        for _ in range(4):
            bench.ask("ol_set_mode", "HO", "hadamard", 1, 0.1, True)
        with pytest.raises(RequestError, match=r"0\.5"):
            bench.ask("ol_set_mode", "HO", "hadamard", 1, 0.1, True)

    @pytest.mark.parametrize("corner", CORNERS)
    def test_corners_are_refused(self, bench, corner):
        with pytest.raises(RequestError, match="corner"):
            bench.ask("ol_set_actuator", "HO", corner, 0.1)
        assert not bench.command().any()


class TestReplies:
    """The commander's words."""

    def test_recorded_pairs(self, bench):
        assert answer(bench, 'ol_set_actuator ["HO",65,0.1]') == {
            "N": 144,
            "branch": "HO",
            "idx": 65,
            "ok": True,
            "old": 0.0,
            "value": 0.1,
        }
        assert answer(bench, 'ol_set_actuator ["HO",65,0.2]')["old"] == 0.1
        assert answer(bench, 'ol_set_actuator ["HO",144,0.1]') == {
            "N": 144,
            "error": "idx out of range",
            "ok": False,
        }
        assert answer(bench, 'ol_set_mode ["HO","zonal",140,0.1]') == {
            "error": "index out of range",
            "n_modes": 140,
            "ok": False,
        }
        assert answer(bench, 'ol_set_mode ["HO","zonal",5,0.1]') == {
            "accumulate": False,
            "amplitude": 0.1,
            "basis": "zonal",
            "branch": "HO",
            "dm_len": 144,
            "index": 5,
            "n_modes": 140,
            "ok": True,
        }

    @pytest.mark.parametrize(
        "message",
        [
            'ol_set_actuator ["HO",65,0.1]',
            'ol_set_actuator "HO",65,0.1',
            'ol_set_actuator ["ho","65","0.1"]',
            'ol_set_actuator {"branch":"HO","idx":65,"value":0.1}',
            'ol_set_actuator "HO 65 0.1"',
            'ol_set_actuator ["HO 65 0.1"]',
            'ol_set_actuator [["HO",65,0.1]]',
        ],
    )
    def test_all_forms_of_an_actuator(self, bench, message):
        assert answer(bench, message)["ok"] is True
        np.testing.assert_allclose(bench.command(), poke(65, 0.1), rtol=1e-6)

    @pytest.mark.parametrize(
        "message",
        [
            'ol_set_mode ["LO","zonal",3,0.1,true]',
            'ol_set_mode {"branch":"LO","basis":"ZONAL","index":3,"amplitude":0.1,"accumulate":true}',
            'ol_set_mode "LO zonal 3 0.1 true"',
            'ol_set_mode "LO zonal 3 0.1 1"',
        ],
    )
    def test_all_forms_of_a_mode(self, bench, message):
        assert answer(bench, message)["accumulate"] is True
        assert answer(bench, message)["ok"] is True
        np.testing.assert_allclose(bench.command(), 0.2 * basis("zonal").mode(3), rtol=1e-6)

    @pytest.mark.parametrize(
        ("message", "words"),
        [
            ("ol_set_actuator", "branch"),
            ("ol_set_actuator []", "branch"),
            ('ol_set_actuator ["HO",65]', "usage"),
            ('ol_set_actuator "HO 65 0.1 7"', "usage"),
            ('ol_set_actuator {"branch":"HO","idx":65}', "value"),
            ('ol_set_actuator {"branch":"HO","idx":65,"value":0.1,"x":1}', "x"),
            ('ol_set_actuator ["ZZ",65,0.1]', "branch"),
            ('ol_set_actuator ["high",65,0.1]', "branch"),
            ("ol_set_actuator [1,65,0.1]", "branch"),
            ('ol_set_actuator ["HO",6.5,0.1]', "idx must be integer"),
            ('ol_set_actuator ["HO",true,0.1]', "idx must be integer"),
            ('ol_set_actuator ["HO",-1,0.1]', "idx must be >= 0"),
            ('ol_set_actuator ["HO",65,"a"]', "value must be numeric"),
            ('ol_set_actuator ["HO",65,"nan"]', "value must be numeric"),
            ('ol_set_actuator ["HO",65,[1]]', "value must be numeric"),
            ('ol_set_mode ["HO","nope",0,0.1]', "basis not found"),
            ('ol_set_mode ["HO",5,0,0.1]', "basis not found"),
            ('ol_set_mode ["HO","zonal",-1,0.1]', "index out of range"),
            ('ol_set_mode ["HO","zonal",0]', "usage"),
            ('ol_set_mode ["XX","zonal",0,0.1]', 'branch must be "HO" or "LO"'),
            ('ol_set_mode ["HO","zonal",0,0.1,"perhaps"]', "accumulate"),
        ],
    )
    def test_wrong_requests_are_refused_and_named(self, bench, message, words):
        found = answer(bench, message)
        assert found["ok"] is False
        assert words in found["error"]
        assert not bench.command().any()


class TestNewConfiguration:
    """A loop that takes the place of another."""

    def test_it_starts_with_the_offsets(self, bench):
        bench.ask("ol_set_actuator", "LO", 65, 0.1)
        loop = RealTimeLoop(mirror_problem(1), bench.settings, bench.beam.log)
        bench.beam.offsets.configure(loop)
        np.testing.assert_allclose(loop.slots.current("offset_lo"), poke(65, 0.1), rtol=1e-6)
        assert loop.slots.switch(d.OFFSET_EPOCH) != loop.counters[d.OFFSET_EPOCH_SEEN], "shown at its start"

    def test_a_smaller_limit_clears_them(self, bench, caplog):
        bench.ask("ol_set_actuator", "LO", 65, 0.1)
        parameters = mirror_problem(limits=LimitSettings(command=0.05))
        loop = RealTimeLoop(parameters, bench.settings, bench.beam.log)
        bench.beam.offsets.configure(loop)
        assert not loop.slots.current("offset_lo").any()
        assert not bench.beam.offsets.tip_tilt_is_set
        assert "cleared" in caplog.text


def test_before_a_configuration_there_is_nothing_to_set(bench):
    loop, bench.beam.loop = bench.beam.loop, None
    with pytest.raises(StateError, match="not initialized"):
        bench.ask("ol_set_actuator", "HO", 65, 0.1)
    assert bench.ask("clear_openloop_offsets")["ok"] is True
    bench.beam.loop = loop
