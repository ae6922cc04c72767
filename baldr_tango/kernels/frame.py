"""From a raw camera frame to the wavefront-sensor signal at the actuators."""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.linear import copy


@kernel
def select(values: Any, rank: int) -> Any:
    """Return the value of a given rank, 0 the smallest; reorders `values` in place (Hoare's quickselect)."""
    low = 0
    high = values.size - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                held = values[i]
                values[i] = values[j]
                values[j] = held
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return values[rank]


@kernel
def median(values: Any) -> Any:
    """Median, the mean of the two middle values for an even number; `values` is reordered in place."""
    middle = values.size // 2
    upper = select(values, middle)
    if values.size % 2 == 1:
        return upper
    # After the selection every value below the middle is at most `upper`.
    lower = values[0]
    for i in range(1, middle):
        lower = max(lower, values[i])
    return (lower + upper) * np.float32(0.5)


@kernel
def subtract_dark(raw: Any, dark: Any, weights: Any, out: Any) -> float:
    """Subtract the dark and return the flux, the weighted sum of the result [ADU].

    raw : (P,) int32 frame [ADU]
    dark : (P,) float32 [ADU per frame]
    weights : (P,) float32 share of each pixel in the flux; 0 for a repaired bad pixel
    out : (P,) float32, overwritten
    """
    flux = 0.0
    for i in range(raw.size):
        value = np.float32(raw[i]) - dark[i]
        out[i] = value
        flux += np.float64(weights[i] * value)
    return flux


@kernel
def repair_with_median(image: Any, bad_pixels: Any, scratch: Any) -> float:
    """Replace bad pixels by the median of the whole unrepaired frame and return the new flux [ADU].

    The legacy rule (baldr rtc step 4). image : (P,) float32, changed in place; bad_pixels : (k,) flat
    indices; scratch : (P,) float32, overwritten.
    """
    copy(image, scratch)
    value = median(scratch)
    for k in range(bad_pixels.size):
        image[bad_pixels[k]] = value
    flux = 0.0
    for i in range(image.size):
        flux += np.float64(image[i])
    return flux


@kernel
def burst_slope(frames: Any, written: int, raw: Any, weights: Any, flux_weights: Any, out: Any) -> float:
    """Least-squares slope of the reads since the last reset, per frame; return its flux [ADU].

    In non-destructive read-out each frame is the charge collected since the reset; the slope is the light
    of one frame, and the pedestal drops out (Fowler and Gatley 1990; Offenberg et al. 2001, PASP 113, 240).

    frames : (capacity, P) int32 ring of earlier frames; frame i is in row ``i % capacity``
    written : frames in the ring so far
    raw : (P,) int32 this read
    weights : (m,) float32 slope weights of m reads, oldest first
    flux_weights, out : (P,) float32; `out` is overwritten
    """
    last = weights.size - 1
    for i in range(raw.size):
        out[i] = weights[last] * np.float32(raw[i])
    for j in range(last):
        row = frames[(written - last + j) % frames.shape[0]]
        for i in range(raw.size):
            out[i] += weights[j] * np.float32(row[i])
    flux = 0.0
    for i in range(raw.size):
        flux += np.float64(flux_weights[i] * out[i])
    return flux


@kernel
def mean_of(image: Any, pixels: Any) -> float:
    """Mean of some pixels; NaN when there are none. image : (P,), pixels : (k,) flat indices."""
    if pixels.size == 0:
        return np.nan
    total = 0.0
    for k in range(pixels.size):
        total += np.float64(image[pixels[k]])
    return total / pixels.size


@kernel
def sensor_signal(image: Any, flux: float, reference: Any, inverse_clear_pupil: Any, signal: Any) -> None:
    """Normalise the actuator-space image and compare it with the references.

    ``image_dm = image / flux``; ``signal = (image_dm - I0) / N0`` (N'Diaye et al. 2013, eq. 14, as the
    legacy controller applies it after the interpolation to the actuators).

    image : (A,) float32 dark-subtracted intensity at the actuators [ADU], divided by `flux` in place
    reference : (A,) float32 intensity with the phase mask, per unit flux
    inverse_clear_pupil : (A,) float32 1/N0; 0 where the clear pupil carries no light
    signal : (A,) float32, overwritten
    """
    scale = np.float32(1.0 / flux)
    for i in range(image.size):
        value = image[i] * scale
        image[i] = value
        signal[i] = (value - reference[i]) * inverse_clear_pupil[i]


@kernel
def boxcar(history: Any, written: int, signal: Any, weights: Any, out: Any) -> None:
    """Average the newest signals, this frame's included, with given weights.

    history : (capacity, A) float32 ring of earlier signals; record i is in row ``i % capacity``
    written : records in the ring so far, at least ``weights.size - 1``
    signal : (A,) float32 this frame's signal
    weights : (b,) float32, oldest first, sum 1
    out : (A,) float32, overwritten
    """
    last = weights.size - 1
    for i in range(signal.size):
        out[i] = weights[last] * signal[i]
    for j in range(last):
        row = history[(written - last + j) % history.shape[0]]
        for i in range(signal.size):
            out[i] += weights[j] * row[i]


@kernel
def accumulate(image: Any, gain: float, mean: Any, variance: Any) -> None:
    """Update the running mean and variance of the actuator-space image.

    With ``gain = 1/n`` for the n-th frame this is the exact mean and population variance (Welford 1962);
    with a constant gain it forgets exponentially (West 1979).

    image : (A,); mean, variance : (A,) float32, changed in place
    """
    g = np.float32(gain)
    for i in range(image.size):
        delta = image[i] - mean[i]
        mean[i] += g * delta
        variance[i] = (np.float32(1.0) - g) * (variance[i] + g * delta * delta)


@kernel
def signal_to_noise(mean: Any, variance: Any, correction: float) -> float:
    """Mean over actuators of temporal mean over standard deviation; 0 when nothing varies.

    mean, variance : (A,); correction : factor from population to sample variance, n/(n-1)
    """
    total = 0.0
    counted = 0
    for i in range(mean.size):
        if variance[i] > 0.0:
            total += mean[i] / np.sqrt(variance[i] * correction)
            counted += 1
    return total / counted if counted > 0 else 0.0
