"""Optics of the virtual instrument against the formulas of the literature."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import ConfigError
from baldr_tango.kernels.plants import (
    OPD_RMS,
    STREHL,
    TRUTH,
    OpticalPlant,
    field_and_strehl,
    optical_frame,
    zernike_image,
)
from baldr_tango.names import CORNERS, N_GRID
from baldr_tango.simulator.masks import MASKS
from baldr_tango.simulator.optical import optical_plant, pupil_of
from baldr_tango.simulator.optics import (
    bessel_j1,
    circular_pupil,
    influence_functions,
    reference_wave,
    reference_wave_kernel,
)

QUIET = replace(
    SimulatorSettings(), turbulence=False, residual_rms_nm=0.0, tip_tilt_rms_nm=0.0, wind_speed_m_s=0.0
)
NORMALS = np.zeros(200, dtype=np.float32)


def plant_of(settings: SimulatorSettings) -> OpticalPlant:
    return optical_plant(settings, (1,), samples=64)


def image_of(plant: OpticalPlant, phase: NDArray[np.float64], mask: int = 1) -> NDArray[np.float32]:
    """Frame of a phase map [rad] on the pupil's pixels, as a fraction of the light that enters."""
    field = (plant.weights * np.stack([np.cos(phase), np.sin(phase)])).astype(np.float32)
    pixels = plant.spread.shape[1]
    image = np.empty(pixels, dtype=np.float32)
    zernike_image(plant, field, mask, np.empty((2, pixels), dtype=np.float32), image)
    return image


def inner_pixel(settings: SimulatorSettings) -> int:
    """Position, among the pupil's pixels, of one half way between the secondary and the edge."""
    pupil = pupil_of(settings)
    return int(np.argmin(np.hypot(pupil.rows - 2.5, pupil.columns - 2.5)))


def test_bessel_function_has_its_known_values_and_zeros() -> None:
    # Abramowitz & Stegun, tables 9.1 and 9.5
    assert bessel_j1([0.5, 1.0, 5.0]) == pytest.approx([0.2422684577, 0.4400505857, -0.3275791376], abs=1e-10)
    assert bessel_j1([3.8317059702, 7.0155866698, 10.1734681351]) == pytest.approx([0, 0, 0], abs=1e-9)


def test_pupil_has_the_area_of_a_disc_less_its_secondary() -> None:
    pupil = circular_pupil(12.0, 0.3)
    assert pupil.amplitude.sum() == pytest.approx(math.pi * 36 * (1 - 0.3**2), rel=2e-3)
    assert np.array_equal(pupil.amplitude, pupil.amplitude.T)
    assert np.array_equal(pupil.amplitude, pupil.amplitude[::-1])
    edge = pupil.amplitude[(pupil.amplitude > 0) & (pupil.amplitude < 1)]
    assert edge.size > 20


@pytest.mark.parametrize(("diameter", "secondary"), [(33.0, 0.1), (1.0, 0.1), (12.0, 1.0)])
def test_impossible_pupils_are_refused(diameter: float, secondary: float) -> None:
    with pytest.raises(ConfigError, match="pupil_pixels"):
        circular_pupil(diameter, secondary)


def test_tilts_have_unit_rms_and_no_piston() -> None:
    pupil = circular_pupil(11.3, 0.2)
    weights = pupil.weights / pupil.weights.sum()
    tilts = pupil.tilts()
    assert (tilts**2) @ weights == pytest.approx([1, 1])
    assert tilts @ weights == pytest.approx([0, 0], abs=1e-12)
    assert (tilts[0] * tilts[1]) @ weights == pytest.approx(0, abs=1e-12)
    assert np.all(np.diff(tilts[0][np.argsort(pupil.columns)]) >= -1e-12)


def test_reference_wave_is_the_focal_plane_integral_over_the_disc() -> None:
    """Two Fourier transforms with Gauss quadrature over the disc, for a strongly aberrated field."""
    pupil = circular_pupil(12.0, 0.14)
    diameter = 1.06
    rng = np.random.default_rng(3)
    field = pupil.weights * np.exp(1j * rng.normal(0, 0.8, pupil.pixels.size))
    nodes, node_weights = np.polynomial.legendre.leggauss(24)
    radius = (nodes + 1) * diameter / 4
    angle = 2 * np.pi * np.arange(96) / 96
    u = (radius[:, None] * np.cos(angle)).ravel()
    v = (radius[:, None] * np.sin(angle)).ravel()
    area = np.repeat(node_weights * diameter / 4 * radius, 96) * 2 * np.pi / 96
    step = 1 / pupil.diameter
    forward = np.exp(-2j * np.pi * step * (np.outer(u, pupil.columns) + np.outer(v, pupil.rows)))
    focal = (forward @ field) * step**2
    axis = np.arange(pupil.side) - pupil.centre
    rows, columns = (x.ravel() for x in np.meshgrid(axis, axis, indexing="ij"))
    back = np.exp(2j * np.pi * step * (np.outer(columns, u) + np.outer(rows, v)))
    expected = back @ (area * focal)
    wave = reference_wave(pupil, diameter, accuracy=1e-4)
    found = wave.spread.T @ (wave.project @ field)
    assert wave.error < 1e-4
    assert wave.project.shape[0] < 20
    assert np.abs(found - expected).max() < 3e-4 * np.abs(expected).max()
    assert reference_wave_kernel(pupil, diameter) @ field == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("depth", [math.pi / 2, 0.4 * math.pi, -math.pi / 2, math.pi])
def test_response_to_a_phase_step_is_that_of_ndiaye(depth: float) -> None:
    """N'Diaye et al. 2013, eq. 11 to 13, with P = 1.

    I = 1 + 2 b^2 (1 - cos theta) + 2 b [sin phi sin theta - cos phi (1 - cos theta)]

    The step is one pixel, so that b stays close to that of the flat wavefront, b0, as their
    equations suppose. It moves by the pixel's own share, which bounds the difference.
    """
    settings = replace(QUIET, mask_depth_rad=depth)
    plant = plant_of(settings)
    pupil = pupil_of(settings)
    k = inner_pixel(settings)
    kernel = reference_wave_kernel(pupil, settings.mask_diameter_lambda_over_d)[pupil.pixels[k]]
    b0 = float(kernel @ pupil.weights)
    own = float(kernel[k] * pupil.weights[k])
    energy = float((pupil.weights**2).sum())
    assert pupil.weights[k] == 1.0
    assert 0.4 < b0 < 0.7
    for step in np.linspace(-math.pi, math.pi, 25):
        phase = np.zeros(pupil.pixels.size)
        phase[k] = step
        found = energy * image_of(plant, phase)[pupil.pixels[k]]
        formula = (
            1.0
            + 2 * b0**2 * (1 - math.cos(depth))
            + 2 * b0 * (math.sin(step) * math.sin(depth) - math.cos(step) * (1 - math.cos(depth)))
        )
        move = abs(cmath.exp(1j * depth) - 1) * own * abs(cmath.exp(1j * step) - 1)
        assert found == pytest.approx(formula, abs=2 * math.sqrt(formula) * move + move**2 + 1e-3)
        moved = b0 + own * (cmath.exp(1j * step) - 1)
        exact = abs(cmath.exp(1j * step) + (cmath.exp(1j * depth) - 1) * moved) ** 2
        assert found == pytest.approx(exact, abs=1e-3)


def test_slope_about_zero_is_two_b0_sine_of_the_depth() -> None:
    """Derivative of N'Diaye's equation at zero phase, for a mask that is not a quarter wave."""
    settings = replace(QUIET, mask_depth_rad=0.35 * math.pi)
    plant = plant_of(settings)
    pupil = pupil_of(settings)
    k = inner_pixel(settings)
    kernel = reference_wave_kernel(pupil, settings.mask_diameter_lambda_over_d)[pupil.pixels[k]]
    phase = np.zeros((2, pupil.pixels.size))
    phase[:, k] = 0.05, -0.05
    images = [image_of(plant, p)[pupil.pixels[k]] for p in phase]
    slope = float((pupil.weights**2).sum()) * float(images[0] - images[1]) / 0.1
    assert slope == pytest.approx(2 * float(kernel @ pupil.weights) * math.sin(0.35 * math.pi), rel=0.02)


def test_the_mask_loses_no_light() -> None:
    """A phase mask only moves light: what a frame lacks has passed its edge, as 1 / width of the frame."""
    pupil = circular_pupil(12.0, 0.14)
    rng = np.random.default_rng(5)
    field = pupil.weights * np.exp(1j * rng.normal(0, 0.3, pupil.pixels.size))
    energy = float((pupil.weights**2).sum())
    missing = []
    for side in (32, 128):
        axis = np.arange(side) - (side - 1) / 2
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        wave = (cmath.exp(0.5j * math.pi) - 1) * (reference_wave_kernel(pupil, 1.06, points) @ field)
        places = ((pupil.rows + (side - 1) / 2) * side + pupil.columns + (side - 1) / 2).astype(int)
        wave[places] += field
        missing.append(1 - float((np.abs(wave) ** 2).sum()) / energy)
    assert 0 < missing[0] < 0.12
    assert missing[1] == pytest.approx(missing[0] * 32 / 128, rel=0.25)


def test_without_mask_the_frame_is_the_pupil() -> None:
    plant = plant_of(QUIET)
    pupil = pupil_of(QUIET)
    phase = np.random.default_rng(2).normal(0, 1, pupil.pixels.size)
    image = image_of(plant, phase, mask=0)
    assert image.sum() == pytest.approx(1, abs=1e-5)
    assert image.reshape(32, 32) == pytest.approx(pupil.amplitude**2 / (pupil.amplitude**2).sum(), abs=1e-7)


def test_influence_functions_couple_to_their_neighbours() -> None:
    pupil = circular_pupil(12.0, 0.0)
    grid = (np.arange(12) - 5.5) * 1.2
    places = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2)
    shapes = influence_functions(pupil, 1.2, 0.13, places)
    middle = 5 * 12 + 6
    assert shapes[middle, middle] == pytest.approx(1)
    assert shapes[middle, [middle + 1, middle - 1, middle + 12, middle - 12]] == pytest.approx([0.13] * 4)
    assert shapes[middle, middle + 13] == pytest.approx(0.13**2)
    assert shapes[middle, middle + 2] == pytest.approx(0.13**4)
    assert not shapes[list(CORNERS)].any()
    with pytest.raises(ConfigError, match="coupling"):
        influence_functions(pupil, 1.2, 1.0)


def test_the_mirror_corrects_what_it_is_told() -> None:
    """One actuator up by x DM units: OPD x times nm_per_dm_unit at its place, seen in truth and image."""
    plant = plant_of(QUIET)
    pupil = pupil_of(QUIET)
    command = np.zeros(N_GRID)
    command[4 * 12 + 7] = 0.01
    truth = np.zeros(len(TRUTH))
    scratch = np.zeros((4, pupil.pixels.size), dtype=np.float32)
    image = np.zeros(1024, dtype=np.float32)
    wave = np.zeros((2, 1024), dtype=np.float32)
    optical_frame(plant, 0, command, 1e-3, False, 1, NORMALS, 0, scratch, wave, image, truth)
    shape = 70.0 * influence_functions(pupil, 1.2, 0.15)[4 * 12 + 7]
    weights = pupil.weights / pupil.weights.sum()
    expected = math.sqrt(float(weights @ (shape - weights @ shape) ** 2))
    assert truth[OPD_RMS] == pytest.approx(expected, rel=1e-4)
    assert image == pytest.approx(image_of(plant, shape * 2 * math.pi / 1650), abs=1e-6)


def test_strehl_is_exact_and_close_to_marechal_for_small_errors() -> None:
    pupil = pupil_of(QUIET)
    weights = pupil.weights.astype(np.float32)
    field = np.empty((2, weights.size), dtype=np.float32)
    wavenumber = 2 * math.pi / 1650
    rng = np.random.default_rng(11)
    share = pupil.weights / pupil.weights.sum()
    for rms in (20.0, 60.0, 120.0):
        opd = rng.normal(0, 1, weights.size)
        opd -= share @ opd
        opd *= rms / math.sqrt(float(share @ opd**2))
        found = field_and_strehl(opd.astype(np.float32), weights, wavenumber, field)
        exact = abs(np.sum(share * np.exp(1j * wavenumber * opd))) ** 2
        assert found == pytest.approx(exact, rel=1e-5)
        sigma = wavenumber * rms
        # Marechal holds up to terms of order sigma^4.
        assert found == pytest.approx(math.exp(-(sigma**2)), abs=0.5 * sigma**4 + 1e-6)
    assert field_and_strehl(
        np.full(weights.size, 400, np.float32), weights, wavenumber, field
    ) == pytest.approx(1)


def test_truth_of_a_flat_wavefront() -> None:
    plant = plant_of(QUIET)
    truth = np.zeros(len(TRUTH))
    n = plant.pixels.size
    optical_frame(
        plant, 0, np.zeros(N_GRID), 1e-3, True, 1, NORMALS, 0, np.zeros((4, n), np.float32),
        np.zeros((2, 1024), np.float32), np.zeros(1024, np.float32), truth,
    )  # fmt: skip
    assert truth[STREHL] == pytest.approx(1, abs=1e-6)
    assert truth[OPD_RMS] == pytest.approx(0, abs=1e-3)


def bessel_j0(x: float) -> float:
    """Bessel's integral (Abramowitz & Stegun 9.1.18), by the trapezoidal rule."""
    return float(np.cos(x * np.sin((np.arange(400) + 0.5) * math.pi / 400)).mean())


@pytest.mark.parametrize("mask", MASKS)
def test_each_mask_has_the_response_of_its_diameter_and_depth(mask: str) -> None:
    """b and slope on the axis of a clear round pupil, from the dot's dimensions alone.

    N'Diaye et al. 2013, A&A 555, A94: there b = 1 - J0(pi d / 2) for a dot of d lambda/D; a flat wavefront
    gives I = 1 - 2 b (1 - b) (1 - cos theta), with the slope 2 b sin theta. The reference wave of the
    parts of a pixel on 23 pixels is within some per cent of that.
    """
    depth_um = 0.474 if mask.startswith("J") else 0.654
    diameters_um = {"J": (54, 44, 36, 32, 65), "H": (68, 53, 44, 37, 31)}
    diameter_um = diameters_um[mask[0]][int(mask[1]) - 1]
    settings = replace(
        QUIET,
        pupil_pixels=23.0,
        secondary_ratio=0.0,
        mask_diameter_lambda_over_d=1.06,
        mask_depth_rad=0.5 * math.pi,
    )
    b = 1.0 - bessel_j0(math.pi * 1.06 * diameter_um / 44.0 / 2.0)
    theta = 0.5 * math.pi * depth_um / 0.654
    plant = optical_plant(settings, (1,), samples=64, masks=(mask,))
    pupil = pupil_of(settings)
    k = int(np.argmin(np.hypot(pupil.rows, pupil.columns)))
    energy = float((pupil.weights**2).sum())
    at = pupil.pixels[k]

    def intensity(step: float) -> float:
        phase = np.zeros(pupil.pixels.size)
        phase[k] = step
        return energy * float(image_of(plant, phase)[at])

    flat = 1.0 - 2.0 * b * (1.0 - b) * (1.0 - math.cos(theta))
    assert intensity(0.0) == pytest.approx(flat, abs=0.02)
    slope = (intensity(0.05) - intensity(-0.05)) / 0.1
    assert slope == pytest.approx(2.0 * b * math.sin(theta), rel=0.03)


def test_masks_differ_and_the_configured_one_is_as_configured() -> None:
    plant = optical_plant(QUIET, (1,), samples=64, masks=MASKS)
    alone = optical_plant(QUIET, (1,), samples=64)
    phase = np.random.default_rng(4).normal(0, 0.5, plant.pixels.size)
    images = [image_of(plant, phase, number) for number in range(len(MASKS) + 1)]
    assert np.array_equal(images[MASKS.index("H3") + 1], image_of(alone, phase, 1))
    for k, one in enumerate(images):
        for other in images[:k]:
            assert np.abs(one - other).max() > 0.02 * images[0].max()
