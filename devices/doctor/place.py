"""Where the product works: directories, shared memory, ports, the Tango database."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import BaldrError
from baldr_tango.streams.layout import shm_directory
from devices.doctor.finding import Finding, advice, ok, problem, text_of

_LISTENING: Final = "0A"
_MEGABYTE: Final = 1 << 20
_LEAST_SHM_MB: Final = 64.0


def listening_ports(root: Path) -> set[int]:
    """TCP ports of this machine on which somebody listens."""
    ports = set()
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        for line in (text_of(root / table) or "").splitlines()[1:]:
            words = line.split()
            if len(words) > 3 and words[3] == _LISTENING:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def port_of(endpoint: str) -> int | None:
    """TCP port of a ZMQ endpoint; None for another kind."""
    last = endpoint.rpartition(":")[2]
    return int(last) if endpoint.startswith("tcp://") and last.isdigit() else None


def commander_ports(root: Path, endpoints: Mapping[int, str]) -> Finding:
    """Say whether the ports of the commanders, by beam, are free."""
    name = "commander ports"
    busy = listening_ports(root)
    ports = {beam: port_of(endpoint) for beam, endpoint in endpoints.items()}
    taken = [f"{port} (beam {beam})" for beam, port in ports.items() if port in busy]
    if taken:
        return advice(
            name,
            f"in use: {', '.join(taken)}; a running server, or an old one",
            "ss -ltnp shows who; end it before another server starts, or endpoints.commander_first_port",
        )
    return ok(name, f"free: {', '.join(str(port) for port in ports.values() if port)}")


def writable(name: str, directory: Path, least_mb: float, key: str) -> Finding:
    """Judge a directory that is written to: permission, space. It need not exist yet.

    Parameters
    ----------
    least_mb : space that has to be free [MB].
    key : of the runtime file that names the directory.
    """
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        return problem(
            name, f"{directory}: {place} is not writable", f"chown {place}, or {key} in the runtime file"
        )
    free_mb = shutil.disk_usage(place).free / _MEGABYTE
    if free_mb < least_mb:
        return problem(
            name, f"{directory}: {free_mb:.0f} MB free, {least_mb:.0f} MB needed", f"free the disk, or {key}"
        )
    return ok(name, f"{directory}: {free_mb:.0f} MB free")


def shared_memory(directory: str | None) -> Finding:
    """Judge the directory of the streams."""
    name = "shared memory"
    place = shm_directory(directory)
    found = writable(name, place, _LEAST_SHM_MB, "streams.directory")
    if place.exists() and found.fix == "" and not _is_in_memory(place):
        return advice(
            name, f"{place} is on a disk: frames are written to it", "streams.directory below /dev/shm"
        )
    return found


def _is_in_memory(place: Path) -> bool:
    found = ("", "")
    for line in (text_of(Path("/proc/self/mounts")) or "").splitlines():
        _, mount, kind, *_ = line.split()
        if place.resolve().is_relative_to(mount) and len(mount) >= len(found[0]):
            found = (mount, kind)
    return found[1] in ("tmpfs", "ramfs", "")


def directories(config: RuntimeConfig) -> list[Finding]:
    """Judge every directory that is written to."""
    telemetry = config.for_beam(config.beams[0]).telemetry
    return [
        shared_memory(config.streams.directory or None),
        writable("state directory", config.instrument.state, 1.0, "instrument.state"),
        writable("telemetry directory", telemetry.directory, telemetry.min_free_mb, "telemetry.directory"),
    ]


def tango_database(tango_host: str, embedded: bool) -> Finding:
    """Say whether the Tango database answers.

    Parameters
    ----------
    tango_host : ``TANGO_HOST``, or empty.
    embedded : the package of the embedded database is installed.
    """
    name = "Tango database"
    if not tango_host:
        if embedded:
            return ok(name, "TANGO_HOST is not set: 'baldr up' starts one of its own")
        return advice(
            name,
            "TANGO_HOST is not set",
            "export TANGO_HOST=host:port, or pip install 'baldr-tango[database]'",
        )
    from devices.database import open_database

    try:
        open_database(tango_host)
    except BaldrError as error:
        return problem(name, str(error), "start it, or export TANGO_HOST=host:port of another one")
    return ok(name, f"{tango_host} answers")
