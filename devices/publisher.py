"""Events: one thread per device tells subscribers what has changed.

Pushing an event needs the device's monitor, so only this thread does it: never the real-time loop,
never a command. Nothing is read for values that nobody has subscribed to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from tango import AttrQuality, DevFailed, DevState
from tango.utils import PyTangoThread

from baldr_tango.interface import VALUES, Value
from baldr_tango.thread_names import show_thread_name
from devices.attributes import filters_archive, neutral, on_the_wire

SCALAR_PERIOD_S: Final = 0.1
SPECTRUM_PERIOD_S: Final = 0.25
IMAGE_PERIOD_S: Final = 0.5
REFRESH_PERIOD_S: Final = 10.0
"""A value that does not change is published this often all the same: its time shows that the beam lives."""

ARCHIVE_PERIOD_S: Final = 10.0
"""Spectra and images are archived at most this often."""

COUNTING_PERIOD_S: Final = 1.0
"""A status text of which only numbers differ is published this often."""

REPORT_PERIOD_S: Final = 10.0


@dataclass
class _Topic:
    """One attribute and what was last published of it."""

    value: Value
    period_s: float
    due_s: float = 0.0
    pushed_s: float = 0.0
    archived_s: float = -ARCHIVE_PERIOD_S
    attribute: Any = None
    """Tango's attribute of that name, once it was looked up."""
    last: Any = field(default_factory=object)
    last_archived: Any = field(default_factory=object)


def _period(value: Value) -> float:
    if value.slow:
        return IMAGE_PERIOD_S
    return SCALAR_PERIOD_S if value.shape == "scalar" else SPECTRUM_PERIOD_S


def same(one: Any, other: Any) -> bool:
    """Compare two published values; NaN equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _essence(shown: tuple[DevState, str]) -> tuple[DevState, str]:
    return shown[0], "".join(character for character in shown[1] if not character.isdigit())


class Publisher:
    """Publishes the values and the state of one device until it is stopped.

    Parameters
    ----------
    device : the Tango device.
    read : returns the current values of the named ones; cheap.
    state : returns Tango state and status text; cheap.
    log : where dropped events are reported.
    values : what is published.
    """

    def __init__(
        self,
        device: Any,
        read: Callable[[Iterable[str]], Mapping[str, Any]],
        state: Callable[[], tuple[DevState, str]],
        log: logging.Logger,
        values: Iterable[Value] = VALUES,
    ) -> None:
        self._device = device
        self._read = read
        self._state = state
        self._log = log
        self._topics = [_Topic(value, _period(value)) for value in values]
        self._topic_by_name = {topic.value.name: topic for topic in self._topics}
        self._shown: tuple[DevState, str] | None = None
        self._shown_s = 0.0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._reported_s = time.monotonic()
        self._reported = 0
        self.dropped = 0
        """Events that Tango refused."""
        self._thread = PyTangoThread(target=self._run, name=f"publisher {device.get_name()}", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def wake(self) -> None:
        """Publish at once what has changed, from any thread, without waiting."""
        self._wake.set()

    def notice_read(self, name: str, value: Any) -> None:
        """Take note of a value that a client has read, on the wire.

        A new subscriber starts from such a value. When it differs from the last one published, the next
        one is published even if it is the same again: the subscriber has not seen that.
        """
        topic = self._topic_by_name[name]
        if not same(value, topic.last):
            topic.last = object()

    def notice_state_read(self, shown: tuple[DevState, str]) -> None:
        """Take note of state and status that a client has read; see `notice_read`."""
        if shown != self._shown:
            self._shown = None

    def ask_to_stop(self) -> None:
        """Make the thread end after the event it is pushing."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread; the caller must not hold the device's monitor."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        show_thread_name()
        while not self._stop.is_set():
            self._wake.wait(SCALAR_PERIOD_S)
            woken = self._wake.is_set()
            self._wake.clear()
            try:
                self._publish_state()
                self._publish_values(time.monotonic(), woken)
            except Exception:
                self._log.exception("publishing failed")
                self._stop.wait(1.0)
            self._report()

    def _publish_state(self) -> None:
        shown, before, now_s = self._state(), self._shown, time.monotonic()
        # Numbers in the text, such as the age of an alarm, count on all the time.
        is_old = shown == before or now_s - self._shown_s < COUNTING_PERIOD_S
        if before is not None and _essence(shown) == _essence(before) and is_old:
            return
        self._shown, self._shown_s = shown, now_s
        self._device.set_state(shown[0])
        self._device.set_status(shown[1])
        if before is None or shown[0] != before[0]:
            self._push_kinds("State", ())
        self._push_kinds("Status", ())

    def _publish_values(self, now_s: float, woken: bool) -> None:
        due = [topic for topic in self._topics if now_s >= topic.due_s or (woken and not topic.value.slow)]
        wanted = [topic for topic in due if self._is_wanted(topic)]
        for topic in due:
            topic.due_s = now_s + 0.9 * topic.period_s
        if not wanted:
            return
        values = self._read([topic.value.name for topic in wanted])
        for topic in wanted:
            if self._stop.is_set():
                return
            self._publish(topic, on_the_wire(topic.value, values[topic.value.name]), now_s)

    def _is_wanted(self, topic: _Topic) -> bool:
        # Kept, because each call of Tango hands the interpreter over to threads that answer clients.
        attribute = topic.attribute
        if attribute is None:
            attribute = self._device.get_device_attr().get_attr_by_name(topic.value.name)
            topic.attribute = attribute
        return bool(
            attribute.change_event_subscribed()
            or attribute.archive_event_subscribed()
            or attribute.alarm_event_subscribed()
        )

    def _publish(self, topic: _Topic, value: Any, now_s: float) -> None:
        if same(value, topic.last) and now_s - topic.pushed_s < REFRESH_PERIOD_S:
            return
        topic.last, topic.pushed_s = value, now_s
        archive = self._is_worth_archiving(topic, value, now_s)
        if archive:
            topic.last_archived, topic.archived_s = value, now_s
        arguments: tuple[Any, ...] = (value,)
        if value is None:
            arguments = (neutral(topic.value), time.time(), AttrQuality.ATTR_INVALID)
        self._push_kinds(topic.value.name, arguments, archive)

    def _is_worth_archiving(self, topic: _Topic, value: Any, now_s: float) -> bool:
        if filters_archive(topic.value):
            return True
        if same(value, topic.last_archived):
            return False
        return topic.value.shape == "scalar" or now_s - topic.archived_s >= ARCHIVE_PERIOD_S

    def _push_kinds(self, name: str, arguments: tuple[Any, ...], archive: bool = True) -> None:
        kinds = [self._device.push_change_event, self._device.push_alarm_event]
        if archive:
            kinds.append(self._device.push_archive_event)
        for push in kinds:
            try:
                push(name, *arguments)
            except DevFailed as error:
                self.dropped += 1
                self._log.debug("event of %s dropped: %s", name, error.args[0].desc)

    def _report(self) -> None:
        now_s = time.monotonic()
        if self.dropped > self._reported and now_s - self._reported_s >= REPORT_PERIOD_S:
            self._log.warning("%d events dropped: the device was busy", self.dropped - self._reported)
            self._reported, self._reported_s = self.dropped, now_s
