"""Threads that wake at absolute times: when they are due, and how a camera of them posts."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels import pacing
from baldr_tango.kernels.libc import address_of, sem_trywait
from baldr_tango.rtc.private_streams import stream_scratch, stream_table

PERIOD_NS = 500_000


@settings(deadline=None)  # the first call may compile
@given(st.integers(0, 10**15), st.integers(1, 10**9), st.integers(-(10**9), 10**11))
def test_the_next_deadline_is_the_first_one_that_is_not_over(deadline, period, late):
    now = deadline + late
    found = int(pacing.next_deadline(deadline, period, now))
    assert found > max(now, deadline)
    assert (found - deadline) % period == 0
    assert found - period <= max(now, deadline)


def _plain(kernel):
    """The function as plain Python; itself where nothing is compiled."""
    return getattr(kernel, "py_func", kernel)


@pytest.mark.parametrize("form", [lambda kernel: kernel, _plain], ids=["compiled", "plain"])
def test_sleeps_end_at_their_times_or_later(form):
    due, late = np.zeros(100, dtype=np.int64), np.zeros(100, dtype=np.int64)
    first = time.monotonic_ns() + PERIOD_NS
    count = form(pacing.watch_sleeps)(
        np.zeros(1, dtype=np.int64), first, PERIOD_NS, first + 20 * PERIOD_NS, due, late
    )
    assert 1 <= count <= 20
    due, late = due[:count], late[:count]
    assert due[0] == first
    assert np.all((due - first) % PERIOD_NS == 0)
    assert np.all(due < first + 20 * PERIOD_NS)
    assert np.all(np.diff(due) > 0)
    assert np.all(late >= 0)
    # A time that was over before the sleep before it had ended is left out.
    assert np.all(due[1:] > due[:-1] + late[:-1])
    assert np.all(due[1:] <= due[:-1] + late[:-1] + PERIOD_NS)


def test_a_watch_that_is_told_to_end_does():
    due = np.zeros(5, dtype=np.int64)
    far = time.monotonic_ns() + 10**15
    assert pacing.watch_sleeps(np.ones(1, dtype=np.int64), 0, PERIOD_NS, far, due, due.copy()) == 0


def test_no_more_sleeps_are_noted_than_there_is_room_for():
    due = np.zeros(3, dtype=np.int64)
    begin = time.monotonic_ns()
    found = pacing.watch_sleeps(
        np.zeros(1, dtype=np.int64), begin, PERIOD_NS, begin + 10**15, due, due.copy()
    )
    assert found == 3


@pytest.mark.parametrize("form", [lambda kernel: kernel, _plain], ids=["compiled", "plain"])
def test_a_camera_writes_counts_and_posts_its_frames_in_turn(form):
    frames = np.arange(2 * 16, dtype=np.int32).reshape(2, 16)
    semaphore = np.zeros(4, dtype=np.int64)
    posted = np.zeros(5, dtype=np.int64)
    file = os.memfd_create("test")
    try:
        begin = time.monotonic_ns()
        count = form(pacing.post_frames)(
            np.zeros(1, dtype=np.int64),
            stream_table(file),
            address_of(semaphore),
            frames,
            begin,
            PERIOD_NS,
            begin + 10**15,
            stream_scratch(),
            posted,
        )
        words = np.frombuffer(os.pread(file, d.HEADER_WORDS * 8, 0).ljust(d.HEADER_WORDS * 8), np.int64)
        pixels = np.frombuffer(os.pread(file, 64, d.HEADER_WORDS * 8), np.int32)
    finally:
        os.close(file)
    assert count == 5
    assert words[d.CNT0_WORD] == 5
    assert words[d.WRITE_WORD] & 0xFF == 0
    np.testing.assert_array_equal(pixels, frames[4 % 2])
    assert np.all(np.diff(posted) > 0)
    assert posted[0] >= begin
    assert sum(bool(sem_trywait(address_of(semaphore))) for _ in range(20)) == 5
