"""The Tango database: an embedded one where a site has none, and the registration of the devices."""

from __future__ import annotations

import importlib.util
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import tango

from baldr_tango.errors import BackendError, ConfigError
from devices.failures import describe
from devices.processes import ChildProcess, Deadline, python_module

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 10000
"""Port at which Tango databases usually are."""

START_TIMEOUT_S: Final = 20.0


class EmbeddedDatabase:
    """A Tango database in a process of its own, on the loopback interface, with an SQLite file.

    Parameters
    ----------
    file : the SQLite file; created when absent.
    log_file : output of the process.
    port : TCP port; 0 takes a free one.

    Raises
    ------
    BackendError
        The package pytango-db is not installed, the port is taken, or the database does not answer.
    """

    def __init__(self, file: Path, log_file: Path, port: int = 0) -> None:
        if importlib.util.find_spec("databaseds") is None:
            raise BackendError(
                "no Tango database: set TANGO_HOST, or install the embedded one with"
                " pip install 'baldr-tango[database]'"
            )
        if port and not port_is_free(port):
            raise BackendError(f"Tango database: port {port} of {HOST} is taken")
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        options = ["--host", HOST, "--port", str(port), "--print-host-port", "2"]
        self.process = ChildProcess(
            "Tango database",
            python_module("databaseds.database", *options),
            log_file,
            {"PYTANGO_DATABASE_NAME": str(file), "TANGO_HOST": f"{HOST}:{port}"},
        )
        try:
            self.port = self._wait_for_answer()
        except BaseException:
            self.process.stop()
            raise

    @property
    def tango_host(self) -> str:
        """What clients set ``TANGO_HOST`` to."""
        return f"{HOST}:{self.port}"

    def stop(self) -> None:
        """End the process; the file stays."""
        self.process.stop()

    def _wait_for_answer(self) -> int:
        deadline = Deadline(START_TIMEOUT_S, "the Tango database did not answer")
        while True:
            text = self.process.log_file.read_text("utf-8", "replace")
            announced = re.search(r"listening on:.*port=(\d+)", text)
            if announced:
                port = int(announced.group(1))
                try:
                    tango.Database(HOST, port).get_info()
                except tango.DevFailed:
                    pass
                else:
                    return port
            deadline.pause(self.process)


def port_is_free(port: int) -> bool:
    """Tell whether a TCP port of the loopback interface can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def open_database(tango_host: str) -> tango.Database:
    """Return the database at ``host:port``.

    Raises `ConfigError` for anything but ``host:port``, `BackendError` when it does not answer.
    """
    # Several databases, separated by commas, share one content: the first that answers will do.
    failures = []
    for place in tango_host.split(","):
        host, _, port = place.strip().rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"TANGO_HOST: found {tango_host!r}, expected host:port")
        try:
            return tango.Database(host, int(port))
        except tango.DevFailed as error:
            failures.append(describe(error))
    raise BackendError(f"the Tango database at {tango_host} does not answer: {'; '.join(failures)}")


def register_devices(
    database: tango.Database, server: str, device_class: str, devices: Iterable[str]
) -> list[str]:
    """Register the devices that a server does not have yet; returns their names.

    Devices that are known, and properties that a site has set, stay as they are.
    Raises `ConfigError` when a device belongs to another server.
    """
    known = {name.lower() for name in database.get_device_class_list(server)[0::2]}
    added = []
    for device in devices:
        if device.lower() in known:
            continue
        owner = _owner(database, device)
        if owner is not None and owner.lower() != server.lower():
            raise ConfigError(
                f"device {device} belongs to the server {owner} in the Tango database, expected {server}"
            )
        info = tango.DbDevInfo()
        info.server, info._class, info.name = server, device_class, device
        database.add_device(info)
        added.append(device)
    return added


def _owner(database: tango.Database, device: str) -> str | None:
    try:
        return str(database.get_device_info(device).ds_full_name)
    except tango.DevFailed:
        return None
