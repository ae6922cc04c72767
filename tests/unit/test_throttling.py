"""The kernel's limit on real-time threads, from the files in which it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from baldr_tango.rtc.throttling import read_throttling, throttled_fraction


def kernel_files(root: Path, runtime: str, period: str) -> Path:
    """Write the two files of the limit below `root`."""
    directory = root / "proc/sys/kernel"
    directory.mkdir(parents=True)
    (directory / "sched_rt_runtime_us").write_text(runtime)
    (directory / "sched_rt_period_us").write_text(period)
    return root


@pytest.mark.parametrize(
    ("runtime", "period", "fraction", "pause_s"),
    [
        ("950000\n", "1000000\n", 0.05, 0.05),
        ("-1\n", "1000000\n", 0.0, 0.0),
        ("1000000\n", "1000000\n", 0.0, 0.0),
        ("0\n", "500000\n", 1.0, 0.5),
        ("unreadable", "1000000\n", 0.0, 0.0),
    ],
)
def test_the_share_that_is_kept_from_real_time_threads(tmp_path, runtime, period, fraction, pause_s):
    root = kernel_files(tmp_path, runtime, period)
    assert throttled_fraction(root) == pytest.approx(fraction)
    assert read_throttling(root).pause_s == pytest.approx(pause_s)


def test_a_kernel_without_these_files_has_no_limit(tmp_path):
    assert throttled_fraction(tmp_path) == 0.0


def test_this_machine_has_a_fraction():
    assert 0.0 <= throttled_fraction() <= 1.0
