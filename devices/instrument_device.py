"""The Tango device of the whole instrument: its beams as one, for commands, values and state."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import tango
from tango import AutoTangoAllowThreads, CmdArgType, DevState
from tango.server import command, device_property

from baldr_tango.configuration.runtime import load_runtime
from baldr_tango.errors import BackendError, BaldrError, ConfigError, StateError
from baldr_tango.interface import Command
from devices import logs
from devices.attributes import attribute_members
from devices.beam_link import BeamLink, ask
from devices.callers import caller
from devices.cli.beams import BeamClient, Report
from devices.failures import describe, raise_failure
from devices.instrument_commands import (
    REPLY_DOC,
    Request,
    compose,
    instrument_command_members,
    parse_request,
    request_of,
)
from devices.instrument_states import rule_for_beams
from devices.instrument_values import INSTRUMENT_VALUES, LISTED, MOST_BEAMS, collect
from devices.own_address import full_name
from devices.publishing import PublishingDevice
from devices.runtime_file import runtime_file
from devices.text import json_text, tango_text

TIMEOUT_RANGE_MS: Final = (100, 2400)
"""A Tango client gives up after 3 s, and the monitor of a device after 3.2 s."""

STOP_S: Final = 4.0
"""Longer than Tango's own limit of 3.2 s for a call within one process."""

INSTRUMENT_PROPERTIES: Final[dict[str, device_property]] = {
    "ConfigFile": device_property(
        dtype=str,
        default_value="",
        doc="Runtime file that says which beams there are. Empty: environment variable BALDR_CONFIG, else the"
        " one that ships with the product.",
    ),
    "Beams": device_property(
        dtype=(str,),
        default_value=[],
        doc="Devices of the beams, in the order of all lists; a name that does not end in the beam's number"
        " is given as number=name. Empty: one device per beam of the runtime file, below its tango_prefix.",
    ),
    "TimeoutMs": device_property(
        dtype=int,
        default_value=2000,
        doc="Longest wait for a beam [ms], 100 to 2400. Beams are asked at the same time: one that does not"
        " answer delays a reply by this much, whatever the others do.",
    ),
}

_Members = type(
    "_Members",
    (),
    {**INSTRUMENT_PROPERTIES, **attribute_members(INSTRUMENT_VALUES), **instrument_command_members()},
)
"""Properties, attributes and commands, derived from the product's tables."""


class BaldrInstrument(PublishingDevice, _Members):  # type: ignore[misc, valid-type]
    """All Baldr beams of the instrument: one command, one state, lists of values in beam order."""

    DEVICE_CLASS_DESCRIPTION = "All beams of ASGARD/Baldr as one device"
    DEVICE_CLASS_INITIAL_STATE = DevState.INIT

    _links: Mapping[int, BeamLink] = {}
    _log: logging.Logger = logging.getLogger(f"{logs.ROOT}.instrument")
    _timeout_s: float = 2.0
    _closing: threading.Lock

    def init_device(self) -> None:
        """Build and start everything; never raises: a failure is the state FAULT and its reason."""
        self._failure = ""
        if not hasattr(self, "_closing"):
            self._closing = threading.Lock()
        try:
            super().init_device()
            self._declare()
            self._bridge = logs.attach(self._log, self)
            self._build()
        except Exception as error:
            self._failure = describe(error)
            known = isinstance(error, BaldrError)
            self._log.error("%s: %s", self.get_name(), self._failure, exc_info=not known)
        self._publish(INSTRUMENT_VALUES)

    def _build(self) -> None:
        low, high = TIMEOUT_RANGE_MS
        if not low <= self.TimeoutMs <= high:
            raise ConfigError(f"property TimeoutMs: found {self.TimeoutMs}, expected {low} to {high} ms")
        self._timeout_s = self.TimeoutMs / 1000.0
        devices = beam_devices(self.Beams, self.ConfigFile)
        links = {
            beam: BeamLink(
                beam,
                partial(_connect, beam, device, self.TimeoutMs),
                LISTED,
                self._timeout_s,
                self._wake,
                self._log,
            )
            for beam, device in devices.items()
        }
        self._links = links
        for link in links.values():
            link.start()

    def delete_device(self) -> None:
        """Take everything down in reverse order."""
        while True:
            publisher, self._publisher = self._publisher, None
            links, self._links = self._links, {}
            if publisher is not None:
                publisher.ask_to_stop()
            for link in links.values():
                link.ask_to_stop()
            # The publisher may be waiting for the monitor that this thread holds.
            with AutoTangoAllowThreads(self), self._closing:
                deadline_s = time.monotonic() + STOP_S
                if publisher is not None:
                    publisher.join(STOP_S)
                for link in links.values():
                    link.join(max(0.0, deadline_s - time.monotonic()))
            # Another client's Init may have come in meanwhile.
            if self._publisher is None and not self._links:
                break
        self._detach_log()
        super().delete_device()

    @command(
        dtype_in=CmdArgType.DevString,
        doc_in='JSON: ["command", [beams], argument, ...]; beams empty or 0: all beams',
        dtype_out=CmdArgType.DevString,
        doc_out=REPLY_DOC,
    )
    def for_beams(self, text: str) -> str:
        """Run a command of the beams that takes arguments."""
        try:
            return self._run(parse_request(text, self._numbers("for_beams")))
        except Exception as error:
            raise_failure(error, f"for_beams of {self.get_name()}")

    def run_command(self, entry: Command, beams: Sequence[int]) -> str:
        """Run a command of the beams without arguments, on behalf of the client that is calling."""
        try:
            return self._run(request_of(entry, map(int, beams), self._numbers(entry.name)))
        except Exception as error:
            raise_failure(error, f"{entry.tango_name} of {self.get_name()}")

    def _run(self, request: Request) -> str:
        numbers = ", ".join(map(str, request.beams))
        if not request.entry.waits:
            self._log.info("command %s for beams %s from %s", request.entry.name, numbers, caller(self))
        with AutoTangoAllowThreads(self):
            # Reads and events go on while the beams are waited for.
            outcomes = ask(self._links, request, self._timeout_s)
        reply = compose(request.entry, outcomes)
        if not reply["ok"]:
            self._log.warning("command %s for beams %s: %s", request.entry.name, numbers, reply["content"])
        self._wake()
        return json_text(reply)

    def _numbers(self, name: str) -> tuple[int, ...]:
        if not self._links:
            raise StateError(f"{name}: there are no beams: {self._failure or 'starting'}")
        return tuple(self._links)

    def _reports(self) -> list[Report]:
        return [link.report() for link in self._links.values()]

    def state_and_status(self) -> tuple[DevState, str]:
        """Return the Tango state, and the text that explains it with one line per beam."""
        reports = self._reports()
        if not reports:
            if self._failure:
                return DevState.FAULT, tango_text(f"FAULT: {self._failure}\nInit tries again")
            return DevState.INIT, "INIT: starting"
        rule = rule_for_beams(report.state for report in reports)
        lines = [f"{rule.state}: {rule.meaning}", *map(status_line, reports)]
        return rule.state, tango_text("\n".join(lines))

    def read_values(self, names: Iterable[str]) -> Mapping[str, Any]:
        """Return the values of the named attributes, from the last look at each beam."""
        values = collect(self._reports())
        return {name: values[name] for name in names}


def _connect(beam: int, device: str, timeout_ms: int) -> BeamClient:
    if tango.Util.instance().is_svr_starting():
        raise BackendError("the server is starting")
    return BeamClient(beam, full_name(device), timeout_ms)


def status_line(report: Report) -> str:
    """Return one beam as a line of Status: its state, and the reason or the meaning of it."""
    lines = [line.strip() for line in report.status.splitlines() if line.strip()]
    text = lines[0].removeprefix(f"{report.state}: ") if lines else ""
    needs_reason = report.state in (DevState.FAULT, DevState.ALARM)
    reason = "; ".join(lines[1:]) if needs_reason else ""
    return f"beam {report.beam}: {report.state}: {reason or text}"


def beam_devices(names: Sequence[str], config_file: str) -> dict[int, str]:
    """Return the devices of the beams by number: those of the property Beams, else of the runtime file.

    Raises `ConfigError` when a name does not say which beam it is, or two are the same beam.
    """
    if not names:
        file = runtime_file(config_file)
        config = load_runtime(Path(file))
        return {beam: config.for_beam(beam).tango_device for beam in config.beams}
    found: dict[int, str] = {}
    for name in names:
        match = re.fullmatch(r"(\d+)=(\S+)|(\S*?\D(\d+))(#dbase=no)?", name.strip())
        if match is None:
            raise ConfigError(
                f"property Beams: found {name!r}, expected a device name that ends in the beam's"
                " number, or number=name"
            )
        beam = int(match.group(1) or match.group(4))
        if beam in found:
            raise ConfigError(f"property Beams: found beam {beam} twice: {found[beam]} and {name}")
        found[beam] = match.group(2) or name.strip()
    if len(found) > MOST_BEAMS:
        raise ConfigError(f"property Beams: found {len(found)} beams, expected at most {MOST_BEAMS}")
    return found
