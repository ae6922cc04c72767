"""The server with a database: registration, properties, several servers side by side."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tango
from tango import DevState

from baldr_tango.errors import BackendError, ConfigError
from devices.database import EmbeddedDatabase, open_database, register_devices
from devices.processes import ChildProcess, python_module
from legacy_zmq.client import CommanderClient
from tests.system.device_bench import DeviceBench, free_port, wait_for

pytestmark = pytest.mark.system

SERVER = "BaldrRTC/lab"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EmbeddedDatabase]:
    started = EmbeddedDatabase(tmp_path / "tango" / "database.sqlite", tmp_path / "database.log")
    yield started
    started.stop()


def test_devices_are_registered_once_and_a_sites_properties_stay(
    database: EmbeddedDatabase, tmp_path: Path
) -> None:
    db = open_database(database.tango_host)
    devices = ["test/baldr/1", "test/baldr/2"]
    assert register_devices(db, SERVER, "BaldrBeam", devices) == devices
    db.put_device_property("test/baldr/1", {"Mask": ["H5"]})
    assert register_devices(db, SERVER, "BaldrBeam", [*devices, "test/baldr/3"]) == ["test/baldr/3"]
    assert list(db.get_device_property("test/baldr/1", "Mask")["Mask"]) == ["H5"]
    known = db.get_device_class_list(SERVER)
    assert [name for name in known if name.startswith("test/")] == [*devices, "test/baldr/3"]
    with pytest.raises(ConfigError, match=SERVER):
        register_devices(db, "BaldrRTC/other", "BaldrBeam", ["test/baldr/1"])


def test_what_was_registered_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "database.sqlite"
    for known in ([], ["test/baldr/1"]):
        database = EmbeddedDatabase(file, tmp_path / "database.log")
        try:
            db = open_database(database.tango_host)
            assert [name for name in db.get_device_class_list(SERVER) if name.startswith("test/")] == known
            register_devices(db, SERVER, "BaldrBeam", ["test/baldr/1"])
        finally:
            database.stop()


def test_the_database_listens_on_loopback_only_and_two_share_a_computer(
    database: EmbeddedDatabase, tmp_path: Path
) -> None:
    with pytest.raises(BackendError, match=str(database.port)):
        EmbeddedDatabase(tmp_path / "b.sqlite", tmp_path / "b.log", database.port)
    other = EmbeddedDatabase(tmp_path / "b.sqlite", tmp_path / "b.log")
    try:
        assert other.port != database.port
        for each in (database, other):
            assert _listening_addresses(each.process.pid) <= {"127.0.0.1", "::1"}
    finally:
        other.stop()


def _listening_addresses(pid: int) -> set[str]:
    connections = psutil.Process(pid).net_connections("inet")
    found = {entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN}
    assert found, "listens nowhere"
    return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DeviceBench]:
    """Streams and peers; the server of the bench itself is stopped."""
    with DeviceBench(tmp_path) as started:
        started.stop_server()
        yield started


def _run(bench: DeviceBench, *arguments: str, **environment: str) -> ChildProcess:
    command = [
        sys.executable,
        "-c",
        "import sys; from devices.server import baldr_server; sys.exit(baldr_server())",
    ]
    variables = {"BALDR_CONFIG": "", "BALDR_STATE": "", "BALDR_COMMANDER": "", **environment}
    options = ["--config", str(bench.runtime_file), *arguments]
    return ChildProcess("baldr-server", [*command, *options], bench.directory / "baldr-server.log", variables)


def _wait_standby(child: ChildProcess, name: str) -> tango.DeviceProxy:
    def is_ready() -> bool:
        child.check()
        try:
            return bool(tango.DeviceProxy(name).state() == DevState.STANDBY)
        except tango.DevFailed:
            return False

    wait_for(is_ready, f"{name} in STANDBY: {child.tail()}")
    return tango.DeviceProxy(name)


def test_baldr_server_registers_what_is_missing_and_properties_win(
    database: EmbeddedDatabase, bench: DeviceBench
) -> None:
    db = open_database(database.tango_host)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    db.put_device_property("test/baldr/1", {"CommanderEndpoint": [endpoint], "Telemetry": ["on"]})
    name = f"tango://{database.tango_host}/test/baldr/1"
    child = _run(bench, TANGO_HOST=database.tango_host)
    try:
        device = _wait_standby(child, name)
        assert device.info().server_id == "BaldrRTC/main"
        assert device.telemetry_on is True
        with CommanderClient(endpoint, 5.0) as commander:
            assert '"ok":true' in commander.ask("close_all")
        assert device.state() == DevState.RUNNING
        assert _listening_addresses(child.pid) <= {"127.0.0.1", "::1"}
        # A property that changes takes effect with Init.
        device.put_property({"Telemetry": ["off"], "Priority": ["200"]})
        device.Init()
        assert device.state() == DevState.FAULT
        assert "Priority" in device.status()
        device.put_property({"Priority": ["0"]})
        device.Init()
        device = _wait_standby(child, name)
        assert device.telemetry_on is False
    finally:
        assert child.stop(), "the server had to be killed"


def test_baldr_server_without_a_database(bench: DeviceBench) -> None:
    port, socket_port = free_port(), free_port()
    child = _run(
        bench,
        "lab",
        "--nodb",
        "--port",
        str(port),
        "--socket",
        f"tcp://127.0.0.1:{socket_port}",
        TANGO_HOST="",
    )
    try:
        device = _wait_standby(child, f"tango://127.0.0.1:{port}/test/baldr/1#dbase=no")
        with CommanderClient(f"tcp://127.0.0.1:{socket_port}", 5.0) as commander:
            assert '"TT_state":1' in commander.ask("close_baldr_LO")
            assert device.TT_state == 1
    finally:
        assert child.stop(), "the server had to be killed"


def test_baldr_server_says_what_is_missing(bench: DeviceBench) -> None:
    child = _run(bench, TANGO_HOST="")
    wait_for(lambda: not child.is_running, "the end of the server")
    assert "TANGO_HOST is not set" in child.tail()
    child = _run(bench, TANGO_HOST=f"127.0.0.1:{free_port()}")
    wait_for(lambda: not child.is_running, "the end of the server")
    assert "does not answer" in child.tail()


def test_a_commander_endpoint_in_use_is_a_fault_that_init_clears(bench: DeviceBench) -> None:
    port = free_port()
    bench.write_configuration(endpoints={"commander_first_port": port})
    other = ChildProcess(
        "holder",
        [
            sys.executable,
            "-c",
            f"import signal, zmq; s = zmq.Context().socket(zmq.REP); s.bind('tcp://127.0.0.1:{port}');"
            " print('bound', flush=True); signal.pause()",
        ],
        bench.directory / "holder.log",
    )
    try:
        wait_for(lambda: "bound" in other.tail(), "a taken port")
        bench.start_server()
        device = bench.connect()
        assert device.state() == DevState.FAULT
        assert str(port) in device.status()
        # Nothing of the attempt is left: the streams are free, the log is not doubled.
        other.stop()
        device.Init()
        bench.wait_state(DevState.STANDBY)
        assert bench.log().count("configured from") == 1
    finally:
        other.stop()


def test_the_server_runs_under_its_own_name_as_a_module(
    database: EmbeddedDatabase, bench: DeviceBench
) -> None:
    register_devices(open_database(database.tango_host), SERVER, "BaldrBeam", ["test/baldr/1"])
    child = ChildProcess(
        "BaldrRTC",
        python_module("devices.server", "lab", "-ORBendPoint", "giop:tcp:127.0.0.1:"),
        bench.directory / "lab.log",
        {"TANGO_HOST": database.tango_host, "BALDR_CONFIG": str(bench.runtime_file)},
    )
    try:
        device = _wait_standby(child, f"tango://{database.tango_host}/test/baldr/1")
        assert device.info().server_id == SERVER
        assert device.adm_name().endswith(f"dserver/{SERVER}")
    finally:
        assert child.stop(), "the server had to be killed"
    assert os.environ.get("BALDR_CONFIG") is None
