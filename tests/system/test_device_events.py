"""What subscribers receive is what the beam has: all kinds of events of an attribute at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from tango import AttrQuality, EventType

from baldr_tango.interface import VALUES
from tests.system.device_bench import EVENT_KINDS, DeviceBench, Events, wait_for
from tests.unit.configuration_problem import PIXELS, SIDE

pytestmark = pytest.mark.system

UPPER = 0.38
"""Bound of the controller outputs, above the warning limit of dm_peak (0.35)."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    tables = {
        "limits": {"command": 0.9, "ho_mode": 1.0, "lo_command": 1.0},
        "control_ho": {"ki": 0.3, "upper": UPPER, "lower": -UPPER},
    }
    with DeviceBench(tmp_path_factory.mktemp("events"), **tables) as started:
        yield started


@pytest.fixture(autouse=True)
def open_loops(bench: DeviceBench) -> None:
    bench.camera.frame = bench.quiet_frame()
    bench.camera.resume()
    device = bench.connect()
    wait_for(lambda: str(device.state()) in ("STANDBY", "RUNNING"), "a running beam")
    device.open_all()


def test_every_attribute_takes_every_subscription_without_polling(bench: DeviceBench) -> None:
    device = bench.connect()
    names = [value.name for value in VALUES] + ["State", "Status"]
    assert sorted(names) == sorted(device.get_attribute_list())
    with Events(device, *names) as events:
        assert events.errors() == []
        for name in names:
            assert not device.is_attribute_polled(name)
            for kind in EVENT_KINDS:
                assert len(events.of(name, kind)) >= 1, f"{kind} of {name}: no first event"


@pytest.mark.parametrize("kind", EVENT_KINDS, ids=str)
def test_spectra_and_images_arrive_unchanged_beside_the_other_kinds(
    bench: DeviceBench, kind: EventType
) -> None:
    device = bench.connect()
    rng = np.random.default_rng(4)
    # A pattern that no other frame has, in light so faint that the loops' signal stays small.
    picture = (bench.quiet_frame() + rng.integers(0, 100, (SIDE, SIDE))).astype(np.int32)
    with Events(device, "frame", "signal", "dm_command", "frames") as events:
        bench.camera.frame = picture
        events.wait("frame", lambda image: image is not None and np.array_equal(image, picture))
        bench.camera.silence()
        if kind == EventType.CHANGE_EVENT:
            wait_for(
                lambda: np.array_equal(events.of("signal")[-1].value, device.signal), "the newest signal"
            )
            assert events.of("signal")[-1].value.any()
        for name in ("frame", "signal", "dm_command"):
            for entry in events.of(name, kind):
                assert np.isfinite(entry.value).all()
                assert np.abs(entry.value).max() < 1e6, f"{kind} of {name} is not what was published"
        for entry in events.of("frame", kind):
            assert entry.value.shape == (SIDE, SIDE)
            assert entry.value.min() >= 0
        assert events.errors() == []


def test_the_mirror_map_in_an_event_is_the_one_in_the_channel(bench: DeviceBench) -> None:
    device = bench.connect()
    bench.camera.frame = bench.bumpy_frame()
    with Events(device, "dm_command", "dm_map") as events:
        device.close_baldr_HO()
        wait_for(lambda: abs(bench.channel.read()[0]).max() > UPPER - 1e-6, "a mirror at its bound")
        bench.camera.silence()
        expected = bench.channel.read()[0]
        events.wait("dm_command", lambda sent: np.allclose(sent, expected.ravel(), atol=1e-6))
        events.wait("dm_map", lambda sent: sent is not None and np.allclose(sent, expected, atol=1e-6))


def test_change_archive_and_alarm_subscribers_of_one_number_all_get_its_values(bench: DeviceBench) -> None:
    device = bench.connect()
    bench.camera.frame = bench.bumpy_frame()
    with Events(device, "dm_peak", "frames", "lost_frames") as events:
        first = device.frames
        device.close_baldr_HO()
        # The output of an integrator with a bound ends there: 0.38 is beyond the warning limit of 0.35.
        for kind in EVENT_KINDS:
            events.wait("dm_peak", lambda peak: peak == pytest.approx(UPPER), kind)
            warned = [entry for entry in events.of("dm_peak", kind) if entry.value > 0.35]
            assert {entry.quality for entry in warned} == {AttrQuality.ATTR_WARNING}
            assert all(0 <= entry.value <= UPPER + 1e-6 for entry in events.of("dm_peak", kind))
        # Alarm subscribers hear of changes of quality, not of every value.
        assert len(events.of("dm_peak", EventType.ALARM_EVENT)) <= 4
        wait_for(lambda: len(events.of("frames")) > 5, "several events of the frame counter")
        counted = [entry.value for entry in events.of("frames")]
        assert counted == sorted(counted)
        assert first - 200 <= counted[0]
        assert counted[-1] <= device.frames
        assert {entry.value for entry in events.of("lost_frames")} <= set(range(device.lost_frames + 1))
        device.open_all()
        events.wait("dm_peak", lambda peak: peak == 0.0, EventType.ALARM_EVENT)


def test_archive_events_of_numbers_keep_to_the_limit_that_a_site_can_change(bench: DeviceBench) -> None:
    device = bench.connect()
    with Events(device, "frames") as events:
        start = device.frames
        wait_for(lambda: device.frames > start + 300, "300 frames")
        archived = [entry.value for entry in events.of("frames", EventType.ARCHIVE_EVENT)]
        assert len(events.of("frames")) > len(archived)
        # The first two are the answer to the subscription and the first publication.
        assert all(later - sooner >= 1000 for sooner, later in pairwise(archived[1:]))
        config = device.get_attribute_config("frames")
        assert config.events.arch_event.archive_abs_change == "1000"
        config.events.arch_event.archive_abs_change = "40"
        device.set_attribute_config(config)
        seen = len(archived)
        wait_for(lambda: len(events.of("frames", EventType.ARCHIVE_EVENT)) > seen + 3, "archive events")


def test_enumerations_booleans_and_texts_arrive_as_numbers_truths_and_texts(bench: DeviceBench) -> None:
    device = bench.connect()
    with Events(device, "TT_state", "HO_state", "telemetry_on", "config_file", "telemetry_file") as events:
        device.close_all()
        for kind in (EventType.CHANGE_EVENT, EventType.ARCHIVE_EVENT):
            assert events.wait("TT_state", lambda state: state == 1, kind) == 1
            events.wait("HO_state", lambda state: state == 1, kind)
        device.telem_on()
        for kind in (EventType.CHANGE_EVENT, EventType.ARCHIVE_EVENT):
            assert events.wait("telemetry_on", lambda on: on, kind) is True
            assert events.wait("telemetry_file", bool, kind).endswith(".h5")
        device.telem_off()
        events.wait("telemetry_on", lambda on: on is False)
        for kind in EVENT_KINDS:
            assert {entry.value for entry in events.of("config_file", kind)} == {str(bench.calibration_file)}
        assert events.errors() == []


def test_nothing_is_published_of_what_nobody_wants(bench: DeviceBench) -> None:
    device = bench.connect()
    with Events(device, "frames", kinds=(EventType.CHANGE_EVENT,)) as events:
        wait_for(lambda: len(events.of("frames")) > 3, "events")
        assert events.errors() == []
    assert device.frame.size == PIXELS, "an attribute without subscribers is read when it is asked for"
