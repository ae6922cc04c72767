"""What all our Tango devices share: values and state that clients read and a publisher thread pushes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tango import DevState
from tango.server import Device

from baldr_tango import __version__
from baldr_tango.interface import Value
from devices import logs
from devices.attributes import on_the_wire
from devices.publisher import Publisher


class PublishingDevice(Device):
    """A device with a publisher; a subclass says what there is to read.

    What a client has read counts as published: Tango compares with it before it sends the next event.
    """

    _publisher: Publisher | None = None
    _bridge: logs.TangoStream | None = None
    _log: logging.Logger = logging.getLogger(logs.ROOT)
    _failure: str = ""
    """Why the device could not be started, or empty."""

    def state_and_status(self) -> tuple[DevState, str]:
        """Return the Tango state at this moment, and the text that explains it."""
        raise NotImplementedError

    def read_values(self, names: Iterable[str]) -> Mapping[str, Any]:
        """Return the current values of the named attributes; None for one that does not exist now."""
        raise NotImplementedError

    def read_value(self, value: Value) -> Any:
        """Return the current value of one attribute, for a client."""
        ready = on_the_wire(value, self.read_values([value.name])[value.name])
        publisher = self._publisher
        if publisher is not None:
            publisher.notice_read(value.name, ready)
        return ready

    def always_executed_hook(self) -> None:
        """Do nothing before a request; Tango's own empty hook would hand the interpreter over for it."""

    def read_attr_hardware(self, attributes: list[int]) -> None:
        """Do nothing before attributes are read; see `always_executed_hook`."""

    def dev_state(self) -> DevState:
        """Answer a client: the state is never older than the question."""
        return self._answer_client()[0]

    def dev_status(self) -> str:
        """Answer a client: the text that belongs to the state."""
        return self._answer_client()[1]

    def _answer_client(self) -> tuple[DevState, str]:
        shown = self.state_and_status()
        publisher = self._publisher
        if publisher is not None:
            publisher.notice_state_read(shown)
        return shown

    def _declare(self) -> None:
        """Tell Tango that the state has events and which version this is."""
        for name in ("State", "Status"):
            self.set_change_event(name, True, False)
            self.set_archive_event(name, True, False)
            self.set_alarm_event(name, True, False)
        self.add_version_info("BaldrTango.Version", __version__)

    def _publish(self, values: Iterable[Value]) -> None:
        """Start the publisher of these values."""
        self._publisher = Publisher(self, self.read_values, self.state_and_status, self._log, values)
        self._publisher.start()

    def _wake(self) -> None:
        """Have the publisher look at once."""
        publisher = self._publisher
        if publisher is not None:
            publisher.wake()

    def _detach_log(self) -> None:
        if self._bridge is not None:
            logs.detach(self._log, self._bridge)
            self._bridge = None
