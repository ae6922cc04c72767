"""The publisher: what it pushes when, against a device that only writes down what is pushed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from tango import AttrQuality, DevState, Except

from baldr_tango.interface import VALUES
from devices.attributes import neutral
from devices.publisher import Publisher, same

BOUND_S = 20.0


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline, "not seen in time"
        threading.Event().wait(0.005)


class Notebook:
    """Stands for a Tango device with subscribers of some attributes."""

    def __init__(self, *wanted: str) -> None:
        self.wanted = set(wanted)
        self.pushed: list[tuple[str, str, tuple[Any, ...]]] = []
        self.state = DevState.UNKNOWN
        self.status = ""
        self.refuses = False
        self.values: dict[str, Any] = {value.name: neutral(value) for value in VALUES}
        self.reads: list[list[str]] = []
        self.shown = (DevState.STANDBY, "all well")

    def get_name(self) -> str:
        return "test/baldr/1"

    def get_device_attr(self) -> Notebook:
        return self

    def get_attr_by_name(self, name: str) -> Any:
        notebook = self

        class Attribute:
            def change_event_subscribed(self) -> bool:
                return name in notebook.wanted

            archive_event_subscribed = alarm_event_subscribed = change_event_subscribed

        return Attribute()

    def set_state(self, state: DevState) -> None:
        self.state = state

    def set_status(self, status: str) -> None:
        self.status = status

    def read(self, names: Iterable[str]) -> dict[str, Any]:
        self.reads.append(list(names))
        return {name: self.values[name] for name in names}

    def _push(self, kind: str, name: str, arguments: tuple[Any, ...]) -> None:
        if self.refuses:
            Except.throw_exception("API_CommandTimedOut", "not able to acquire serialization monitor", "test")
        value = {"State": (self.state,), "Status": (self.status,)}.get(name, arguments)
        self.pushed.append((kind, name, value))

    def push_change_event(self, name: str, *arguments: Any) -> None:
        self._push("change", name, arguments)

    def push_alarm_event(self, name: str, *arguments: Any) -> None:
        self._push("alarm", name, arguments)

    def push_archive_event(self, name: str, *arguments: Any) -> None:
        self._push("archive", name, arguments)

    def of(self, name: str, kind: str = "change") -> list[Any]:
        return [value[0] for k, n, value in list(self.pushed) if (k, n) == (kind, name)]


@pytest.fixture
def start() -> Iterator[Callable[[Notebook], Publisher]]:
    started: list[Publisher] = []

    def begin(device: Notebook) -> Publisher:
        publisher = Publisher(device, device.read, lambda: device.shown, logging.getLogger("baldr.test"))
        publisher.start()
        started.append(publisher)
        return publisher

    yield begin
    for publisher in started:
        publisher.ask_to_stop()
        assert publisher.join(BOUND_S)


def test_state_and_status_go_out_at_once_and_then_only_when_they_change(start: Any) -> None:
    device = Notebook()
    publisher = start(device)
    wait_for(lambda: device.of("Status", "archive"))
    device.shown = (DevState.RUNNING, "closed")
    publisher.wake()
    wait_for(lambda: len(device.of("Status", "archive")) > 1)
    for kind in ("change", "alarm", "archive"):
        assert device.of("State", kind) == [DevState.STANDBY, DevState.RUNNING]
        assert device.of("Status", kind) == ["all well", "closed"]


def test_a_status_that_only_counts_does_not_go_out_every_time(start: Any) -> None:
    device = Notebook()
    publisher = start(device)
    wait_for(lambda: device.of("Status"))
    texts = [f"no frame for {tenths / 10} s" for tenths in range(3, 9)]
    begin = time.monotonic()
    for text in texts:
        rounds = len(device.reads)
        device.shown = (DevState.ALARM, text)
        device.wanted = {"frames"}
        publisher.wake()
        wait_for(lambda rounds=rounds: len(device.reads) > rounds)
    elapsed = time.monotonic() - begin
    assert device.of("Status")[1] == texts[0], "the alarm itself is told at once"
    assert len(device.of("Status")) <= 2 + elapsed


def test_what_nobody_wants_is_not_even_read(start: Any) -> None:
    device = Notebook("frames")
    start(device)
    wait_for(lambda: len(device.reads) > 3)
    assert {name for names in device.reads for name in names} == {"frames"}


def test_a_value_goes_out_when_it_changes_and_to_every_kind(start: Any) -> None:
    device = Notebook("frames", "mode", "e_LO")
    device.values.update(frames=5, mode="bright", e_LO=np.array([1.0, 2.0]))
    publisher = start(device)
    wait_for(lambda: device.of("e_LO", "archive"))
    rounds = len(device.reads)
    wait_for(lambda: len(device.reads) > rounds + 3)
    assert device.of("frames") == [5]
    assert device.of("mode") == ["bright"]
    device.values["frames"] = 6
    publisher.wake()
    wait_for(lambda: device.of("frames", "archive") == [5, 6])
    assert device.of("frames", "alarm") == [5, 6]
    assert len(device.of("e_LO")) == 1


def test_a_value_is_published_again_when_a_client_has_read_another_one(start: Any) -> None:
    device = Notebook("TT_state")
    publisher = start(device)
    wait_for(lambda: device.of("TT_state"))
    # A subscriber began with 1; the loop was open before and is open again at the publisher's next look.
    publisher.notice_read("TT_state", 1)
    wait_for(lambda: len(device.of("TT_state")) == 2)
    publisher.notice_read("TT_state", device.of("TT_state")[-1])
    rounds = len(device.reads)
    wait_for(lambda: len(device.reads) > rounds + 3)
    assert len(device.of("TT_state")) == 2


def test_spectra_are_archived_seldom_and_a_missing_value_is_invalid(start: Any) -> None:
    device = Notebook("e_HO", "frame")
    device.values["e_HO"] = np.array([0.0])
    start(device)
    for number in range(1, 5):
        wait_for(lambda number=number: len(device.of("e_HO")) >= number)
        device.values["e_HO"] = np.array([float(number)])
    assert len(device.of("e_HO", "archive")) == 1
    wait_for(lambda: device.of("frame"))
    missing = next(value for kind, name, value in device.pushed if (kind, name) == ("change", "frame"))
    assert missing[2] == AttrQuality.ATTR_INVALID


def test_refused_events_are_counted_and_the_next_ones_go_out(start: Any) -> None:
    device = Notebook("frames")
    device.refuses = True
    publisher = start(device)
    wait_for(lambda: publisher.dropped >= 3)
    device.refuses = False
    device.values["frames"] = 9
    wait_for(lambda: device.of("frames") == [9])


def test_an_error_in_reading_does_not_end_the_thread(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    device = Notebook("frames")
    device.values.pop("frames")
    publisher = start(device)
    wait_for(lambda: "publishing failed" in caplog.text)
    device.values["frames"] = 1
    publisher.wake()
    wait_for(lambda: device.of("frames") == [1])


def test_nan_equals_nan_but_one_is_not_true() -> None:
    nan = float("nan")
    assert same(nan, nan)
    assert not same(nan, 0.0)
    assert not same(1, True)
    assert same(np.array([nan, 1.0]), np.array([nan, 1.0]))
    assert not same(np.zeros(2), np.zeros(3))
    assert not same(None, np.zeros(3))
