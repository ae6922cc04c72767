"""The Tango device of one beam: life cycle and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from tango import AutoTangoAllowThreads, DevState

from baldr_tango.commands import COMMANDS
from baldr_tango.errors import BaldrError, StateError
from baldr_tango.interface import VALUES, Command
from devices import logs
from devices.attributes import attribute_members, neutral
from devices.callers import caller
from devices.commands import arguments_of, command_members
from devices.failures import describe, raise_failure
from devices.properties import beam_number, beam_settings, property_members
from devices.publishing import PublishingDevice
from devices.service import BeamService
from devices.states import rule_for
from devices.text import tango_text

_PROPERTIES: Final = property_members()
_Members = type("_Members", (), {**_PROPERTIES, **attribute_members(), **command_members(COMMANDS)})
"""Properties, attributes and commands, all derived from the product's tables."""

PUBLISHER_STOP_S: Final = 4.0
"""Longer than Tango's own limit of 3.2 s for an event that waits for the device."""


class BaldrBeam(PublishingDevice, _Members):  # type: ignore[misc, valid-type]
    """One Baldr beam: Zernike wavefront sensor, real-time controller and deformable mirror."""

    DEVICE_CLASS_DESCRIPTION = "Real-time adaptive-optics controller of one beam of ASGARD/Baldr"
    DEVICE_CLASS_INITIAL_STATE = DevState.INIT

    _at_work: ClassVar[set[str]] = set()
    """Devices of this process whose beam was not ended by the command ``exit``."""

    _service: BeamService | None = None
    _closing: threading.Lock

    def init_device(self) -> None:
        """Build and start everything; never raises: a failure is the state FAULT and its reason."""
        self._failure = ""
        if not hasattr(self, "_closing"):
            self._closing = threading.Lock()
        self._at_work.add(self.get_name())
        try:
            super().init_device()
            self._declare()
            self._attach_log()
            self._build()
        except Exception as error:
            self._failure = describe(error)
            self._log.error(
                "%s: %s", self.get_name(), self._failure, exc_info=not isinstance(error, BaldrError)
            )
        self._publish(VALUES)

    def _attach_log(self) -> None:
        number = beam_number(self.get_name(), self.Beam)
        self._log = logging.getLogger(f"{logs.ROOT}.beam{number}")
        self._bridge = logs.attach(self._log, self)

    def _build(self) -> None:
        properties = {name: getattr(self, name) for name in _PROPERTIES}
        settings = beam_settings(self.get_name(), properties)
        service = BeamService(settings, on_change=self._wake, on_exit=self._leave)
        service.start()
        self._service = service

    def delete_device(self) -> None:
        """Take everything down in reverse order."""
        while True:
            publisher, self._publisher = self._publisher, None
            service, self._service = self._service, None
            if publisher is not None:
                publisher.ask_to_stop()
            # The publisher may be waiting for the monitor that this thread holds.
            with AutoTangoAllowThreads(self), self._closing:
                if publisher is not None:
                    publisher.join(PUBLISHER_STOP_S)
                if service is not None:
                    service.close()
            # Another client's Init may have come in meanwhile.
            if self._publisher is None and self._service is None:
                break
        self._detach_log()
        self._at_work.discard(self.get_name())
        super().delete_device()

    def state_and_status(self) -> tuple[DevState, str]:
        """Return the Tango state that the beam is in at this moment, and the text that explains it."""
        service = self._service
        if service is None:
            if self._failure:
                return DevState.FAULT, tango_text(f"FAULT: {self._failure}\nInit tries again")
            return DevState.INIT, "INIT: starting"
        state = service.beam.state()
        rule = rule_for(state.rtc, alarm=bool(state.alarm), closed=bool(state.lo or state.ho))
        return rule.state, tango_text(f"{rule.state}: {rule.meaning}\n{state.message}")

    def read_values(self, names: Iterable[str]) -> Mapping[str, Any]:
        """Return the current values of the named ones; zero or empty while there is no beam."""
        service = self._service
        if service is not None:
            return service.beam.read(names)
        absent = {value.name: neutral(value) for value in VALUES}
        return {**{name: absent[name] for name in names}, "fault_reason": self._failure}

    def run_command(self, entry: Command, given: Any) -> Any:
        """Run a command through the one door, on behalf of the client that is calling."""
        source = caller(self)
        try:
            service = self._service
            if service is None:
                raise StateError(f"{entry.name}: there is no beam: {self._failure or 'starting'}")
            arguments = arguments_of(entry, given)
            with AutoTangoAllowThreads(self):
                # Reads and events go on while a command waits for a peer or for another command.
                return service.execute(entry.name, arguments, source)
        except Exception as error:
            raise_failure(error, f"{entry.tango_name} of {self.get_name()}")
        finally:
            self._wake()

    def _leave(self) -> None:
        """End this beam after ``exit``, in the beam's thread for that; the process ends with its last one."""
        service = self._service
        if service is not None:
            service.close()
        self._wake()
        self._at_work.discard(self.get_name())
        if not self._at_work:
            self._log.info("no beam is left: the server ends")
            os.kill(os.getpid(), signal.SIGTERM)
