"""Copies of the ring while it is filled, rings of another capacity, and the horizon."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.telemetry import ring as ring_module
from baldr_tango.telemetry.ring import capacity_for
from tests.unit.telemetry_support import assert_records, feed, make_ring


@settings(deadline=None, max_examples=60)
@given(old=st.integers(2, 40), written=st.integers(0, 120), new=st.integers(2, 60), newest=st.integers(0, 60))
def test_a_copy_has_the_newest_records_under_their_numbers(old, written, new, newest):
    ring = make_ring(old)
    feed(ring, written)
    copy = ring.copied(new, newest)
    expected = range(written - min(newest, new - 1, old - 1, written), written)
    assert (copy.oldest, copy.write_index) == (expected.start, written)
    first, records = copy.read(0, written)
    assert first == expected.start
    assert_records(records, expected)


@settings(deadline=None, max_examples=60)
@given(
    old=st.integers(2, 40),
    written=st.integers(0, 90),
    new=st.integers(2, 60),
    more=st.integers(0, 60),
    after=st.integers(0, 150),
)
def test_a_ring_that_follows_goes_on_where_the_other_one_stopped(old, written, new, more, after):
    ring = make_ring(old)
    feed(ring, written)
    copy = ring.copied(new)
    feed(ring, more)
    copy.follow(ring)
    assert copy.write_index == written + more
    kept = min(written + more, new - 1, old - 1 + (min(more, old - 1) if more < old else 0))
    held = range(copy.oldest, copy.write_index)
    assert len(held) <= min(kept, new - 1)
    assert len(held) >= min(written + more, new - 1, old - 1)
    assert_records(copy.read(0, copy.write_index)[1], held)
    feed(copy, after)
    stop = written + more + after
    assert_records(copy.read(0, stop)[1], range(max(held.start, stop - new + 1), stop))


@pytest.mark.parametrize("speed", [1, 3, 7, 8, 9, 25])
def test_a_copy_that_is_overtaken_has_only_whole_records(monkeypatch, speed):
    """The loop writes `speed` records while 8 are copied; what it has overwritten is left out."""
    monkeypatch.setattr(ring_module, "_PIECE", 8)
    ring = make_ring(64)
    feed(ring, 200)
    monkeypatch.setattr(ring_module, "fence", lambda: feed(ring, speed))
    copy = ring.copied(64)
    monkeypatch.undo()
    assert copy.write_index == 200
    first, records = copy.read(0, 200)
    assert first == copy.oldest
    assert_records(records, range(first, 200))
    assert first > 137  # the oldest was overwritten at once
    assert (len(records["frame"]) > 0) == (speed < 8)  # else it never catches up


def test_room_beyond_the_horizon_saves_a_copy_from_being_overtaken(monkeypatch):
    """A loop that writes while the copy is made, but not more than the spare records."""
    horizon = 4096
    ring = make_ring(capacity_for(horizon))
    feed(ring, 2 * horizon)
    monkeypatch.setattr(ring_module, "fence", lambda: feed(ring, 15))  # 17 pieces of 256
    copy = ring.copied(horizon + 1)
    monkeypatch.undo()
    assert copy.read(0, 2 * horizon)[0] == horizon


def test_the_horizon_is_checked_and_limits_what_is_available():
    ring = make_ring(40)
    assert ring.horizon == 39
    assert ring.available == 0
    feed(ring, 30)
    assert ring.available == 30
    ring.horizon = 12
    assert ring.available == 12
    for wrong in (0, -1, 40):
        with pytest.raises(RequestError, match=r"1 to 39"):
            ring.horizon = wrong
    assert ring.horizon == 12


@pytest.mark.parametrize("capacity", [1, 0, -5])
def test_a_ring_cannot_be_too_small(capacity):
    ring = make_ring(10)
    feed(ring, 5)
    with pytest.raises(ConfigError, match="at least 2"):
        ring.copied(capacity)
