"""Dark and references from the loop's own frames: averages, what counts, saving, undoing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.beam.frames import choose_frames
from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.derived import derive
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.telemetry.ring import TelemetryRing
from tests.beam_bench import BeamBench
from tests.harness import wait_for
from tests.unit.configuration_problem import PIXELS, SIDE


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BeamBench]:
    with BeamBench(tmp_path) as bench:
        yield bench


def show(bench: BeamBench, light: np.ndarray, count: int = 20, noise: float = 0.0) -> list[np.ndarray]:
    """Post frames of light (P,) [ADU] on top of the dark in force; return them raw."""
    frames = []
    for k in range(count):
        frame = bench.loop.slots.current("dark") + light + bench.rng.normal(0.0, noise, PIXELS)
        frame[0] += k % 2  # a picture that repeats itself would not count
        frames.append(np.round(frame).astype(np.int32))
        before = bench.loop.arrays.ring.write_index
        bench.camera.write(frames[-1].reshape(SIDE, SIDE))
        wait_for(lambda before=before: bench.loop.arrays.ring.write_index > before, what="a record")
    return frames


def test_a_dark_update_is_the_mean_of_the_frames(bench: BeamBench) -> None:
    frames = show(bench, np.full(PIXELS, 7.0), 30, noise=3.0)
    old = bench.loop.parameters.dark
    reply = bench.ask("dark_update", "")
    expected = np.mean(frames, axis=0)
    assert reply["ok"]
    assert reply["frames"] == 30
    np.testing.assert_allclose(bench.loop.parameters.dark, expected, rtol=1e-12)
    np.testing.assert_allclose(bench.loop.slots.current("dark"), expected, rtol=1e-6)
    assert reply["rms_change"] == pytest.approx(np.sqrt(np.mean((expected - old) ** 2)))
    assert reply["flux_before"] == pytest.approx(np.sum(expected - old))


def test_a_dark_begins_when_the_light_went_out(bench: BeamBench) -> None:
    show(bench, np.full(PIXELS, 500.0), 40, noise=3.0)
    frames = show(bench, np.zeros(PIXELS), 25, noise=3.0)
    reply = bench.ask("dark_update")
    # One frame at the edge is given away.
    assert reply["frames"] == 24
    np.testing.assert_allclose(bench.loop.parameters.dark, np.mean(frames[1:], axis=0), rtol=1e-12)


def test_the_reference_becomes_the_mean_of_img_dm_and_the_signal_goes_to_zero(bench: BeamBench) -> None:
    light = bench.rng.uniform(50.0, 1500.0, PIXELS)
    show(bench, light, 40, noise=2.0)
    loop = bench.loop
    recorded = loop.arrays.ring.read(0, 40, ["img_dm"])[1]["img_dm"].astype(float)
    reply = bench.ask("I0_update")
    assert reply["frames"] == 40
    np.testing.assert_allclose(loop.parameters.reference, recorded.mean(axis=0), rtol=1e-5)
    assert reply["flux"] == pytest.approx(light.sum(), rel=1e-3)
    assert reply["flux_before"] == bench.beam.calibration.intrn_flx_I0
    show(bench, light, 1)
    assert np.abs(bench.loop.arrays.ring.newest("signal")).max() < 0.02


def test_frames_without_flux_do_not_count(bench: BeamBench) -> None:
    light = bench.rng.uniform(50.0, 1500.0, PIXELS)
    show(bench, light, 12)
    show(bench, np.zeros(PIXELS), 5)
    show(bench, light, 8)
    assert bench.ask("I0_update")["frames"] == 20


def test_frames_before_a_servo_change_do_not_count(bench: BeamBench) -> None:
    light = bench.rng.uniform(50.0, 1500.0, PIXELS)
    show(bench, light, 30)
    bench.beam.set_loops(ho=1, force=True)  # type: ignore[arg-type]
    show(bench, light, 20)
    # The record of the change and two more may show the mirror as it was.
    assert bench.ask("I0_update")["frames"] == 17
    bench.beam.set_loops(ho=0)  # type: ignore[arg-type]
    show(bench, light, 5)
    with pytest.raises(StateError, match="2 usable frames"):
        bench.ask("I0_update")


def test_a_moved_mirror_begins_anew(bench: BeamBench) -> None:
    light = bench.rng.uniform(50.0, 1500.0, PIXELS)
    show(bench, light, 30)
    offset = np.zeros(bench.loop.arrays.n_grid)
    offset[5] = 0.05
    bench.loop.wait_adopted(bench.loop.slots.change(offset_ho=offset), 5.0)
    show(bench, light, 15)
    assert bench.ask("I0_update")["frames"] == 12


def test_too_few_frames_change_nothing(bench: BeamBench) -> None:
    before = bench.loop.parameters
    show(bench, bench.rng.uniform(50.0, 1500.0, PIXELS), 5)
    for command in ("I0_update", "I0_update_lucky", "N0_update", "dark_update"):
        with pytest.raises(StateError, match="5 usable frames"):
            bench.ask(command)
        with pytest.raises(RequestError, match="frames"):
            bench.ask(command, {"frames": 3})
        with pytest.raises(RequestError, match="no option 'frame'"):
            bench.ask(command, {"frame": 30})
    assert bench.loop.parameters is before


def test_lucky_takes_the_frames_with_the_brightest_ring(bench: BeamBench) -> None:
    ring = bench.loop.parameters.exterior_pixels
    light = bench.rng.uniform(500.0, 1500.0, PIXELS)
    levels = bench.rng.permutation(100)
    frames = []
    for level in levels:
        brighter = light.copy()
        brighter[ring] += 5.0 * level
        frames += show(bench, brighter, 1)
    reply = bench.ask("I0_update_lucky")
    # ceil(0.95 * 99) = 95: levels 95 to 99.
    assert reply["frames"] == 5
    assert reply["frames_seen"] == 100
    dark = bench.loop.slots.current("dark").astype(float)
    chosen = np.array(frames)[levels >= 95] - dark
    expected = (chosen / chosen.sum(axis=1, keepdims=True)).mean(axis=0)
    p = bench.loop.parameters
    np.testing.assert_allclose(p.reference, p.pixels_to_actuators @ expected, rtol=1e-5)
    assert bench.ask("I0_update_lucky", 0)["percentile"] == 50.0
    assert bench.ask("I0_update_lucky", {"percentile": 100})["percentile"] == 99.9


def test_the_clear_pupil_is_a_map_and_a_constant_on_request(bench: BeamBench) -> None:
    calibration = bench.beam.calibration
    assert calibration is not None
    light = bench.rng.uniform(900.0, 1500.0, PIXELS)
    show(bench, light, 20)
    reply = bench.ask("N0_update", "")
    assert reply["constant"] is False
    inner = calibration.inner_pupil_filt > 0
    raw = np.round(bench.loop.slots.current("dark") + light) - bench.loop.slots.current("dark")
    cleaned = np.where(inner, raw, raw[inner].mean()) / raw.sum()
    p = bench.loop.parameters
    np.testing.assert_allclose(p.clear_pupil, p.pixels_to_actuators @ cleaned, rtol=1e-5)
    inverse = bench.loop.slots.current("inverse_clear_pupil")
    np.testing.assert_allclose(inverse[p.signal_mask], 1 / p.clear_pupil[p.signal_mask], rtol=1e-5)
    assert bench.ask("N0_update", {"constant": True})["constant"] is True
    image_dm = bench.loop.arrays.ring.newest("img_dm").astype(float)
    inside = calibration.I2A @ calibration.inner_pupil_filt > 0.7
    constant = bench.loop.parameters.clear_pupil
    np.testing.assert_allclose(constant, image_dm[inside].mean(), rtol=1e-5)


def test_saved_references_load_again_and_undo_restores_the_file(bench: BeamBench, tmp_path: Path) -> None:
    original = bench.loop.parameters
    show(bench, np.zeros(PIXELS), 20, noise=2.0)
    bench.ask("dark_update")
    light = bench.rng.uniform(50.0, 1500.0, PIXELS)
    show(bench, light, 60, noise=2.0)
    bench.ask("I0_update", 50)
    bench.ask("N0_update", 50)
    measured = bench.loop.parameters
    saved = Path(bench.ask("save_references", "")["path"])
    assert saved.parent == tmp_path
    again = Path(bench.ask("save_references")["path"])
    assert again != saved
    undone = bench.ask("undo_references")
    assert {"dark", "reference", "clear_pupil"} <= set(undone["changed"])
    for name in ("dark", "reference", "clear_pupil", "signal_mask"):
        np.testing.assert_array_equal(getattr(bench.loop.parameters, name), getattr(original, name))
    bench.ask("readBDRConfig", str(saved))
    for name in ("dark", "reference", "clear_pupil"):
        np.testing.assert_allclose(getattr(bench.loop.parameters, name), getattr(measured, name), rtol=1e-5)
    assert load_calibration(saved, 1, "H3").intrn_flx_I0 == pytest.approx(light.sum(), rel=1e-3)


def test_saving_overwrites_nothing(bench: BeamBench, tmp_path: Path) -> None:
    taken = tmp_path / "calibration.toml"
    content = taken.read_bytes()
    with pytest.raises(RequestError, match="never overwritten"):
        bench.ask("save_references", str(taken))
    with pytest.raises(RequestError, match="absolute"):
        bench.ask("save_references", "elsewhere.toml")
    assert taken.read_bytes() == content
    chosen = bench.ask("save_references", str(tmp_path / "deep" / "mine.toml"))["path"]
    kept = derive(load_calibration(chosen, 1, "H3"), bench.beam.settings)
    now = derive(load_calibration(taken, 1, "H3"), bench.beam.settings)
    for name in ("reference", "clear_pupil", "dark"):
        np.testing.assert_allclose(getattr(kept, name), getattr(now, name), rtol=1e-6)


def test_a_reference_set_at_the_actuators_cannot_be_saved(bench: BeamBench) -> None:
    p = bench.loop.parameters
    bench.loop.update(replace(p, reference=p.reference * 1.1))
    with pytest.raises(StateError, match="I0"):
        bench.ask("save_references")


def test_injected_signals_do_not_count_as_moves() -> None:
    ring = TelemetryRing(64, {"P": 4, "A": 2, "L": 2, "H": 2, "G": 4})
    for k in range(40):
        wave = np.full(4, 0.01 * np.sin(k), dtype=np.float32)
        ring.append(command=wave + np.float32(0.1), c_inj=wave, flux=1e4)
    assert choose_frames(ring, None).count == 40
    ring.append(flux=1e4, flags=d.FLAG_SKIPPED, command=np.full(4, 0.1))
    assert choose_frames(ring, None).count == 40


def test_frames_before_a_moment_do_not_count() -> None:
    ring = TelemetryRing(64, {"P": 4, "A": 2, "L": 2, "H": 2, "G": 4})
    for k in range(40):
        ring.append(flux=1e4, time_ns=1000 * k)
    assert choose_frames(ring, None, after_ns=15_000).count == 25
    assert choose_frames(ring, 25, after_ns=15_000).field("time_ns").min() == 15_000
    with pytest.raises(StateError, match=r"9 usable frames since .* mask, 10 are needed"):
        choose_frames(ring, None, after_ns=30_001)
