"""Dark, N0 and I0 taken with the product's own commands, lamp and mask moved through the virtual servers."""

from __future__ import annotations

import numpy as np
import pytest

from legacy_zmq.instrument import ControlServers
from tests.harness import wait_for
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
