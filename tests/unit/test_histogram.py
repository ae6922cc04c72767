"""Histograms of times against the times themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.loop_timing import bin_of
from baldr_tango.rtc.histogram import EDGES_NS, RecentPercentiles, percentile_us

SECOND = 1_000_000_000
interpreted = getattr(bin_of, "py_func", bin_of)

times = arrays.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, 5 * SECOND))
"""Any times that a loop may meet [ns]."""


def histogram(values, counter=bin_of):
    """Count times [ns] as the loop does."""
    bins = np.zeros(d.N_BINS, dtype=np.int64)
    for value in values:
        bins[counter(int(value))] += 1
    return bins


def test_bins_follow_each_other_and_are_narrow_everywhere():
    widths = np.diff(EDGES_NS)
    assert np.all(widths > 0)
    assert EDGES_NS[0] == 0
    assert EDGES_NS[-1] > 8 * SECOND
    assert np.all(widths[EDGES_NS[:-1] < 8000] < 1000), "microseconds are told apart"
    assert np.all(widths <= np.maximum(64, EDGES_NS[:-1] / 64))


@settings(deadline=None)
@given(st.integers(0, 8 * SECOND))
def test_a_time_falls_between_the_edges_of_its_bin(ns):
    place = bin_of(ns)
    assert place == interpreted(ns)
    assert EDGES_NS[place] <= ns < EDGES_NS[place + 1]


@pytest.mark.parametrize("counter", [bin_of, interpreted])
def test_times_out_of_range_go_to_the_ends(counter):
    assert counter(-5) == 0
    assert counter(1 << 62) == d.N_BINS - 1


@settings(deadline=None)
@given(times, st.sampled_from([0.0, 25.0, 50.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_those_of_numpy_within_a_bin(values, percent):
    exact = float(np.percentile(values, percent, method="inverted_cdf")) / 1000.0
    assert percentile_us(histogram(values), percent) == pytest.approx(exact, rel=1 / 127, abs=0.0321)


def test_percentiles_of_a_long_tail():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(12_000, 800, 100_000), rng.uniform(1e6, 9e6, 150)]).astype(np.int64)
    bins = histogram(values)
    for percent in (50.0, 99.0, 99.9, 99.99):
        exact = float(np.percentile(values, percent)) / 1000.0
        assert percentile_us(bins, percent) == pytest.approx(exact, rel=0.02)


def test_an_empty_histogram_has_percentiles_of_zero():
    assert percentile_us(np.zeros(d.N_BINS, dtype=np.int64), 99.0) == 0.0
    assert RecentPercentiles().percentiles(50.0, 100.0) == (0.0, 0.0)


@settings(deadline=None)
@given(st.lists(times, min_size=2, max_size=8), st.integers(1, 5))
def test_a_window_holds_the_newest_snapshots_only(seconds, window):
    """Each second adds its times; percentiles are those of the last ones, and of all."""
    recent = RecentPercentiles(window)
    bins = np.zeros(d.N_BINS, dtype=np.int64)
    recent.add(bins)
    for values in seconds:
        bins += histogram(values)
        recent.add(bins)
    for percent in (50.0, 99.0, 100.0):
        expected = percentile_us(histogram(np.concatenate(seconds[-window:])), percent)
        assert recent.percentiles(percent) == (expected,)
        assert recent.percentiles_since_start(percent) == (
            percentile_us(histogram(np.concatenate(seconds)), percent),
        )
