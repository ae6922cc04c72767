"""The device server ``BaldrRTC``, and ``baldr-server`` for people."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Final

from baldr_tango.configuration.runtime import RuntimeConfig, load_runtime, shipped_config
from baldr_tango.errors import BaldrError, ConfigError
from devices.placement import cpus_from_environment, server_cpus
from devices.runtime_file import runtime_file

SERVER: Final = "BaldrRTC"
"""Name of the Tango server and of its console script: a Starter runs the one by the other."""

DEVICE_CLASS: Final = "BaldrBeam"
INSTRUMENT_CLASS: Final = "BaldrInstrument"

NODB_PORT: Final = 45450
"""Port of a server without a database, where no database could tell clients another one."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the device server with Tango's own command line: ``BaldrRTC <instance> [options]``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    from tango.server import run

    from baldr_tango.beam.garbage import collector
    from baldr_tango.rtc.scheduling import go_before_others
    from devices import logs
    from devices.beam_device import BaldrBeam
    from devices.instrument_device import BaldrInstrument
    from devices.interpreter import frame_memory
    from devices.processes import end_at_once

    if any(option.startswith("-v") for option in given):
        # Tango's own console target writes what the bridge gives it.
        logging.getLogger(logs.ROOT).setLevel(logging.DEBUG)
    else:
        logs.log_to_console()
    go_before_others(logging.getLogger(logs.ROOT))
    _gather(logging.getLogger(logs.ROOT))
    frame_memory.install()
    collector.take_over()
    run(tuple(filter(partial(_is_served, given), (BaldrBeam, BaldrInstrument))), args=[SERVER, *given])
    if any(thread.name.startswith(("rtc-", "start-")) for thread in threading.enumerate()):
        end_at_once()
    logging.getLogger(logs.ROOT).info("server ended")


def _gather(log: logging.Logger) -> None:
    """Choose the CPUs of all threads that are not real-time."""
    from baldr_tango.rtc.scheduling import gather_on, usable_cpus

    try:
        config = load_runtime(runtime_file())
        named = chain.from_iterable(config.for_beam(beam).realtime.cpus for beam in config.beams)
        loops = cpus_from_environment() or tuple(named)
    except BaldrError as error:
        log.warning("the CPUs of the server are left to the scheduler: %s", error)
        return
    cpus = server_cpus(config, usable_cpus(), loops)
    if cpus and gather_on(cpus, log):
        log.info("all but the loops runs on CPU %s (instrument.server_cpus)", ", ".join(map(str, cpus)))


def _is_served(given: Sequence[str], device_class: type) -> bool:
    """Tell whether a class is to be served: without a database, only one that -dlist names.

    Tango would give the others a device called NoName.
    """
    lists = [after for option, after in pairwise(given) if option == "-dlist"]
    return not lists or any(f"{device_class.__name__}::".lower() in text.lower() for text in lists)


def instrument_device(config: RuntimeConfig) -> str:
    """Return the Tango name of the device of all beams."""
    return f"{config.instrument.tango_prefix}/all"


def baldr_server(arguments: Sequence[str] | None = None) -> int:
    """Run ``baldr-server``: the same server, for people; return its exit status."""
    options = parser().parse_args(arguments)
    try:
        given = tango_arguments(options)
    except BaldrError as error:
        sys.stderr.write(f"baldr-server: {error}\n")
        return 1
    main(given)
    return 0


def tango_arguments(options: argparse.Namespace) -> list[str]:
    """Set the environment that the devices start from, register them; return Tango's arguments."""
    file = options.config or shipped_config()
    config = load_runtime(file, state=options.state)
    beams = tuple(options.beam or config.beams)
    settings = [config.for_beam(beam) for beam in beams]
    if options.socket and len(beams) > 1 and "{beam}" not in options.socket:
        raise ConfigError(
            f"--socket: found {options.socket} for beams {', '.join(map(str, beams))}, expected one beam, or"
            " {beam} in the endpoint"
        )
    os.environ["BALDR_CONFIG"] = str(config.file)
    if options.state:
        os.environ["BALDR_STATE"] = str(config.instrument.state)
    if options.socket:
        os.environ["BALDR_COMMANDER"] = options.socket
    devices = {DEVICE_CLASS: [each.tango_device for each in settings]}
    if options.group or set(beams) == set(config.beams):
        devices[INSTRUMENT_CLASS] = [instrument_device(config)]
    instance = options.instance or default_instance(config, beams)
    level = [f"-v{options.verbose + 2}"] if options.verbose else []
    if options.nodb:
        port = NODB_PORT if options.port is None else options.port
        where = ["-nodb", "-dlist", ",".join(_full_names(devices))]
        _say_names(chain.from_iterable(devices.values()), options.host, port)
    else:
        port = options.port or 0
        where = []
        _register(f"{SERVER}/{instance}", devices)
    return [instance, *level, *where, "-ORBendPoint", f"giop:tcp:{options.host}:{port or ''}"]


def default_instance(config: RuntimeConfig, beams: Sequence[int]) -> str:
    """Return the instance name of a server of these beams: the configured one if they are all."""
    name = config.instrument.server_instance
    return name if set(beams) == set(config.beams) else f"{name}-{'-'.join(map(str, beams))}"


def _full_names(devices: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name}::{device}" for name, members in devices.items() for device in members]


def _register(server: str, devices: Mapping[str, Sequence[str]]) -> None:
    from devices.database import open_database, register_devices

    tango_host = os.environ.get("TANGO_HOST")
    if not tango_host:
        raise ConfigError("TANGO_HOST is not set: set it to the host:port of a Tango database, or use --nodb")
    database = open_database(tango_host)
    for device_class, members in devices.items():
        for device in register_devices(database, server, device_class, members):
            sys.stdout.write(f"registered {device} for {server} in the Tango database {tango_host}\n")
    sys.stdout.flush()


def _say_names(devices: Iterable[str], host: str, port: int) -> None:
    for device in devices:
        sys.stdout.write(f"without database: tango://{host}:{port}/{device}#dbase=no\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``baldr-server``."""
    found = argparse.ArgumentParser(
        prog="baldr-server",
        description="Tango device server BaldrRTC. Device properties win over the options given here.",
    )
    found.add_argument("instance", nargs="?", help="server instance (default: instrument.server_instance)")
    found.add_argument("--beam", type=int, action="append", metavar="N", help="serve beam N; repeatable")
    found.add_argument(
        "--group",
        action="store_true",
        help="serve the device of all beams too (done anyway by a server of all beams)",
    )
    found.add_argument("--config", type=Path, metavar="FILE", help="runtime file (default: the shipped one)")
    found.add_argument("--state", type=Path, metavar="DIR", help="in place of instrument.state")
    found.add_argument(
        "--socket",
        metavar="ENDPOINT",
        help="commander endpoint in place of the configured one; {beam} is replaced; none: no commander",
    )
    found.add_argument("--nodb", "-nodb", action="store_true", help="run without a Tango database")
    found.add_argument("--host", default="127.0.0.1", help="interface on which Tango listens (%(default)s)")
    found.add_argument(
        "--port", type=int, metavar="PORT", help=f"TCP port of Tango (default: free; {NODB_PORT} with --nodb)"
    )
    found.add_argument(
        "--verbose", "-v", action="count", default=0, help="log to the console through Tango; repeatable"
    )
    return found


if __name__ == "__main__":
    main()
