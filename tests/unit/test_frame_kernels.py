"""From pixels to signal: each kernel against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.kernels.frame import (
    accumulate,
    boxcar,
    mean_of,
    median,
    repair_with_median,
    sensor_signal,
    signal_to_noise,
    subtract_dark,
)
from baldr_tango.kernels.loop_data import FLAG_SKIPPED


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101, 1024])
def test_median_is_numpys(rng, size):
    for _ in range(20):
        values = rng.normal(size=size).astype(np.float32)
        assert median(values.copy()) == pytest.approx(np.median(values), rel=1e-6)


def test_median_with_many_equal_values(rng):
    values = rng.integers(0, 3, 1000).astype(np.float32)
    assert median(values.copy()) == np.median(values)


def test_flux_of_a_bright_frame_is_exact_to_float64(rng):
    raw = rng.integers(50000, 60000, 1024).astype(np.int32)
    dark = rng.uniform(990, 1010, 1024).astype(np.float32)
    out = np.zeros(1024, dtype=np.float32)
    weights = np.ones(1024, dtype=np.float32)
    flux, _, _ = subtract_dark(raw, dark, weights, np.float32(1e6), np.float32(1e6), out)
    exact = raw.sum(dtype=np.float64) - dark.sum(dtype=np.float64)
    assert flux == pytest.approx(exact, rel=1e-7)
    np.testing.assert_allclose(out, raw - dark, rtol=1e-6)


def test_bad_pixels_take_the_median_of_the_unrepaired_frame(rng):
    image = rng.normal(100, 10, 64).astype(np.float32)
    image[[3, 40]] = [9000.0, -9000.0]
    expected = image.copy()
    expected[[3, 40]] = np.median(image)
    flux = repair_with_median(image, np.array([3, 40]), np.zeros(64, dtype=np.float32))
    np.testing.assert_array_equal(image, expected)
    assert flux == pytest.approx(expected.sum(dtype=np.float64))


def test_signal_is_zero_on_the_reference_and_scales_with_the_clear_pupil(rng):
    reference = rng.uniform(0.001, 0.002, 140).astype(np.float32)
    clear = rng.uniform(0.001, 0.002, 140).astype(np.float32)
    signal = np.zeros(140, dtype=np.float32)
    image = (reference * 5e4).astype(np.float32)
    sensor_signal(image, 5e4, reference, (1 / clear).astype(np.float32), signal)
    np.testing.assert_allclose(signal, 0, atol=1e-6)
    image = ((reference + 0.1 * clear) * 5e4).astype(np.float32)
    sensor_signal(image, 5e4, reference, (1 / clear).astype(np.float32), signal)
    np.testing.assert_allclose(signal, 0.1, rtol=1e-4)


def ramp(frames):
    return np.arange(frames) + 1.0


@pytest.mark.parametrize("frames", [2, 3, 10, 16])
def test_boxcar_is_a_ramp_in_which_every_frame_counts(rng, frames):
    signals = rng.normal(size=(30, 5)).astype(np.float32)
    ring, flags = np.zeros((16, 5), dtype=np.float32), np.zeros(16, dtype=np.uint16)
    for i, signal in enumerate(signals[:-1]):
        ring[i % 16] = signal
    out = np.zeros(5, dtype=np.float32)
    boxcar(ring, flags, 29, signals[-1], frames, out)
    np.testing.assert_allclose(
        out, np.average(signals[-frames:], axis=0, weights=ramp(frames)), rtol=1e-4, atol=1e-6
    )
    assert np.abs(out - signals[-1]).max() > 0.01


def test_boxcar_passes_over_frames_without_a_signal(rng):
    signals = rng.normal(size=(6, 5)).astype(np.float32)
    ring, flags = np.full((32, 5), 1e6, dtype=np.float32), np.full(32, FLAG_SKIPPED, dtype=np.uint16)
    for i, signal in enumerate(signals[:-1]):
        ring[2 * i], flags[2 * i] = signal, 0
    out = np.zeros(5, dtype=np.float32)
    boxcar(ring, flags, 10, signals[-1], 4, out)
    np.testing.assert_allclose(out, np.average(signals[-4:], axis=0, weights=ramp(4)), rtol=1e-4, atol=1e-6)


def test_boxcar_longer_than_the_history_is_the_mean_of_what_there_is(rng):
    signals = rng.normal(size=(4, 5)).astype(np.float32)
    ring = np.zeros((16, 5), dtype=np.float32)
    ring[:3] = signals[:3]
    out = np.zeros(5, dtype=np.float32)
    boxcar(ring, np.zeros(16, dtype=np.uint16), 3, signals[-1], 10, out)
    np.testing.assert_allclose(out, np.average(signals, axis=0, weights=[7, 8, 9, 10]), rtol=1e-4, atol=1e-6)


def test_running_statistics_are_the_samples_own(rng):
    samples = rng.normal(5.0, 0.5, (200, 7)).astype(np.float32)
    mean, variance = np.zeros(7, dtype=np.float32), np.zeros(7, dtype=np.float32)
    for n, sample in enumerate(samples, start=1):
        accumulate(sample, 1.0 / n, mean, variance)
    np.testing.assert_allclose(mean, samples.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, samples.var(axis=0), rtol=1e-3)
    expected = np.mean(samples.mean(axis=0) / samples.std(axis=0, ddof=1))
    assert signal_to_noise(mean, variance, 200 / 199) == pytest.approx(expected, rel=1e-3)


def test_snr_of_a_constant_image_is_zero():
    assert signal_to_noise(np.ones(3, dtype=np.float32), np.zeros(3, dtype=np.float32), 1.0) == 0.0


def test_mean_of_no_pixels_is_not_a_number():
    assert np.isnan(mean_of(np.ones(4, dtype=np.float32), np.array([], dtype=np.int64)))
    assert mean_of(np.arange(4, dtype=np.float32), np.array([1, 3])) == 2.0
