"""A beam as operators meet it: states, refusals, faults and recovery, a wrong file, a missing stream."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.bases import Basis, write_bases
from baldr_tango.beam import TRANSITIONS, after
from baldr_tango.beam.readings import READERS
from baldr_tango.commands import COMMANDS, execute
from baldr_tango.configuration.settings import ControlSettings, LimitSettings, LoopSettings
from baldr_tango.errors import ConfigError, RequestError, StateError
from baldr_tango.interface import VALUES, status_names
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import LoopState, RtcState
from baldr_tango.streams import Stream
from tests.beam_bench import BeamBench
from tests.harness import wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BeamBench]:
    with BeamBench(tmp_path) as running:
        yield running


@pytest.fixture
def tripping(tmp_path: Path) -> Iterator[BeamBench]:
    """A beam whose high-order loop exceeds the command limit at its first step."""
    limits = LimitSettings(command=1e-6, lo_command=1.0, ho_mode=1.0)
    with BeamBench(tmp_path, limits=limits, control_ho=ControlSettings(type="PID", ki=0.5)) as running:
        yield running


def trip(bench: BeamBench) -> None:
    """Close the high-order loop until the limit trips."""
    bench.ask("force_close_baldr_HO")
    bench.step(2)
    wait_for(lambda: bench.beam.state().rtc == RtcState.FAULT, 10.0, "a fault")


@pytest.mark.parametrize("state", RtcState)
@pytest.mark.parametrize("event", sorted({event for row in TRANSITIONS.values() for event in row}))
def test_every_event_leads_somewhere_or_is_refused_with_a_reason(state: RtcState, event: str) -> None:
    if event in TRANSITIONS[state]:
        assert after(state, event) == TRANSITIONS[state][event]
    else:
        with pytest.raises(StateError, match=f"cannot {event} while {state.name.lower()}"):
            after(state, event)


def test_every_value_has_a_reader_and_every_reader_a_value() -> None:
    assert sorted(READERS) == sorted(value.name for value in VALUES)


def test_status_has_the_15_keys_first_and_tells_the_truth(bench: BeamBench) -> None:
    status = bench.ask("status", "")
    assert tuple(status)[:15] == status_names()
    assert len(status_names()) == 15
    assert status["TT_state"] == 0
    assert status["phasemask"] == "H3"
    assert status["config_file"] == str(bench.directory / "calibration.toml")
    bench.ask("close_all")
    assert (bench.ask("STATUS")["TT_state"], bench.ask("status")["HO_state"]) == (1, 1)


def test_pause_and_stop_show_in_the_state_and_start_brings_the_beam_back(bench: BeamBench) -> None:
    bench.ask("close_all")
    assert bench.ask("pauseRTC") == {"ok": True, "paused": True}
    assert bench.beam.state().rtc == RtcState.PAUSED
    assert bench.ask("resume_baldr_rtc") == "RTC resumed."
    assert bench.ask("stop_baldr")["servo_mode"] == -1
    state = bench.beam.state()
    assert (state.rtc, state.lo, state.ho) == (RtcState.STOPPED, LoopState.OPEN, LoopState.OPEN)
    with pytest.raises(StateError, match="start_baldr"):
        bench.ask("close_all")
    bench.ask("start")
    bench.wait_running()
    bench.step(3)
    assert bench.beam.state().lo == LoopState.OPEN


def test_closing_right_after_a_start_is_refused_or_real(bench: BeamBench) -> None:
    """Between the start of the thread and its first frame no reply may claim what is not so."""
    for _ in range(10):
        bench.ask("stop_baldr")
        bench.ask("start_baldr")
        with contextlib.suppress(StateError):
            assert bench.ask("close_baldr_LO") == {"ok": True, "TT_state": 1}
        bench.wait_running()
    assert bench.ask("close_baldr_LO") == {"ok": True, "TT_state": 1}


def test_a_fault_is_acknowledged_and_the_beam_goes_on(tripping: BeamBench) -> None:
    trip(tripping)
    assert "exceeded its limit" in tripping.beam.state().fault
    with pytest.raises(StateError, match="reset_fault"):
        tripping.ask("close_all")
    wait_for(lambda: tripping.loop.slots.switch(d.CLOSE_HO) == 0, 10.0, "the request to follow the fault")
    assert tripping.ask("reset_fault")["rtc_state"] == "RUNNING"
    tripping.step(3)
    assert tripping.beam.state().ho == LoopState.OPEN


def test_a_fault_can_be_stopped_and_started(tripping: BeamBench) -> None:
    trip(tripping)
    tripping.ask("stop_baldr")
    assert tripping.beam.state().rtc == RtcState.STOPPED
    tripping.ask("start_baldr")
    tripping.wait_running()
    tripping.step(3)
    assert tripping.beam.state().rtc == RtcState.RUNNING


def test_a_trip_saves_the_telemetry(tripping: BeamBench) -> None:
    tripping.step(5)
    trip(tripping)
    wait_for(lambda: tripping.beam.telemetry_status().frames_written > 0, 10.0, "saved telemetry")


def test_a_wrong_file_changes_nothing(bench: BeamBench, tmp_path: Path) -> None:
    before = bench.loop
    bench.ask("close_all")
    with pytest.raises(ConfigError, match="nowhere"):
        bench.ask("readBDRConfig", str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match="H9"):
        bench.ask("reload_config", str(bench.directory / "calibration.toml"), "H9")
    assert bench.loop is before
    assert bench.beam.state().lo == LoopState.CLOSED


def test_a_new_configuration_opens_the_loops_and_counts_anew(bench: BeamBench) -> None:
    bench.ask("close_all")
    bench.step(3)
    reply = bench.ask("readBDRConfig", str(bench.directory / "calibration.toml"))
    assert reply["ok"] is True
    assert reply["configured"] == 1
    bench.wait_running()
    assert bench.beam.state().lo == LoopState.OPEN
    bench.step(2)
    assert bench.counter(d.FRAMES) == 2


def test_closing_without_streams_is_refused_and_opening_holds(bench: BeamBench) -> None:
    bench.ask("close_all")
    bench.step(2)
    Stream.destroy("baldr1", bench.streams)
    wait_for(lambda: bool(bench.loop.problem), 10.0, "a complaint about the missing stream")
    assert bench.ask("open_all")["TT_state"] == 0
    with pytest.raises(StateError, match="baldr1"):
        bench.ask("close_all")
    wait_for(lambda: any("baldr1" in reason for reason in bench.beam.state().alarm), 10.0, "an alarm")


def test_unknown_values_and_commands_are_named(bench: BeamBench) -> None:
    with pytest.raises(RequestError, match="no_such_value"):
        bench.beam.read(["no_such_value"])
    with pytest.raises(RequestError, match="__ping__"):
        bench.ask("__ping__")


def test_commands_are_logged_with_their_source(bench: BeamBench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="baldr.beam1"):
        execute(bench.beam, "open_all", [], source="a test")
    assert any("open_all" in text and "a test" in text for text in caplog.messages)


def test_every_command_is_documented() -> None:
    for entry in COMMANDS:
        assert entry.summary.endswith("."), entry.name
        for argument in entry.arguments:
            assert argument.doc, f"{entry.name}: argument {argument.name}"


def test_a_beam_without_calibration_says_so_and_recovers(tmp_path: Path) -> None:
    bench = BeamBench(tmp_path)
    good = bench.beam.settings.calibration_file
    bench.beam.settings = replace(bench.beam.settings, calibration_file=tmp_path / "absent.toml")
    try:
        bench.beam.start()
        assert bench.beam.wait_until(lambda state: bool(state.fault), 30.0)
        assert bench.beam.state().rtc == RtcState.UNCONFIGURED
        assert "absent.toml" in bench.beam.state().fault
        with pytest.raises(StateError, match="readBDRConfig"):
            bench.ask("close_all")
        bench.ask("readBDRConfig", str(good))
        bench.wait_running()
    finally:
        bench.end()


def test_bases_of_a_file_go_before_the_generated_ones(tmp_path: Path) -> None:
    pytest.importorskip("astropy")
    shapes = np.zeros((1, 144))
    shapes[0, 20] = 1.0
    write_bases(tmp_path / "bases.fits", [Basis("zonal", shapes)])
    loop = LoopSettings(ring_frames=256, basis_file=str(tmp_path / "bases.fits"))
    with BeamBench(tmp_path, loop=loop) as bench:
        assert bench.beam.bases["zonal"].n_modes == 1


def test_a_basis_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    bench = BeamBench(tmp_path, loop=LoopSettings(ring_frames=256, basis_file=str(tmp_path / "none.fits")))
    try:
        bench.beam.start()
        assert bench.beam.wait_until(lambda state: bool(state.fault), 30.0)
        assert "none.fits" in bench.beam.state().fault
    finally:
        bench.end()
