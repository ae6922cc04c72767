"""Interaction matrix measured by the beam on the virtual instrument, judged by the optical model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.beam.interaction_files import read_interaction_matrix
from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.errors import RequestError, StateError
from baldr_tango.names import N_GRID, LoopState, to_grid
from tests.harness import wait_for
from tests.optical_bench import OpticalBench, signal_of
from tests.virtual_beam import VirtualBeam


@pytest.fixture(scope="module")
def virtual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBeam]:
    with VirtualBeam(tmp_path_factory.mktemp("beam")) as virtual:
        yield virtual


def derivative(virtual: VirtualBeam, actuators: range, step: float) -> np.ndarray:
    """Derivative of the signal by single actuators, from the optics alone: central differences, no noise."""
    bench = OpticalBench(virtual.simulator)
    p = virtual.loop.parameters
    rows = []
    for k in actuators:
        poke = to_grid(step * np.eye(140)[k])
        images = [p.dark + bench.light(sign * poke) for sign in (1.0, -1.0)]
        rows.append((signal_of(p, images[0]) - signal_of(p, images[1])) / (2.0 * step))
    return np.array(rows)


def test_the_matrix_is_the_derivative_of_the_optics(virtual: VirtualBeam, tmp_path: Path) -> None:
    reply = virtual.ask(
        "build_interaction_matrix",
        {"poke": 0.01, "n_iter": 2, "sleep_s": 0, "frames": 5, "file": str(tmp_path / "im.fits")},
    )
    assert reply["status"] == "interaction matrix construction complete"
    assert reply["frames_used"] == 140 * 2 * 2 * 5
    matrix = virtual.beam.interaction.newest
    assert matrix is not None
    expected = derivative(virtual, range(140), 1e-4)
    difference = np.linalg.norm(matrix.signals - expected) / np.linalg.norm(expected)
    # Photon noise of 20 frames, and the curvature of the response over the poke.
    assert difference < 0.02
    # The scatter of the iterations tells the noise: most of the difference is explained by it.
    assert matrix.noise is not None
    inside = np.abs(np.diag(expected)) > 0.3 * np.abs(np.diag(expected)).max()
    diagonal = np.diag(matrix.signals)[inside] / np.diag(expected)[inside]
    assert np.abs(diagonal - 1.0).max() < 0.02
    assert reply["rank"] <= 140
    assert reply["noise_per_element"] == pytest.approx(np.sqrt(np.mean(matrix.noise**2)))
    assert not virtual.command().any()
    legacy = read_interaction_matrix(tmp_path / "im.fits")
    assert legacy.pixels.shape == (1024, 140)
    np.testing.assert_array_equal(legacy.signals, matrix.signals)
    fits = pytest.importorskip("astropy.io.fits")
    with fits.open(tmp_path / "im.fits") as units:
        assert units[0].header["EXTNAME"] == "IM"
        assert units[0].data.shape == (1024, 140)
        p = virtual.loop.parameters
        from_pixels = p.pixels_to_actuators @ units[0].data / virtual.loop.arrays.ring.newest("flux")
        lit = np.where(p.signal_mask, p.clear_pupil, 1.0)
        assert np.linalg.norm((from_pixels.T / lit) - expected) < 0.02 * np.linalg.norm(expected)


def test_reconstructors_of_the_measured_matrix_invert_the_optics(
    virtual: VirtualBeam, tmp_path: Path
) -> None:
    if virtual.beam.interaction.newest is None:
        virtual.ask("build_interaction_matrix", {"poke": 0.01, "n_iter": 2, "sleep_s": 0, "frames": 5})
    expected = derivative(virtual, range(140), 1e-4)
    p = virtual.loop.parameters
    zonal = virtual.ask("compute_reconstructor", "zonal")
    assert zonal["applied"] is False
    assert virtual.loop.parameters is p
    reply = virtual.ask("compute_reconstructor", {"method": "pinv", "apply": True, "save": True})
    new = virtual.loop.parameters
    used = np.any(new.reconstructor_ho != 0.0, axis=1)
    assert used.sum() == reply["controlled"] == zonal["controlled"]
    # Reconstructor times response of the controlled actuators is the identity, up to noise.
    product = new.reconstructor_ho[used] @ expected[used].T
    assert np.abs(product - np.eye(used.sum())).max() < 0.2
    tip_tilt = new.mode_shapes_lo[np.delete(np.arange(N_GRID), [0, 11, 132, 143])]
    np.testing.assert_allclose(new.reconstructor_lo @ (tip_tilt.T @ expected).T, np.eye(2), atol=0.05)
    saved = load_calibration(reply["path"], 1, "H3")
    np.testing.assert_allclose(saved.I2M_HO, new.reconstructor_ho)
    assert saved.inverse_method_HO == "pinv"
    truncated = virtual.ask("compute_reconstructor", {"method": "svd_truncation", "keep": 40})
    assert truncated["kept"] == 40
    virtual.loop.update(p)


def test_only_with_open_loops_and_nothing_is_left_behind(virtual: VirtualBeam) -> None:
    virtual.beam.set_loops(lo=LoopState.CLOSED, force=True)
    with pytest.raises(StateError, match="both loops open"):
        virtual.ask("build_interaction_matrix")
    virtual.beam.set_loops(lo=LoopState.OPEN)
    with pytest.raises(RequestError, match=r"the shape reaches 0\.5"):
        virtual.ask("build_interaction_matrix", 1.0)
    assert virtual.ask("job_status")["state"] == "failed"
    assert not virtual.command().any()


def test_cancelling_puts_the_offsets_back(virtual: VirtualBeam) -> None:
    before = to_grid(0.01 * np.eye(140)[70])
    virtual.loop.wait_adopted(virtual.loop.slots.change(offset_ho=before), 5.0)
    reply = virtual.ask("build_interaction_matrix", {"wait": False}, wait=True)
    assert reply == {"ok": True, "job": "build_interaction_matrix", "pending": True}
    wait_for(lambda: virtual.beam.read(["job_fraction"])["job_fraction"] > 0.01)
    with pytest.raises(StateError, match="still running"):
        virtual.ask("acquire_dark")
    left = virtual.beam.read(["job_time_left", "job_state", "job_step"])
    assert left["job_state"] == "running"
    assert left["job_time_left"] > 0
    assert virtual.ask("job_cancel")["state"] == "cancelled"
    virtual.wait_frames(3)
    np.testing.assert_allclose(virtual.command(), before, atol=1e-7)
    virtual.loop.wait_adopted(virtual.loop.slots.change(offset_ho=np.zeros(N_GRID)), 5.0)


def test_a_loop_that_is_closed_meanwhile_ends_the_measurement(virtual: VirtualBeam) -> None:
    virtual.ask("build_interaction_matrix", {"wait": False})
    wait_for(lambda: virtual.beam.jobs.status.fraction > 0.01)
    virtual.beam.set_loops(lo=LoopState.CLOSED, force=True)
    wait_for(lambda: virtual.beam.jobs.status.state == "failed")
    assert "opened or closed meanwhile" in virtual.beam.jobs.status.error
    virtual.beam.set_loops(lo=LoopState.OPEN)
    virtual.wait_frames(3)
    assert not virtual.command().any()


def test_another_basis_is_the_sum_of_its_actuators(virtual: VirtualBeam) -> None:
    if virtual.beam.interaction.newest is None or virtual.beam.interaction.newest.basis != "zonal":
        pytest.skip("needs the zonal matrix measured before")
    zonal = virtual.beam.interaction.newest
    reply = virtual.ask(
        "build_interaction_matrix",
        {"basis": "zernike", "modes": 3, "poke": 0.05, "n_iter": 2, "sleep_s": 0, "frames": 20},
    )
    assert reply["modes"] == 3
    matrix = virtual.beam.interaction.newest
    assert matrix is not None
    actuators = np.delete(np.arange(N_GRID), [0, 11, 132, 143])
    expected = matrix.shapes[:, actuators] @ zonal.signals
    assert np.linalg.norm(matrix.signals - expected) < 0.1 * np.linalg.norm(expected)
    with pytest.raises(RequestError, match="zonal"):
        virtual.ask("compute_reconstructor")
    with pytest.raises(RequestError, match="does not exist"):
        virtual.ask("build_interaction_matrix", {"basis": "nope"})
