"""From a raw camera frame to the wavefront-sensor signal at the actuators."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.linear import copy
from baldr_tango.kernels.loop_data import FLAG_SKIPPED

# Elements of the sums over a burst of non-destructive reads.
CHARGE: Final = 0
"""Flux of the newest read: light collected since the reset [ADU]."""
READS: Final = 1
"""Number of reads."""
TIMES: Final = 2
"""Sum of their times [frames]."""
SQUARES: Final = 3
"""Sum of their squared times [frames^2]."""
N_SUMS: Final = 4


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
def subtract_dark(
    raw: Any, dark: Any, weights: Any, saturation: Any, negative: Any, out: Any
) -> tuple[float, int, int]:
    """Subtract the dark; return the flux [ADU], and how many pixels are saturated and far below the dark.

    The flux is the weighted sum of the result. Pixels without weight are not counted.

    raw : (P,) int32 frame [ADU]
    dark : (P,) float32 [ADU per frame]
    weights : (P,) float32 share of each pixel in the flux; 0 for a repaired bad pixel
    saturation, negative : float32 a raw pixel from this value on is saturated; one that is further than that
        below the dark is negative [ADU]
    out : (P,) float32, overwritten
    """
    flux = 0.0
    saturated = 0
    below = 0
    for i in range(raw.size):
        level = np.float32(raw[i])
        value = level - dark[i]
        out[i] = value
        flux += np.float64(weights[i] * value)
        saturated += (level >= saturation) & (weights[i] != 0)
        below += (value < -negative) & (weights[i] != 0)
    return flux, saturated, below


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
def add_read(raw: Any, t: int, sums: Any, total: Any, moment: Any) -> None:
    """Add a non-destructive read to the sums of its burst.

    raw : (P,) int32 charge collected since the reset [ADU]
    t : frames since the first read of the burst; 0 begins a new one
    sums : (N_SUMS,), total, moment : (P,) float64 sum of the reads and of t times read, changed in place
    """
    time = np.float64(t)
    if t == 0:
        sums[READS] = 0.0
        sums[TIMES] = 0.0
        sums[SQUARES] = 0.0
        for i in range(raw.size):
            total[i] = 0.0
            moment[i] = 0.0
    sums[READS] += 1.0
    sums[TIMES] += time
    sums[SQUARES] += time * time
    for i in range(raw.size):
        value = np.float64(raw[i])
        total[i] += value
        moment[i] += time * value


@kernel
def burst_slope(sums: Any, total: Any, moment: Any, flux_weights: Any, out: Any) -> float:
    """Least-squares slope of the reads since the last reset, per frame; return its flux [ADU].

    In non-destructive read-out each frame is the charge collected since the reset; the slope is the light
    of one frame, and the pedestal drops out (Fowler and Gatley 1990; Offenberg et al. 2001, PASP 113, 240).
    A lost frame leaves a gap in the times, which the fit takes as it is.

    sums, total, moment : see `add_read`, at least two reads
    flux_weights, out : (P,) float32; `out` is overwritten
    """
    reads = sums[READS]
    determinant = reads * sums[SQUARES] - sums[TIMES] * sums[TIMES]
    flux = 0.0
    for i in range(out.size):
        slope = (reads * moment[i] - sums[TIMES] * total[i]) / determinant
        out[i] = np.float32(slope)
        flux += np.float64(flux_weights[i]) * slope
    return flux


@kernel
def mean_of(image: Any, pixels: Any) -> float:
    """Mean of some pixels; NaN when there are none. image : (P,), pixels : (k,) flat indices."""
    if pixels.size == 0:
        return np.nan
    total = 0.0
    for k in range(pixels.size):
        total += np.float64(image[np.uintp(pixels[k])])  # unsigned: no test for an index from the end
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
def boxcar(history: Any, flags: Any, written: int, signal: Any, frames: int, out: Any) -> None:
    """Average the newest signals, this frame's included, with a ramp that favours the newest.

    The weight of the k-th newest of N is N - k + 1, so every frame asked for counts; the legacy ramp gave
    its oldest frame none, and two frames did not differ from one. Frames without a signal are passed over;
    where the ring holds fewer than N, those there are make up the mean.

    history : (capacity, A) float32 ring of earlier signals; record i is in row ``i % capacity``
    flags : (capacity,) flags of these records
    written : records in the ring so far
    signal : (A,) float32 this frame's signal
    frames : N
    out : (A,) float32, overwritten
    """
    weight = np.float32(frames)
    total = weight
    for i in range(signal.size):
        out[i] = weight * signal[i]
    record = written - 1
    oldest = max(written - history.shape[0] + 1, 0)
    while weight > 1 and record >= oldest:
        row = record % history.shape[0]
        if flags[row] & FLAG_SKIPPED == 0:
            weight -= np.float32(1.0)
            total += weight
            for i in range(signal.size):
                out[i] += weight * history[row, i]
        record -= 1
    scale = np.float32(1.0) / total
    for i in range(signal.size):
        out[i] *= scale


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
    total = np.float32(0.0)
    counted = 0
    factor = np.float32(correction)
    for i in range(mean.size):
        if variance[i] > np.float32(0.0):
            total += mean[i] / np.sqrt(variance[i] * factor)
            counted += 1
    return np.float64(total) / counted if counted > 0 else 0.0
