"""All beams as one device: commands, values, events and state, with beams that are ill or dead."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tango
from tango import DevState

from baldr_tango.interface import VALUES, status_names
from tests.system.device_bench import Events, free_port, wait_for
from tests.system.instrument_bench import PREFIX, InstrumentBench

pytestmark = pytest.mark.system

REPLY_BOUND_S = 2.5


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstrumentBench]:
    with InstrumentBench(tmp_path_factory.mktemp("instrument")) as bench:
        bench.start_database()
        bench.start_both()
        yield bench


@pytest.fixture
def bench(running: InstrumentBench) -> Iterator[InstrumentBench]:
    """All three beams ready, loops open."""
    if "other" not in running.processes:
        running.start("other", tango_host=running.tango_host)
    wait_for(lambda: "UNKNOWN" not in running.states() and running.states(), f"all beams: {running.logs()}")
    if running.states() != ["STANDBY"] * 3:
        for name in ("start_baldr", "reset_fault", "resumeRTC", "open_all"):
            running.device().command_inout(name, [])
    running.wait_states("STANDBY", "STANDBY", "STANDBY")
    yield running
    if "other" in running.processes:
        running.signal("other", signal.SIGCONT)


def run(bench: InstrumentBench, name: str, *beams: int) -> dict[str, Any]:
    return dict(json.loads(bench.device().command_inout(name, list(beams))))


def test_an_empty_list_and_zero_mean_all_beams(bench: InstrumentBench) -> None:
    for beams in ((), (0,)):
        for name, state in (("close_all", DevState.RUNNING), ("open_all", DevState.STANDBY)):
            reply = run(bench, name, *beams)
            assert (reply["ok"], reply["content"]) == (True, "OK")
            assert sorted(reply["beams"]) == ["1", "2", "3"]
            assert all(each["ok"] for each in reply["beams"].values())
            # In force when the reply is there, at the beams and in what the group shows of them.
            assert [bench.device(beam).state() for beam in (1, 2, 3)] == [state] * 3
            assert bench.device().state() == state


def test_a_subset_leaves_the_others_alone(bench: InstrumentBench) -> None:
    reply = run(bench, "close_baldr_HO", 3, 1)
    assert sorted(reply["beams"]) == ["1", "3"]
    device = bench.device()
    assert list(device.HO_state) == [1.0, 0.0, 1.0]
    assert list(device.TT_state) == [0.0, 0.0, 0.0]
    assert device.n_closed == 2
    assert device.state() == DevState.RUNNING
    assert [bench.device(beam).HO_state.value for beam in (1, 2, 3)] == [1, 0, 1]


@pytest.mark.parametrize("beams", [[4], [0, 1], [-1]])
def test_beams_that_do_not_exist_are_refused_and_nothing_is_done(
    bench: InstrumentBench, beams: list[int]
) -> None:
    with pytest.raises(tango.DevFailed, match="expected some of 1, 2, 3") as failure:
        bench.device().close_all(beams)
    assert failure.value.args[0].reason == "BAD_REQUEST"
    assert bench.device().n_closed == 0


def test_the_snapshot_of_each_beam_is_in_the_reply(bench: InstrumentBench) -> None:
    reply = run(bench, "status_json", 2)
    expected = json.loads(bench.device(2).status_json())
    assert {name: reply["beams"]["2"]["reply"][name] for name in status_names()} == {
        name: expected[name] for name in status_names()
    }


def test_a_command_with_arguments_for_some_beams(bench: InstrumentBench) -> None:
    def gain(beam: int) -> float:
        values = json.loads(bench.device(beam).ctrl_get('["LO", "ki"]'))
        return float(next(iter(values["value"])) if "value" in values else values["ki"][0])

    before = [gain(beam) for beam in (1, 2, 3)]
    request = json.dumps(["update_ctrl_param", [1, 3], "LO", "ki", "all", 0.05])
    reply = json.loads(bench.device().for_beams(request))
    assert reply["content"] == "OK"
    assert [gain(beam) for beam in (1, 2, 3)] == [0.05, before[1], 0.05]
    for text, expected in (
        ('["exit"]', "not for several beams"),
        ('["update_ctrl_param", [1]]', "missing argument"),
        ('["no_such"]', "unknown command"),
        ("close_all", "not JSON"),
    ):
        with pytest.raises(tango.DevFailed, match=expected):
            bench.device().for_beams(text)


def test_rules_of_automation_for_some_beams(bench: InstrumentBench) -> None:
    def dwell(beam: int) -> float:
        return float(json.loads(bench.device(beam).set_automation(""))["dwell_close_s"])

    before = [dwell(beam) for beam in (1, 2, 3)]
    reply = json.loads(bench.device().for_beams('["set_automation", [1, 3], {"dwell_close_s": 7.5}]'))
    assert reply["content"] == "OK"
    assert {each["reply"]["dwell_close_s"] for each in reply["beams"].values()} == {7.5}
    assert [dwell(beam) for beam in (1, 2, 3)] == [7.5, before[1], 7.5]
    wrong = json.loads(bench.device().for_beams('["set_automation", 0, {"auto_clse": true}]'))
    assert wrong["content"].count("no rule 'auto_clse'") == 3


def test_a_job_of_each_beam_is_begun_looked_at_and_ended(bench: InstrumentBench) -> None:
    reply = json.loads(bench.device().for_beams('["latency_budget", 0, 100000]'))
    assert reply["content"] == "OK", reply

    def jobs() -> list[tuple[str, str]]:
        found = run(bench, "job_status")["beams"]
        return [(found[beam]["reply"]["name"], found[beam]["reply"]["state"]) for beam in "123"]

    assert jobs() == [("latency_budget", "running")] * 3
    assert run(bench, "job_cancel")["content"] == "OK"
    assert jobs() == [("latency_budget", "cancelled")] * 3
    assert run(bench, "inject_off", 2)["content"] == "OK"
    assert run(bench, "clear_openloop_offsets")["content"] == "OK"


def test_lists_are_what_the_beams_say(bench: InstrumentBench) -> None:
    device = bench.device()
    assert list(device.beams) == [1, 2, 3]
    by_name = {value.name: value for value in VALUES}
    for name in status_names():
        listed = list(device.read_attribute(name).value)
        for beam, found in zip((1, 2, 3), listed, strict=True):
            expected = bench.device(beam).read_attribute(name).value
            assert found == (expected if by_name[name].kind is str else float(expected)), (name, beam)
    wait_for(lambda: all(100.0 < rate < 300.0 for rate in device.frame_rate), "frame rates of about 200 Hz")


def test_changes_are_delivered_as_events(bench: InstrumentBench) -> None:
    names = ("State", "TT_state", "states", "n_closed")
    with Events(bench.device(), *names) as events:
        # One beam is told by itself: the group notices.
        bench.device(3).close_baldr_LO()
        events.wait("TT_state", lambda value: value is not None and list(value) == [0.0, 0.0, 1.0])
        events.wait("states", lambda value: list(value) == ["STANDBY", "STANDBY", "RUNNING"])
        events.wait("n_closed", lambda value: value == 1)
        events.wait("State", lambda value: value == DevState.RUNNING)
        events.wait("n_closed", lambda value: value == 1, tango.EventType.ARCHIVE_EVENT)
        run(bench, "open_all")
        events.wait("State", lambda value: value == DevState.STANDBY)
        assert events.errors() == []


def test_a_beam_in_fault_is_named_and_the_others_work(bench: InstrumentBench) -> None:
    bench.database.put_device_property(f"{PREFIX}/2", {"Mask": ["none_such"]})
    try:
        bench.device(2).Init()
        bench.wait_states("STANDBY", "FAULT", "STANDBY")
        reply = run(bench, "close_all")
        assert not reply["ok"]
        assert reply["content"].startswith(
            "ERROR: partial (baldr1: OK; baldr3: OK; errors: baldr2: cannot close while"
        )
        assert [reply["beams"][beam]["ok"] for beam in "123"] == [True, False, True]
        device = bench.device()
        assert device.state() == DevState.FAULT
        assert (device.n_fault, device.n_closed) == (1, 2)
        lines = device.status().splitlines()
        assert lines[0].startswith("FAULT: ")
        assert [line.split(": ")[:2] for line in lines[1:]] == [
            ["beam 1", "RUNNING"],
            ["beam 2", "FAULT"],
            ["beam 3", "RUNNING"],
        ]
        assert "none_such" in lines[2]
    finally:
        bench.database.delete_device_property(f"{PREFIX}/2", "Mask")
        bench.device(2).Init()


def test_a_beam_that_hangs_delays_no_other_and_the_reply_only_by_the_time_out(bench: InstrumentBench) -> None:
    device = bench.device()
    bench.signal("other", signal.SIGSTOP)
    begin = time.monotonic()
    with Events(bench.device(1), "TT_state") as events:
        waiting = device.command_inout_asynch("close_all", [])
        # The others have closed, and the device answers, while the third is still waited for.
        events.wait("TT_state", lambda value: value == 1)
        assert list(device.beams) == [1, 2, 3]
        with pytest.raises(tango.AsynReplyNotArrived):
            device.command_inout_reply(waiting)
        reply = json.loads(device.command_inout_reply(waiting, 3000))
    assert time.monotonic() - begin < REPLY_BOUND_S
    assert reply["content"].startswith("ERROR: partial (baldr1: OK; baldr2: OK; errors: baldr3: ")
    bench.wait_states("RUNNING", "RUNNING", "UNKNOWN")
    found = list(device.TT_state)
    assert found[:2] == [1.0, 1.0]
    assert math.isnan(found[2])
    assert list(device.phasemask) == ["H3", "H3", "UNKNOWN"]
    assert device.state() == DevState.ALARM
    assert device.n_answering == 2
    bench.signal("other", signal.SIGCONT)
    wait_for(lambda: "UNKNOWN" not in bench.states(), "beam 3 again")


def test_a_dead_beam_is_told_at_once_and_seen_again_after_its_restart(bench: InstrumentBench) -> None:
    with Events(bench.device(), "states", "State", kinds=(tango.EventType.CHANGE_EVENT,)) as events:
        bench.kill("other")
        events.wait("states", lambda value: list(value) == ["STANDBY", "STANDBY", "UNKNOWN"])
        events.wait("State", lambda value: value == DevState.ALARM)
        begin = time.monotonic()
        reply = run(bench, "open_all")
        assert time.monotonic() - begin < REPLY_BOUND_S
        assert reply["content"].startswith("ERROR: partial (baldr1: OK; baldr2: OK; errors: baldr3: ")
        only = run(bench, "open_all", 3)
        assert only["content"].startswith("ERROR: baldr3: ")
        before = len(events.of("states"))
        bench.start("other", tango_host=bench.tango_host)
        bench.wait_states("STANDBY", "STANDBY", "STANDBY")
        wait_for(
            lambda: any(list(each.value) == ["STANDBY"] * 3 for each in events.of("states")[before:]),
            "the event of its return",
        )
    assert run(bench, "close_all")["content"] == "OK"


def test_init_finds_the_beams_again(bench: InstrumentBench) -> None:
    device = bench.device()
    bench.database.put_device_property(f"{PREFIX}/all", {"TimeoutMs": ["5000"]})
    device.Init()
    assert device.state() == DevState.FAULT
    assert "TimeoutMs: found 5000, expected 100 to 2400" in device.status()
    with pytest.raises(tango.DevFailed, match="TimeoutMs"):
        device.open_all([])
    bench.database.delete_device_property(f"{PREFIX}/all", "TimeoutMs")
    bench.database.put_device_property(f"{PREFIX}/all", {"Beams": [f"{PREFIX}/3", f"{PREFIX}/1"]})
    device.Init()
    wait_for(lambda: list(device.states) == ["STANDBY", "STANDBY"], "two beams")
    assert list(device.beams) == [3, 1]
    assert sorted(run(bench, "open_all")["beams"]) == ["1", "3"]
    bench.database.delete_device_property(f"{PREFIX}/all", "Beams")
    device.Init()
    bench.wait_states("STANDBY", "STANDBY", "STANDBY")


def test_without_a_database_the_beams_of_the_same_server_are_found(tmp_path: Path) -> None:
    port = free_port()
    with InstrumentBench(tmp_path) as bench:
        devices = ",".join(f"BaldrBeam::{PREFIX}/{beam}" for beam in (1, 2, 3))
        where = ("-nodb", "-dlist", f"{devices},BaldrInstrument::{PREFIX}/all")
        bench.start("nodb", *where, "-ORBendPoint", f"giop:tcp:127.0.0.1:{port}")

        def client(name: str) -> tango.DeviceProxy:
            return tango.DeviceProxy(f"tango://127.0.0.1:{port}/{PREFIX}/{name}#dbase=no")

        def ready() -> bool:
            try:
                return list(client("all").read_attribute("states").value) == ["STANDBY"] * 3
            except tango.DevFailed:
                return False

        wait_for(ready, f"three beams: {bench.logs()}")
        assert json.loads(client("all").close_all([2]))["content"] == "OK"
        assert [client(beam).state() for beam in "123"] == [
            DevState.STANDBY,
            DevState.RUNNING,
            DevState.STANDBY,
        ]
