"""The Tango device of the virtual instrument: sky, star, masks, habits of its servers, and the truth."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from tango import AttrQuality, AutoTangoAllowThreads, DevState
from tango.server import attribute, device_property

from baldr_tango.configuration.runtime import load_runtime
from baldr_tango.errors import BaldrError, StateError
from baldr_tango.simulator.instrument import VirtualInstrument
from devices import logs
from devices.attributes import attribute_options, neutral
from devices.failures import describe, raise_failure
from devices.placement import cpus_from_environment
from devices.publishing import PublishingDevice
from devices.runtime_file import runtime_file
from devices.simulator_values import ENTRIES, Entry, Source
from devices.text import tango_text
from legacy_zmq.instrument import ControlServers

_STARTER: Final = "virtual instrument starts"
STARTER_STOP_S: Final = 1.0
"""Longest wait for the start; the compiler cannot be interrupted."""

STOP_S: Final = 4.0
"""Longer than Tango's own limit of 3.2 s for an event that waits for the device."""


def _member(entry: Entry) -> attribute:
    def read(device: Any) -> Any:
        ready = device.read_value(entry.value)
        return (neutral(entry.value), time.time(), AttrQuality.ATTR_INVALID) if ready is None else ready

    options = attribute_options(entry.value)
    if entry.set is None:
        return attribute(fget=read, **options)
    return attribute(fget=read, fset=lambda device, given: device.write_value(entry, given), **options)


_Members = type("_Members", (), {f"_value_{name}": _member(entry) for name, entry in ENTRIES.items()})


class BaldrSimulator(PublishingDevice, _Members):  # type: ignore[misc, valid-type]
    """Virtual instrument of all beams, with its camera server, MDS and DM server."""

    DEVICE_CLASS_DESCRIPTION = "Virtual instrument of ASGARD/Baldr: cameras, mirrors, turbulence and servers"
    DEVICE_CLASS_INITIAL_STATE = DevState.INIT

    ConfigFile = device_property(
        dtype=str,
        default_value="",
        doc="Runtime file. Empty: environment variable BALDR_CONFIG, else the one that ships with the"
        " product.",
    )

    announce: ClassVar[bool] = False
    """Write a line ``ready: ...`` to standard output when frames come, ``fault: ...`` when they do not."""

    _source: Source | None = None
    _stack: ExitStack | None = None
    _starter: threading.Thread | None = None
    _ending: threading.Event = threading.Event()
    """Of the newest starter: set when its work is not wanted any more."""
    _handing_over: ClassVar[threading.Lock] = threading.Lock()
    _log: logging.Logger = logging.getLogger(f"{logs.ROOT}.simulator")

    def init_device(self) -> None:
        """Begin to start everything; a failure is the state FAULT and its reason."""
        super().init_device()
        self._failure = ""
        self._declare()
        self._bridge = logs.attach(self._log, self)
        # It may have to be compiled first: clients see INIT meanwhile.
        self._ending = threading.Event()
        self._starter = threading.Thread(target=self._begin, args=[self._ending], name=_STARTER, daemon=True)
        self._starter.start()
        self._publish([entry.value for entry in ENTRIES.values()])

    def _begin(self, ending: threading.Event) -> None:
        try:
            file = runtime_file(self.ConfigFile)
            state = os.environ.get("BALDR_STATE", "")
            config = load_runtime(Path(file), state=Path(state) if state else None)
            cpus = cpus_from_environment() or config.realtime.cpus
            config = replace(config, realtime=replace(config.realtime, cpus=cpus))
            with ExitStack() as stack:
                instrument = VirtualInstrument(config)
                instrument.compile()
                if ending.is_set():
                    return
                stack.enter_context(instrument)
                servers = stack.enter_context(ControlServers.of(instrument, config))
                with self._handing_over:
                    if ending.is_set():
                        return
                    self._stack = stack.pop_all()
                    self._source = Source(instrument, servers.stages)
            beams = ",".join(map(str, config.beams))
            text = f"beams {beams} at {instrument.rate_hz:g} Hz, {servers.places()}"
            self._log.info("virtual instrument: %s", text)
            self._announce(f"ready: {text}")
        except Exception as error:
            self._failure = describe(error)
            self._log.error("%s", self._failure, exc_info=not isinstance(error, BaldrError))
            self._announce(f"fault: {self._failure}")

    @staticmethod
    def is_starting() -> bool:
        """Tell whether a thread of this process still compiles for a device."""
        return any(thread.name == _STARTER for thread in threading.enumerate())

    def _announce(self, text: str) -> None:
        if self.announce:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def delete_device(self) -> None:
        """Take everything down in reverse order."""
        publisher, self._publisher = self._publisher, None
        starter, self._starter = self._starter, None
        if publisher is not None:
            publisher.ask_to_stop()
        # The publisher may be waiting for the monitor that this thread holds.
        with AutoTangoAllowThreads(self):
            if publisher is not None:
                publisher.join(STOP_S)
            self._ending.set()
            if starter is not None:
                # The compiler cannot be interrupted; what it was needed for is not begun any more.
                starter.join(STARTER_STOP_S)
            with self._handing_over:
                self._source = None
                stack, self._stack = self._stack, None
            if stack is not None:
                stack.close()
        self._detach_log()
        super().delete_device()

    def state_and_status(self) -> tuple[DevState, str]:
        """Return the Tango state at this moment and the text that explains it."""
        source = self._source
        if self._failure:
            return DevState.FAULT, tango_text(f"FAULT: {self._failure}\nInit tries again")
        if source is None:
            return DevState.INIT, "INIT: starting; compiling, the first time"
        if not source.instrument.is_running:
            return DevState.FAULT, "FAULT: the thread of the virtual instrument has ended; Init tries again"
        if source.instrument.silent:
            return DevState.STANDBY, "STANDBY: no frames; the mirrors are served"
        return DevState.RUNNING, f"RUNNING: frames at {source.instrument.rate_hz:g} Hz"

    def read_values(self, names: Iterable[str]) -> Mapping[str, Any]:
        """Return the current values of the named ones; None for those that there are not."""
        source = self._source
        return {name: None if source is None else ENTRIES[name].get(source) for name in names}

    def write_value(self, entry: Entry, given: Any) -> None:
        """Set one value, on behalf of a client."""
        try:
            source = self._source
            if source is None or entry.set is None:
                raise StateError(f"{entry.value.name}: there is no instrument: {self._failure or 'starting'}")
            entry.set(source, given)
            self._log.info("%s = %s", entry.value.name, given)
        except Exception as error:
            raise_failure(error, f"{entry.value.name} of {self.get_name()}")
        finally:
            publisher = self._publisher
            if publisher is not None:
                publisher.wake()
