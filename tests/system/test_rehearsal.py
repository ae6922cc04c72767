"""Dark, N0 and I0 taken with the product's own commands, lamp and mask moved through the virtual servers."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.beam.references import MASK_SETTLE_S
from baldr_tango.errors import StateError
from baldr_tango.peers import MdsClient
from legacy_zmq.instrument import ControlServers
from tests.harness import wait_for
from tests.system.zmq_servers import TIMEOUT_S
from tests.virtual_beam import VirtualBeam

pytestmark = pytest.mark.system

FRAMES = 200


@pytest.fixture
def bench(tmp_path):
    # A pedestal that the calibration does not know: the dark has to be taken.
    with VirtualBeam(tmp_path, pedestal_adu=1100.0, flux_adu=4e6) as found:
        yield found


def in_force(bench, name):
    """Return an array that the loop works with."""
    return np.asarray(bench.ask("get_rtc_field", name)["value"], dtype=float).ravel()


def test_dark_clear_pupil_and_reference_are_what_the_instrument_shows(bench):
    with ControlServers(
        bench.instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0", speed_um_s=2000.0
    ) as servers:
        mds = lambda text: servers.mds_model.answer(text.encode()).decode()  # noqa: E731
        assert mds("off SBB") == "ACK\n"
        bench.wait_frames(FRAMES + 20)
        bench.ask("dark_update", FRAMES)
        assert in_force(bench, "reduction.dark").mean() == pytest.approx(1100.0, abs=0.5)
        assert mds("on SBB") == "ACK\n"
        assert mds("moverel BMX1 200.0") == "ACK\n"
        wait_for(lambda: not bench.instrument.mask_in(1) and mds("state BMX1") == "READY\n")
        bench.wait_frames(FRAMES + 20)
        bench.ask("N0_update", FRAMES)
        mds("fpm_movetomask phasemask1 H3")
        wait_for(lambda: bench.instrument.mask_in(1) and mds("state BMX1") == "READY\n")
        bench.wait_frames(FRAMES + 20)
        bench.ask("I0_update", FRAMES)
        # Nothing disturbs: with all three taken anew, the signal of a frame is noise about zero.
        bench.wait_frames(FRAMES)
        signals = bench.loop.arrays.ring.newest("signal")
        assert np.abs(signals).max() < 0.05
        mds("moverel BMX1 200.0")
        wait_for(lambda: not bench.instrument.mask_in(1))
        bench.wait_frames(20)
        assert np.abs(bench.loop.arrays.ring.newest("signal")).max() > 0.2


def test_frames_from_before_the_mask_stood_are_not_in_the_clear_pupil(tmp_path):
    # Slow frames: those that may be used are fewer than those that the telemetry keeps.
    with (
        VirtualBeam(tmp_path, rate_hz=200.0, flux_adu=4e6, electrons_per_adu=1e4) as bench,
        ControlServers(
            bench.instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0", speed_um_s=2000.0
        ) as servers,
        MdsClient(servers.mds.endpoint, TIMEOUT_S) as mds,
    ):
        mask = bench.beam.mask
        mask.stop()
        mask.start(mds)
        wait_for(lambda: mask.state.x_um is not None and not mask.may_move, what="a known position")
        bench.wait_frames(FRAMES)
        mds.ask("moverel BMX1 200.0")
        with pytest.raises(StateError, match="moving, or may be"):
            bench.ask("N0_update")
        wait_for(lambda: not mask.may_move and mask.state.x_um is not None, what="a mask that stands")
        assert not bench.instrument.mask_in(1)
        bench.wait_frames(40)
        with pytest.raises(StateError, match="usable frames since the last change of loops, mirror or mask"):
            bench.ask("N0_update", 1000)
        before = bench.loop.arrays.ring.write_index
        reply = bench.ask("N0_update")
        times = bench.loop.arrays.ring.read(0, before, ["time_ns"])[1]["time_ns"]
        assert reply["frames"] >= np.count_nonzero(times >= 1e9 * (mask.at_rest_since_s + MASK_SETTLE_S))
        assert reply["frames"] < before
        # All frames were alike: further ones say the same.
        bench.wait_frames(100)
        assert bench.ask("N0_update", 50)["rms_change"] < 2e-4 * reply["mean"]
