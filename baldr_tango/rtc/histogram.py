"""Percentiles of the last seconds, from a histogram that only ever grows."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.kernels.loop_data import BIN_NS


def percentile_us(bins: NDArray[np.int64], percent: float) -> float:
    """Percentile of a histogram of times [us]: the centre of the bin it falls into; 0 when empty.

    bins : (n,) counts; bin i holds times from ``i * BIN_NS`` on
    """
    total = int(bins.sum())
    if total == 0:
        return 0.0
    place = int(np.searchsorted(np.cumsum(bins), percent / 100.0 * total, side="left"))
    return (min(place, bins.size - 1) + 0.5) * BIN_NS / 1000.0


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

    def clear(self) -> None:
        """Forget everything, for a histogram that has been replaced."""
        self._snapshots.clear()

    def percentiles(self, *percents: float) -> tuple[float, ...]:
        """Percentiles [us] between the oldest and the newest snapshot."""
        if not self._snapshots:
            return tuple(0.0 for _ in percents)
        oldest = self._snapshots[0] if len(self._snapshots) > 1 else np.zeros_like(self._snapshots[0])
        recent = self._snapshots[-1] - oldest
        return tuple(percentile_us(recent, percent) for percent in percents)
