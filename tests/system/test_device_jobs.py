"""Long commands over Tango: they return at once, are followed by events, and can be cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import tango
from tango import DevFailed, DevState

from tests.system.device_bench import DeviceBench, Events, wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceBench]:
    with DeviceBench(tmp_path_factory.mktemp("jobs"), endpoints={"timeout_s": 0.3}) as started:
        yield started


def test_a_long_command_returns_at_once_and_is_followed_by_events(bench: DeviceBench) -> None:
    device = bench.connect()
    wait_for(lambda: device.state() in (DevState.STANDBY, DevState.ON, DevState.RUNNING), "a running beam")
    device.set_timeout_millis(3000)
    # The light goes out only in words here: what counts is that the sequence waits a minute.
    bench.mds_peer.answers.update({b"off SBB": b"ACK\n", b"on SBB": b"ACK\n"})
    with Events(device, "job_state", kinds=(tango.EventType.CHANGE_EVENT,)) as events:
        reply = json.loads(device.acquire_dark('{"settle_s": 60}'))
        assert reply == {"job": "acquire_dark", "ok": True, "pending": True}
        events.wait("job_state", lambda state: state == "running")
        with pytest.raises(DevFailed, match="still running"):
            device.acquire_dark("")
        assert json.loads(device.job_status())["state"] == "running"
        wait_for(lambda: device.frames > 100, "frames")
        assert json.loads(device.dark_update("20"))["frames"] == 20
        assert json.loads(device.job_cancel())["state"] == "cancelled"
        events.wait("job_state", lambda state: state == "cancelled")
    assert device.job_name == "acquire_dark"
