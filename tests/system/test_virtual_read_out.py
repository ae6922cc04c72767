"""Read-out modes, cubes and phase masks of the virtual instrument, through its control servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from baldr_tango.peers import CameraClient
from baldr_tango.simulator.instrument import VirtualInstrument
from baldr_tango.streams import Stream
from legacy_zmq.instrument import ControlServers
from tests.harness import remove_streams, stream_directory, wait_for
from tests.simulated import simulator_config
from tests.system.zmq_servers import TIMEOUT_S

fits = pytest.importorskip("astropy.io.fits")
pytestmark = pytest.mark.system

FRAMES = 60
STEADY = {
    "rate_hz": 500.0,
    "turbulence": False,
    "residual_rms_nm": 0.0,
    "tip_tilt_rms_nm": 0.0,
    "read_noise_adu": 0.0,
    "electrons_per_adu": 1e4,
    "flux_adu": 20000.0,
    "cube_frames": FRAMES,
}


class Bench:
    """An instrument of two beams, its control servers, a client of the camera server."""

    def __init__(self, directory: Path, cubes: Path) -> None:
        self.cubes = cubes
        # Two cubes fit, a third one does not.
        size_mb = (FRAMES * 4096 + 2 * 2880) / 1e6
        config = simulator_config(
            directory, (1, 2), cube_directory=cubes, cube_max_mb=2.5 * size_mb, **STEADY
        )
        self.instrument = VirtualInstrument(config)
        self.servers = ControlServers(
            self.instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0", speed_um_s=20000.0
        )
        self.directory = directory

    def ask(self, text: str) -> str:
        """Ask the camera server."""
        with CameraClient(self.servers.camera.endpoint, TIMEOUT_S) as camera:
            return camera.raw(text)

    def frame(self) -> NDArray[np.float64]:
        """Return a frame of beam 1 that was begun after now, (P,) [ADU]."""
        with Stream.open("baldr1", self.directory) as camera:
            count = camera.counter()
            wait_for(lambda: camera.counter() > count + 2, what="new frames")
            return camera.read()[0].ravel().astype(float)

    def cube(self) -> NDArray[np.float64]:
        """Return consecutive new frames of beam 1 as the camera server saves them, (FRAMES, P) [ADU]."""
        for file in self.cubes.rglob("*.fits"):
            file.unlink()
        self.ask("save_mode 1")
        wait_for(lambda: any(self.cubes.rglob("baldr1_*.fits")), what="a cube")
        self.ask("save_mode 0")
        with fits.open(next(self.cubes.rglob("baldr1_*.fits"))) as units:
            return np.asarray(units[0].data, dtype=np.float64).reshape(FRAMES, -1)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    directory = stream_directory("baldr_read_out")
    try:
        found = Bench(directory, tmp_path / "cubes")
        with found.instrument, found.servers:
            yield found
    finally:
        remove_streams(directory)


def test_without_reset_frames_show_the_charge_and_in_ndmr_mode_its_slope(bench: Bench) -> None:
    single = bench.cube()
    assert np.ptp(single, axis=0).max() <= 12
    light = single.mean(axis=0) - 1000.0
    bench.ask('cli "set nbreadworeset 20"')
    assert np.ptp(bench.cube(), axis=0).max() <= 12  # the mode has not changed
    bench.ask('cli "set mode globalresetbursts"')
    wait_for(lambda: bench.instrument.reads == 20)
    reads = bench.cube()
    total = reads.sum(axis=1) - 1000.0 * reads.shape[1]
    resets = np.flatnonzero(np.diff(total) < 0) + 1
    assert set(np.diff(resets)) == {20}
    # Charge grows by the light of one frame; the first read after a reset has none.
    burst = reads[resets[0] : resets[0] + 20] - 1000.0
    assert np.abs(burst[0]).max() <= 1
    for n in (1, 7, 19):
        assert burst[n] == pytest.approx(n * light, abs=20.0 + 0.01 * n * light.max())
    bench.ask("ndmr_mode 20")
    slopes = bench.cube()[:40] - 1000.0
    # Nine reads of one burst: 60 times the light. Windows with a reset in them are wrong, one way or other.
    right = np.abs(slopes - 60.0 * light).max(axis=1) < 0.05 * 60.0 * light.max()
    # Twelve of each twenty, less those that begin before the mode was there.
    assert 12 <= right.sum() <= 24
    wrong = slopes[~right].sum(axis=1)
    assert wrong.min() < 0.0
    assert "20" in bench.ask('cli "nbreadworeset raw"')
    assert "globalresetbursts" in bench.ask('cli "mode raw"')
    # By the camera's command line the server's filter does not follow.
    bench.ask('cli "set mode globalresetcds"')
    wait_for(lambda: bench.instrument.reads == 1)
    assert np.abs(bench.cube()[10:] - 1000.0).max() < 200.0
    bench.ask("ndmr_mode 2")
    assert bench.cube()[10:].mean(axis=0) - 1000.0 == pytest.approx(light, abs=12)


def test_save_mode_writes_cubes_until_the_directory_is_full(bench: Bench) -> None:
    assert bench.ask("save_mode 1") == "null"
    wait_for(lambda: not bench.instrument.cubes.on, what="the end of saving")
    files = sorted(bench.cubes.rglob("*.fits"))
    assert len(files) == bench.instrument.cubes.saved == 2
    assert {file.name.split("_T")[0] for file in files} <= {"baldr1", "baldr2"}
    assert not list(bench.cubes.rglob("*.part"))
    assert sum(file.stat().st_size for file in files) % 2880 == 0
    expected = bench.frame()
    for file in files:
        with fits.open(file) as units:
            units.verify("exception")
            data, header = units[0].data, units[0].header
            assert (data.shape, data.dtype.kind, data.dtype.itemsize) == ((FRAMES, 32, 32), "i", 4)
            assert (header["FPS"], header["GAIN"], header["RO_MODE"]) == (500.0, 10.0, "GCDS")
            if file.name.startswith("baldr1"):
                assert data.mean(axis=0).ravel() == pytest.approx(expected, abs=12)
    # It begins again only with room for a cube.
    bench.ask("save_mode 1")
    wait_for(lambda: not bench.instrument.cubes.on, what="the end of saving")
    assert len(list(bench.cubes.rglob("*.fits"))) == 2


def test_nothing_is_saved_of_streams_that_are_skipped(bench: Bench) -> None:
    bench.ask("skip_save_baldr 1")
    bench.ask("save_mode 1")
    assert not bench.instrument.cubes.on
    bench.ask("skip_save_baldr 0")
    assert bench.instrument.cubes.on
    bench.ask("save_mode 0")
    assert not bench.instrument.cubes.on


def test_the_frames_change_with_the_mask_while_they_come(bench: Bench) -> None:
    mds = lambda text: bench.servers.mds_model.answer(text.encode()).decode()  # noqa: E731
    images = {}
    before = bench.instrument.counters().ticks
    for mask in ("H3", "H5", "J5", ""):
        if mask:
            assert mds(f"fpm_movetomask phasemask1 {mask}") == "ACK\n"
        else:
            mds("moverel BMX1 200.0")
        wait_for(lambda mask=mask: bench.instrument.mask(1) == mask and mds("state phasemask1") == "READY\n")
        images[mask] = bench.frame() - 1000.0
    pairs = [(a, b) for a in images for b in images if a < b]
    assert len(pairs) == 6
    for one, other in pairs:
        assert np.abs(images[one] - images[other]).max() > 0.03 * images[""].max(), (one, other)
    assert bench.instrument.mask(2) == "H3"
    assert bench.instrument.counters().ticks > before
