"""Percentiles since the start and of the last seconds, from a histogram of times that only ever grows.

Bins are 64 ns wide up to 8 us; from there on each doubling of the time has 64 bins, 1.6 % of the time at
the most, up to 8 s (`kernels.loop_timing.bin_of` counts into them).
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.kernels.loop_data import BIN_SHIFT, N_BINS, OCTAVE_BINS


def _edges_ns() -> NDArray[np.int64]:
    """Lower edges of all bins, and the upper one of the last: (N_BINS + 1,) [ns]."""
    place = np.arange(N_BINS + 1)
    octave = np.maximum(place // OCTAVE_BINS - 1, 0)
    return (place - octave * OCTAVE_BINS) << (octave + BIN_SHIFT)


EDGES_NS: Final = _edges_ns()
_CENTRES_US: Final = (EDGES_NS[:-1] + EDGES_NS[1:]) / 2000.0


def percentile_us(bins: NDArray[np.int64], percent: float) -> float:
    """Percentile of a histogram of times [us]: the centre of the bin it falls into; 0 when empty.

    The percentile is the smallest time that is not exceeded by this part of all times: numpy's method
    ``inverted_cdf``.

    bins : (N_BINS,) counts; bin i holds times from ``EDGES_NS[i]`` on
    """
    total = int(bins.sum())
    if total == 0:
        return 0.0
    least = max(percent * total / 100.0, 1.0)
    place = int(np.searchsorted(np.cumsum(bins), least, side="left"))
    return float(_CENTRES_US[min(place, bins.size - 1)])


class RecentPercentiles:
    """Percentiles over a sliding window, from snapshots of a growing histogram.

    Parameters
    ----------
    window : snapshots to look back; with one snapshot per second, the window in seconds
    """

    def __init__(self, window: int = 10) -> None:
        self._snapshots: deque[NDArray[np.int64]] = deque(maxlen=window + 1)

    def add(self, bins: ArrayLike) -> None:
        """Take a snapshot of the histogram."""
        self._snapshots.append(np.array(bins, dtype=np.int64))

    def percentiles(self, *percents: float) -> tuple[float, ...]:
        """Percentiles [us] between the oldest and the newest snapshot; 100 is the largest time."""
        if not self._snapshots:
            return tuple(0.0 for _ in percents)
        recent = self._snapshots[-1] - self._snapshots[0]
        return tuple(percentile_us(recent, percent) for percent in percents)

    def percentiles_since_start(self, *percents: float) -> tuple[float, ...]:
        """Percentiles [us] of all that the newest snapshot holds."""
        if not self._snapshots:
            return tuple(0.0 for _ in percents)
        return tuple(percentile_us(self._snapshots[-1], percent) for percent in percents)
