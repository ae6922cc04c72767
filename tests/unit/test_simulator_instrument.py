"""The virtual instrument behind its streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from baldr_tango.errors import BackendError, ConfigError, RequestError, StateError
from baldr_tango.simulator.instrument import VirtualInstrument
from baldr_tango.simulator.truth import TRUTH_FIELDS, TruthReader
from baldr_tango.streams import Stream
from tests.harness import remove_streams, stream_directory, wait_for
from tests.simulated import simulator_config

QUIET = {"turbulence": False, "read_noise_adu": 0.0, "electrons_per_adu": 1e9}


@pytest.fixture
def directory() -> Iterator[Path]:
    path = stream_directory("baldr_sim")
    yield path
    remove_streams(path)


@pytest.fixture
def opened(directory: Path) -> Iterator[Callable[..., Stream]]:
    streams: list[Stream] = []

    def open_stream(name: str, **options: Any) -> Stream:
        streams.append(Stream.open(name, directory, **options))
        return streams[-1]

    yield open_stream
    for stream in streams:
        stream.close()


def frames_after(camera: Stream, count: int = 3) -> NDArray[np.int32]:
    """The first frame that has been started after now, and a few to be sure."""
    target = camera.counter() + count
    wait_for(lambda: camera.counter() >= target, what=f"frame {target} of {camera.name}")
    return camera.read()[0]


def test_streams_are_those_of_the_instrument(directory: Path, opened: Callable[..., Stream]) -> None:
    config = simulator_config(directory, beams=(2, 4), **QUIET)
    with VirtualInstrument(config) as instrument:
        assert instrument.beams == (2, 4)
        for beam in (2, 4):
            camera = opened(f"baldr{beam}", shape=(32, 32), dtype=np.int32)
            assert camera.n_semaphores == 10
            for channel in range(5):
                mirror = opened(f"dm{beam}disp{channel:02d}", shape=(12, 12), dtype=np.float64)
                assert np.all(mirror.read()[0] == (0.5 if channel == 0 else 0.0))
            combined = opened(f"dm{beam}", shape=(12, 12), dtype=np.float64)
            wait_for(lambda stream=combined: stream.counter() > 0)
            assert np.all(combined.read()[0] == 0.5)
            wait_for(lambda stream=camera: stream.counter() > 0)
            header = camera.header()
            assert header["cnt1"] > 0
            for semaphore in camera.semaphores:
                assert 1 <= semaphore.value() <= 10
        assert not (directory / "baldr1.im.shm").exists()
    assert not list(directory.iterdir())


def test_frames_show_the_pedestal_the_light_and_the_mask(
    directory: Path, opened: Callable[..., Stream]
) -> None:
    config = simulator_config(directory, flux_adu=50000.0, **QUIET)
    with VirtualInstrument(config) as instrument:
        camera = opened("baldr1")
        masked = frames_after(camera).astype(float) - 1000
        assert 0.85 * 50000 < masked.sum() < 50000
        instrument.move_mask(1, False)
        assert not instrument.mask_in(1)
        clear = frames_after(camera).astype(float) - 1000
        assert clear.sum() == pytest.approx(50000, abs=100)
        assert np.abs(clear[:8]).max() == 0
        assert masked[15, 6] > 20
        instrument.set_lamp(False)
        assert not instrument.lamp
        assert np.all(frames_after(camera) == 1000)
        instrument.set_lamp(True)
        instrument.move_mask(1, True)
        assert frames_after(camera) == pytest.approx(masked + 1000)


def test_rate_and_gain_change_the_exposure(directory: Path, opened: Callable[..., Stream]) -> None:
    config = simulator_config(directory, rate_hz=1000.0, flux_adu=40000.0, **QUIET)
    with VirtualInstrument(config) as instrument:
        camera = opened("baldr1")
        instrument.move_mask(1, False)
        instrument.set_gain(2 * instrument.gain)
        assert frames_after(camera).sum() - 1024000 == pytest.approx(80000, rel=0.01)
        instrument.set_rate(500.0)
        assert instrument.rate_hz == 500.0
        assert frames_after(camera).sum() - 1024000 == pytest.approx(160000, rel=0.01)
        for bad in (0.0, -1.0, float("nan"), 1e6):
            with pytest.raises(RequestError, match="frame rate"):
                instrument.set_rate(bad)
        with pytest.raises(RequestError, match="gain"):
            instrument.set_gain(0.0)


def test_a_subtracted_dark_leaves_the_level_that_the_server_adds(
    directory: Path, opened: Callable[..., Stream]
) -> None:
    config = simulator_config(directory, rate_hz=1000.0, pedestal_adu=1300.0, **QUIET)
    with VirtualInstrument(config) as instrument:
        camera = opened("baldr1")
        instrument.set_lamp(False)
        assert frames_after(camera).mean() == pytest.approx(1300.0, abs=0.5)
        instrument.set_dark_subtraction(True)
        assert frames_after(camera).mean() == pytest.approx(1300.0, abs=0.5)  # there is no dark yet
        assert not instrument.subtracts_dark
        instrument.make_dark()
        assert frames_after(camera).mean() == pytest.approx(1000.0, abs=0.5)
        instrument.set_rate(500.0)
        assert frames_after(camera).mean() == pytest.approx(1300.0, abs=0.5)  # none for this rate
        instrument.set_rate(1000.0)
        assert instrument.subtracts_dark
        instrument.set_dark_subtraction(False)
        assert frames_after(camera).mean() == pytest.approx(1300.0, abs=0.5)


def test_channels_are_summed_and_clipped_and_move_the_mirror(
    directory: Path, opened: Callable[..., Stream]
) -> None:
    with VirtualInstrument(simulator_config(directory, **QUIET)) as instrument:
        camera, combined = opened("baldr1"), opened("dm1")
        flat = frames_after(camera)
        rng = np.random.default_rng(0)
        maps = rng.normal(0, 0.2, (5, 12, 12))
        for k in range(1, 5):
            opened(f"dm1disp{k:02d}", writable=True).write(maps[k])
        opened("dm1", writable=True).post(1)
        moved = frames_after(camera)
        header = combined.header()
        assert header["cnt1"] == 0
        assert header["write"] == 0
        assert combined.read()[0] == pytest.approx(np.clip(0.5 + maps[1:].sum(axis=0), 0, 1))
        assert (combined.read()[0] == 0).any()
        assert (combined.read()[0] == 1).any()
        assert np.abs(moved - flat).max() > 100
        wait_for(lambda: combined.semaphores[1].value() == 0, what="draining of the trigger")
        with TruthReader("baldr1", directory) as truth:
            assert truth.read()["dm_rms_nm"] > 500
        assert instrument.counters().not_finite == 0


def test_a_command_that_is_no_number_leaves_the_actuator_where_it_is(
    directory: Path, opened: Callable[..., Stream]
) -> None:
    with VirtualInstrument(simulator_config(directory, **QUIET)) as instrument:
        camera = opened("baldr1")
        channel = opened("dm1disp02", writable=True)
        command = np.zeros((12, 12))
        combined = opened("dm1", writable=True)
        command[5, 7] = 0.03
        channel.write(command)
        combined.post(1)
        before = frames_after(camera)
        command[5, 7] = np.nan
        channel.write(command)
        combined.post(1)
        after = frames_after(camera)
        assert np.array_equal(before, after)
        assert instrument.counters().not_finite > 0
        assert np.isnan(opened("dm1").read()[0][5, 7])


def test_truth_averages_over_every_frame(directory: Path, opened: Callable[..., Stream]) -> None:
    config = simulator_config(directory, rate_hz=2000.0)
    with VirtualInstrument(config) as instrument, TruthReader("baldr1", directory) as truth:
        camera = opened("baldr1")
        frames_after(camera, 50)
        truth.restart()
        first = truth.read()["sum_frames"]
        frames_after(camera, 500)
        means = truth.latest()
        assert means is not None
        assert 500 <= means.frames <= truth.read()["sum_frames"] - first + 1
        assert 20 < means.opd_rms_nm < 400
        assert means.open_loop_rms_nm == pytest.approx(means.opd_rms_nm)
        assert means.open_loop_strehl == pytest.approx(means.strehl)
        assert 0.3 < means.strehl < 1
        newest = truth.read()
        assert list(newest) == list(TRUTH_FIELDS)
        assert newest["frame"] == pytest.approx(camera.counter(), abs=20)
        instrument.set_turbulence(False)
        assert not instrument.turbulence(1)
        frames_after(camera)
        truth.restart()
        frames_after(camera)
        flat = truth.means()
        assert flat is not None
        assert flat.opd_rms_nm < 0.1
        assert flat.strehl == pytest.approx(1, abs=1e-5)
        assert truth.is_current()


def test_turbulence_can_be_switched_for_one_beam(directory: Path) -> None:
    instrument = VirtualInstrument(simulator_config(directory, beams=(1, 3)))
    instrument.set_turbulence(False, 3)
    assert instrument.turbulence(1)
    assert not instrument.turbulence(3)
    instrument.set_turbulence(True)
    assert instrument.turbulence(3)
    with pytest.raises(RequestError, match="beam 2: this instrument has 1, 3"):
        instrument.set_turbulence(True, 2)


def test_a_silent_camera_still_moves_its_mirror(directory: Path, opened: Callable[..., Stream]) -> None:
    with VirtualInstrument(simulator_config(directory, rate_hz=2000.0, **QUIET)) as instrument:
        camera, combined = opened("baldr1"), opened("dm1")
        frames_after(camera)
        instrument.set_silent(True)
        assert instrument.silent
        ticks = instrument.counters().ticks
        wait_for(lambda: instrument.counters().ticks > ticks + 2)
        count, moves = camera.counter(), combined.counter()
        opened("dm1", writable=True).post(1)
        wait_for(lambda: combined.counter() == moves + 1)
        assert camera.counter() == count
        instrument.set_silent(False)
        wait_for(lambda: camera.counter() > count)


def test_every_third_frame_can_be_left_out(directory: Path, opened: Callable[..., Stream]) -> None:
    with VirtualInstrument(simulator_config(directory, rate_hz=2000.0, drop_every=3, **QUIET)) as instrument:
        camera = opened("baldr1")
        wait_for(lambda: camera.counter() >= 100)
        ticks = instrument.counters().ticks
        assert camera.counter() == pytest.approx(ticks * 2 / 3, abs=5)
        with pytest.raises(RequestError, match="drop every -1"):
            instrument.set_drop_every(-1)


@pytest.mark.parametrize("post_first", [False, True])
def test_frames_are_counted_before_or_after_they_are_posted(
    directory: Path, opened: Callable[..., Stream], post_first: bool
) -> None:
    """With the count first, whoever is woken finds it advanced."""
    with VirtualInstrument(simulator_config(directory, rate_hz=500.0, **QUIET)) as instrument:
        instrument.set_post_first(post_first)
        camera = opened("baldr1")
        frames_after(camera)
        camera.semaphores[4].drain()
        start = camera.counter()
        behind = 0
        for posts in range(1, 101):
            assert camera.wait(4, 10.0)
            behind += camera.counter() < start + posts
        if not post_first:
            assert behind == 0


def test_the_same_seed_makes_the_same_frames(directory: Path, opened: Callable[..., Stream]) -> None:
    def first_frames(seed: int) -> dict[int, NDArray[np.int32]]:
        found: dict[int, NDArray[np.int32]] = {}
        with VirtualInstrument(simulator_config(directory, rate_hz=100.0, seed=seed)):
            camera = opened("baldr1")
            while len(found) < 4:
                assert camera.wait(2, 10.0)
                data, count = camera.read()
                found[count] = data
        return found

    one, again, other = first_frames(5), first_frames(5), first_frames(6)
    common = sorted(set(one) & set(again))
    assert len(common) >= 2
    for count in common:
        assert np.array_equal(one[count], again[count])
    shared = next(iter(set(one) & set(other)))
    assert not np.array_equal(one[shared], other[shared])


def test_stop_is_prompt_and_start_follows_it(directory: Path, opened: Callable[..., Stream]) -> None:
    instrument = VirtualInstrument(simulator_config(directory, rate_hz=0.5, **QUIET))
    instrument.start()
    with pytest.raises(StateError, match="runs already"):
        instrument.start()
    first = opened("baldr1")
    begin = time.monotonic()
    instrument.stop()
    assert time.monotonic() - begin < 1.0
    assert not instrument.is_running
    instrument.stop()
    assert first.is_current() == "deleted"
    instrument.set_rate(1000.0)
    with instrument:
        second = opened("baldr1")
        assert second.inode != first.inode
        frames_after(second)


def test_streams_left_behind_are_replaced(directory: Path, opened: Callable[..., Stream]) -> None:
    Stream.create("baldr1", (8, 8), np.uint16, directory).close()
    old = opened("baldr1")
    with VirtualInstrument(simulator_config(directory, **QUIET)):
        assert old.is_current() == "re-created (new inode)"
        frames_after(opened("baldr1", shape=(32, 32), dtype=np.int32))


def test_streams_that_somebody_else_made_meanwhile_are_left_alone(directory: Path) -> None:
    with VirtualInstrument(simulator_config(directory, **QUIET)):
        Stream.create("baldr1", (32, 32), np.int32, directory).close()
    assert [path.name for path in directory.iterdir()] == ["baldr1.im.shm"]


def test_settings_that_cannot_be_are_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match="rate_hz"):
        VirtualInstrument(simulator_config(directory, rate_hz=0.0))
    with pytest.raises(ConfigError, match="pupil_pixels"):
        VirtualInstrument(simulator_config(directory, pupil_pixels=40.0))
    config = simulator_config(directory)
    object.__setattr__(config.streams, "dm_command", "mirror{beam}")
    with pytest.raises(ConfigError, match="dm_command: found 'mirror1', expected one of dm1disp00"):
        VirtualInstrument(config)


def test_truth_of_an_absent_instrument(directory: Path) -> None:
    with pytest.raises(BackendError, match="baldr1_truth"):
        TruthReader("baldr1", directory)
