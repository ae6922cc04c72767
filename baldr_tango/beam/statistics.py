"""Figures that need a look at many frames: rates, percentiles, averages. Made off the loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop, RecentPercentiles
from baldr_tango.telemetry.ring import TelemetryRing

WINDOW_S: Final = 1.0
"""Time over which rates and averages are taken [s]."""


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of a time, of the newest window and since the start [us]."""

    p50: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0
    start_p50: float = 0.0
    start_p99: float = 0.0
    start_p999: float = 0.0

    @classmethod
    def of(cls, histogram: RecentPercentiles, longest_ns: int) -> Percentiles:
        """Read them off; none is larger than the largest time of all, which is known exactly."""
        recent = histogram.percentiles(50.0, 99.0, 99.9, 100.0)
        all_time = histogram.percentiles_since_start(50.0, 99.0, 99.9)
        return cls(*(min(value, longest_ns / 1000.0) for value in (*recent, *all_time)))


@dataclass(frozen=True)
class Figures:
    """Rates, percentiles and averages of the last second or seconds."""

    frame_rate: float = 0.0
    """[Hz]"""
    counted: Mapping[int, int] = field(default_factory=dict)
    """What the loop has counted within the window, by counter; those that moved."""
    latency: Percentiles = Percentiles()
    jitter: Percentiles = Percentiles()
    flux: float = 0.0
    """[ADU]"""
    strehl: float = 0.0
    rmse_est: float = 0.0
    residual_rms: float = 0.0
    """[nm]"""
    tip_tilt_rms: float = 0.0
    """[DM units]"""


class Statistics:
    """Watches the counters, histograms and ring of one loop."""

    def __init__(self, loop: RealTimeLoop, window_s: int = 10) -> None:
        """Begin to watch; percentiles are those of the newest `window_s` seconds."""
        self._loop = loop
        self._latency = RecentPercentiles(round(window_s / WINDOW_S))
        self._jitter = RecentPercentiles(round(window_s / WINDOW_S))
        self._time = time.monotonic()
        self._counters = loop.counters
        self._latency.add(loop.arrays.state.latency_bins)
        self._jitter.add(loop.arrays.state.jitter_bins)
        self.figures = Figures()

    def update(self) -> Figures:
        """Take the figures of the time since the last call; call it about once per `WINDOW_S`."""
        state = self._loop.arrays.state
        self._latency.add(state.latency_bins)
        self._jitter.add(state.jitter_bins)
        now, counters = time.monotonic(), self._loop.counters
        elapsed = max(now - self._time, 1e-6)
        change = counters - self._counters
        self._time, self._counters = now, counters
        self.figures = Figures(
            frame_rate=float(change[d.FRAMES]) / elapsed,
            counted={int(index): int(change[index]) for index in np.flatnonzero(change)},
            latency=Percentiles.of(self._latency, int(counters[d.LATENCY_MAX_NS])),
            jitter=Percentiles.of(self._jitter, int(counters[d.JITTER_MAX_NS])),
            **self._averages(int(change[d.FRAMES])),
        )
        return self.figures

    def _averages(self, frames: int) -> dict[str, float]:
        ring = self._loop.arrays.ring
        flags = recent(ring, "flags", frames)
        used = (flags & d.FLAG_SKIPPED) == 0
        if not used.any():
            return {}
        parameters = self._loop.parameters
        controlled = np.any(parameters.reconstructor_ho != 0.0, axis=1)
        error_ho = recent(ring, "e_HO", frames)[used][:, controlled].astype(np.float64)
        error_lo = recent(ring, "e_LO", frames)[used].astype(np.float64)
        residual = _rms(error_ho) * parameters.nm_per_dm_unit
        return {
            "flux": float(recent(ring, "flux", frames)[used].mean()),
            "strehl": float(recent(ring, "strehl", frames)[used].mean()),
            "rmse_est": float(np.nan_to_num(recent(ring, "rmse_est", frames)[used].mean())),
            "residual_rms": residual,
            "tip_tilt_rms": _rms(error_lo),
        }


def recent(ring: TelemetryRing, name: str, frames: int) -> NDArray[Any]:
    """Copy one field of the newest records: at most `frames` of them, the horizon and half the ring."""
    stop = ring.write_index
    start = max(ring.oldest, stop - min(frames, ring.horizon, ring.capacity // 2))
    parts = [ring.fields[name][part] for part in ring.slices(start, stop)]
    return np.concatenate(parts) if parts else ring.fields[name][:0].copy()


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values * values))) if values.size else 0.0
