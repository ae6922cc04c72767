"""The command line's parts that need neither Tango server nor instrument."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tango
from rich.console import Console

from baldr_tango.configuration.runtime import load_runtime, shipped_config
from baldr_tango.errors import BackendError, ConfigError, StateError
from devices.cli.beams import Report
from devices.cli.isolation import isolated, write_runtime
from devices.cli.main import main, parser
from devices.cli.runfile import RunFile, read_run_file
from devices.cli.table import beam_table, plain_line, problems
from devices.database import open_database
from devices.processes import ChildProcess, Deadline
from devices.server import default_instance, tango_arguments
from devices.server import parser as server_parser

MEANS = SimpleNamespace(open_loop_rms_nm=120.4, opd_rms_nm=35.2, open_loop_strehl=0.81, strehl=0.982)
VALUES = {
    "TT_state": 1,
    "HO_state": 0,
    "frame_rate": 1000.04,
    "lost_frames": 3,
    "latency_p50": 10.2,
    "latency_p99": 20.1,
    "strehl": 0.95,
    "residual_rms": float("nan"),
    "telemetry_on": True,
}


def _wait_for_end(child: ChildProcess) -> None:
    deadline = Deadline(20.0, "the child did not end")
    while child.is_running:
        deadline.pause()


def test_the_table_fits_into_80_columns_and_says_what_matters() -> None:
    reports = [Report(beam, tango.DevState.RUNNING, "fine", VALUES) for beam in (1, 2, 3, 4)]
    reports[3] = Report(4, status="no answer")
    for truth in (None, {1: MEANS, 2: None}):
        console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
        console.print(beam_table(reports, truth))
        text = console.export_text()
        console.file.close()
        assert "…" not in text, "something was cut off"
        assert "RUNNING" in text
        assert "UNKNOWN" in text
        assert "1000.0" in text
        assert ("120>35" in text) == (truth is not None)
    line = plain_line(reports[0], {1: MEANS})
    for part in ("beam 1", "RUNNING", "TT", "lost 3", "120>35 nm", "0.810>0.982"):
        assert part in line
    assert problems(reports) == ["beam 4: no answer"]


def test_a_runtime_file_written_back_loads_as_the_same(tmp_path: Path) -> None:
    source = tmp_path / "a" / "baldr.toml"
    source.parent.mkdir()
    source.write_text(
        '[instrument]\nstate = "{config}/state"\n[beam.2]\nfile = "own/{beam}.toml"\nmask = "H5"\n'
        "[beam.2.control_ho]\nki = 0.1\n[beam.3.telemetry]\nimage_every = 7\n"
    )
    before = load_runtime(source)
    target = tmp_path / "b" / "baldr.toml"
    write_runtime(before, target, original=before.instrument.state)
    after = load_runtime(target)
    for beam in before.beams:
        expected = dataclasses.replace(
            before.for_beam(beam), runtime_file=target, runtime_sha256=after.sha256
        )
        assert after.for_beam(beam) == expected
    assert after.simulator == before.simulator
    assert after.for_beam(2).calibration_file == source.parent / "own/2.toml"


def test_an_isolated_configuration_meets_nothing_else_and_cleans_up(tmp_path: Path) -> None:
    config = load_runtime(shipped_config())
    with isolated(config, tmp_path / "one") as first, isolated(config, tmp_path / "two") as second:
        directories = {first.streams.directory, second.streams.directory}
        assert len(directories) == 2
        assert all(Path(directory).is_dir() for directory in directories)
        endpoints = [
            endpoint
            for each in (first, second)
            for endpoint in (
                each.endpoints.camera,
                each.endpoints.mds,
                *(each.for_beam(beam).commander_endpoint for beam in each.beams),
            )
        ]
        assert len(set(endpoints)) == len(endpoints)
        assert all(endpoint.startswith("tcp://127.0.0.1:") for endpoint in endpoints)
        assert first.telemetry.directory == tmp_path / "one" / "telemetry"
        assert first.for_beam(3).calibration_file.is_relative_to(tmp_path / "one")
    assert not any(Path(directory).exists() for directory in directories)


def test_one_state_directory_serves_one_run(tmp_path: Path) -> None:
    assert read_run_file(tmp_path) is None
    with RunFile(tmp_path) as run_file:
        run_file.write(tango_host="127.0.0.1:1")
        assert read_run_file(tmp_path) == {"pid": os.getpid(), "tango_host": "127.0.0.1:1"}
        with pytest.raises(StateError, match=str(os.getpid())):
            RunFile(tmp_path)
        assert read_run_file(tmp_path) is not None, "the refused one has not touched it"
    assert read_run_file(tmp_path) is None
    RunFile(tmp_path).__exit__(None, None, None)


def test_a_child_leaves_its_last_words_when_it_fails(tmp_path: Path) -> None:
    log = tmp_path / "log" / "child.log"
    child = ChildProcess("the child", [sys.executable, "-c", "raise SystemExit('no mirror')"], log)
    _wait_for_end(child)
    with pytest.raises(BackendError, match="no mirror") as failure:
        child.check()
    assert "the child ended with status 1" in str(failure.value)
    assert str(log) in str(failure.value)


def test_a_child_is_asked_to_stop_and_killed_when_it_does_not(tmp_path: Path) -> None:
    ready = "import signal; print('ready', flush=True); signal.pause()"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + ready
    for code, asked_is_enough in ((ready, True), (deaf, False)):
        child = ChildProcess("child", [sys.executable, "-c", code], tmp_path / "child.log")
        deadline = Deadline(20.0, "the child was not ready")
        while "ready" not in child.tail():
            deadline.pause(child)
        assert child.stop(timeout_s=10.0 if asked_is_enough else 0.2) == asked_is_enough
        assert not child.is_running


def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from devices.processes import ChildProcess; "
        "code = 'import signal; print(1, flush=True); signal.pause()'; "
        "child = ChildProcess('c', [sys.executable, '-c', code], Path(sys.argv[1])); "
        "print(child.pid, flush=True); signal.pause()"
    )
    log = tmp_path / "parent.log"
    parent = ChildProcess("parent", [sys.executable, "-c", code, str(tmp_path / "c.log")], log)
    deadline = Deadline(20.0, "the grandchild did not start")
    while not (tmp_path / "c.log").exists() or not (tmp_path / "c.log").read_text():
        deadline.pause(parent)
    grandchild = int(log.read_text().split()[0])
    os.kill(parent.pid, signal.SIGKILL)
    _wait_for_end(parent)
    deadline = Deadline(20.0, "the grandchild lives on")
    while _is_alive(grandchild):
        deadline.pause()


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_deadline_says_what_did_not_happen() -> None:
    def wait_forever() -> None:
        deadline = Deadline(0.0, "the mirror did not move")
        while True:
            deadline.pause()

    with pytest.raises(BackendError, match=r"the mirror did not move within 0 s"):
        wait_forever()


@pytest.mark.parametrize("host", ["nowhere", "host:port", ":1"])
def test_a_tango_host_must_be_host_and_port(host: str) -> None:
    with pytest.raises(ConfigError, match="TANGO_HOST"):
        open_database(host)


def test_wrong_options_and_files_are_told_with_a_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANGO_HOST", raising=False)
    with pytest.raises(SystemExit) as end:
        main(["up", "--seconds", "-1"])
    assert end.value.code == 2
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[surprise]\n")
    assert main(["status", "--config", str(wrong)]) == 1
    assert "surprise" in capsys.readouterr().err
    assert main(["status", "--state", str(tmp_path)]) == 1
    assert "TANGO_HOST" in capsys.readouterr().err


def test_every_sub_command_has_a_module_that_runs_it() -> None:
    import importlib

    for command in ("up", "status", "telemetry list", "streams", "calibrate"):
        options = parser().parse_args(command.split())
        assert callable(importlib.import_module(f"devices.cli.{options.module}").run)


def test_the_server_without_database_gets_its_devices_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("BALDR_CONFIG", "BALDR_STATE", "BALDR_COMMANDER"):
        monkeypatch.setenv(name, "")  # restored at the end, with what the function writes
    options = server_parser().parse_args(
        [
            *("lab", "--nodb", "--port", "4567", "--beam", "1", "--beam", "3", "--state", str(tmp_path)),
            *("-v", "--socket", "tcp://127.0.0.1:700{beam}"),
        ]
    )
    arguments = tango_arguments(options)
    assert arguments[0] == "lab"
    assert arguments[arguments.index("-dlist") + 1] == "BaldrBeam::asgard/baldr/1,BaldrBeam::asgard/baldr/3"
    assert arguments[-1] == "giop:tcp:127.0.0.1:4567", "loopback unless told otherwise"
    assert os.environ["BALDR_STATE"] == str(tmp_path)
    assert os.environ["BALDR_COMMANDER"] == "tcp://127.0.0.1:700{beam}"
    assert "tango://127.0.0.1:4567/asgard/baldr/3#dbase=no" in capsys.readouterr().out


def test_one_endpoint_for_several_beams_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    options = server_parser().parse_args(["--nodb", "--socket", "tcp://127.0.0.1:7000"])
    with pytest.raises(ConfigError, match="--socket"):
        tango_arguments(options)


def test_a_server_of_some_beams_has_an_instance_name_of_its_own() -> None:
    config = load_runtime(shipped_config())
    assert default_instance(config, config.beams) == config.instrument.server_instance
    assert default_instance(config, (2, 3)) == f"{config.instrument.server_instance}-2-3"
