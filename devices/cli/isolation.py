"""A configuration that meets nothing else on this computer: own streams, free ports, own database."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import tomli_w

from baldr_tango.configuration.placeholders import fill_path
from baldr_tango.configuration.runtime import TABLES, RuntimeConfig, load_runtime
from baldr_tango.errors import BackendError, BaldrError

HOST: Final = "127.0.0.1"
SHARED_MEMORY: Final = Path("/dev/shm")
_TRIES: Final = 100


@contextmanager
def isolated(config: RuntimeConfig, state: Path) -> Iterator[RuntimeConfig]:
    """Give `config` with its own stream directory and free ports; remove what is left of them at the end.

    Parameters
    ----------
    state : state directory, in place of the configured one.
    """
    with ExitStack() as stack:
        streams = stack.enter_context(temporary_directory(SHARED_MEMORY if SHARED_MEMORY.is_dir() else None))
        stack.callback(_remove_streams, streams)
        first = _free_ports(max(config.beams))
        camera, mds, dm_server = (_free_ports(1) for _ in range(3))
        changed = dataclasses.replace(
            config,
            instrument=dataclasses.replace(config.instrument, state=state),
            streams=dataclasses.replace(config.streams, directory=str(streams)),
            endpoints=dataclasses.replace(
                config.endpoints,
                commander_host=HOST,
                commander_first_port=first,
                camera=f"tcp://{HOST}:{camera}",
                mds=f"tcp://{HOST}:{mds}",
                dm_server=f"tcp://{HOST}:{dm_server}",
            ),
        )
        file = state / "run" / "baldr.toml"
        write_runtime(changed, file, original=config.instrument.state)
        yield load_runtime(file)


def write_runtime(config: RuntimeConfig, file: Path, *, original: Path) -> None:
    """Write a runtime file that `load_runtime` reads as `config`.

    Parameters
    ----------
    original : state directory with which the paths of `config` were resolved; paths below it follow the
        new one.
    """
    state = config.instrument.state
    here = config.file.parent

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            if value.is_relative_to(original):
                return str(state / value.relative_to(original))
            return str(fill_path(value, config=here, state=state, beam=None))
        if isinstance(value, tuple | list):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {str(name): plain(item) for name, item in value.items()}
        return value

    document = {name: plain(dataclasses.asdict(getattr(config, name))) for name in TABLES}
    document["instrument"]["state"] = str(state)
    beams = {}
    for beam, own in config.overrides.items():
        tables = {name: table for name, table in own.items() if name != "calibration"}
        beams[str(beam)] = plain({**own.get("calibration", {}), **tables})
    if beams:
        document["beam"] = beams
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"# Written by baldr up --isolated from {config.file}\n" + tomli_w.dumps(document))


@contextmanager
def temporary_directory(parent: Path | None = None) -> Iterator[Path]:
    """Give a new directory, by default among the system's temporary ones; remove it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="baldr-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_streams(directory: Path) -> None:
    """Remove the streams and their semaphores, which a killed instrument has left behind."""
    from baldr_tango.streams import Stream
    from baldr_tango.streams.inspect import list_streams

    for name in list_streams(directory):
        with suppress(BaldrError, OSError):
            Stream.destroy(name, directory)


def _free_ports(count: int) -> int:
    """Return the first of `count` consecutive free TCP ports of the loopback interface."""
    for _ in range(_TRIES):
        with ExitStack() as stack:
            first = _bind(stack, 0)
            with suppress(OSError, OverflowError):
                for port in range(first + 1, first + count):
                    _bind(stack, port)
                return first
    raise BackendError(f"no {count} consecutive free TCP ports on {HOST}")


def _bind(stack: ExitStack, port: int) -> int:
    probe = stack.enter_context(socket.socket())
    probe.bind((HOST, port))
    return int(probe.getsockname()[1])
