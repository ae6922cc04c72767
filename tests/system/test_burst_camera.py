"""`configure_burst` against the camera server of the virtual instrument."""

from __future__ import annotations

import pytest

from baldr_tango.kernels import loop_data as d
from baldr_tango.peers import CameraClient
from legacy_zmq.instrument import ControlServers
from tests.mirror_bench import MirrorBench, mirror_problem
from tests.system.zmq_servers import TIMEOUT_S
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system


def test_the_loop_follows_the_read_out_that_the_camera_reports(monkeypatch):
    instrument = RecordedInstrument()
    instrument.rate_hz = 1739.356
    with (
        ControlServers(instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0") as servers,
        CameraClient(servers.camera.endpoint, TIMEOUT_S) as camera,
        MirrorBench(mirror_problem()) as bench,
    ):
        monkeypatch.setattr(bench.beam, "camera_client", lambda: camera)
        found = bench.ask("configure_burst")
        assert (found["reads"], found["burst"], found["camera_mode"]) == (1, False, "globalresetcds")
        camera.cli("set mode globalresetbursts")
        camera.cli("set nbreadworeset 12")
        found = bench.ask("configure_burst")
        assert (found["reads"], found["burst"], found["frequency"]) == (12, True, 1739.356)
        assert bench.loop.slots.switch(d.BURST) == 12
