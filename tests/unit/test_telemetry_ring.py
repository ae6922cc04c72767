"""The telemetry ring: what was written comes back, and what is gone is known to be gone."""

from __future__ import annotations

import numpy as np
import pytest

from baldr_tango.configuration.settings import TELEMETRY_DEFAULT_FIELDS
from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.telemetry.fields import FIELD_BY_NAME, TELEMETRY_FIELDS, FrameFlag
from baldr_tango.telemetry.ring import TelemetryRing
from tests.unit.telemetry_support import SIZES, assert_records, feed, make_ring, value


def test_every_field_has_one_contiguous_array_of_its_type_and_size():
    ring = make_ring(8)
    assert list(ring.fields) == [field.name for field in TELEMETRY_FIELDS]
    for field in TELEMETRY_FIELDS:
        array = ring.fields[field.name]
        assert array.shape == ((8, SIZES[field.size_key]) if field.size_key else (8,))
        assert array.dtype == np.dtype(field.dtype)
        assert array.flags.c_contiguous
    assert ring.index.shape == (8,)
    assert ring.index.dtype == np.int64
    assert ring.record_nbytes == sum(array.nbytes for array in ring.fields.values()) / 8


def test_the_default_fields_of_the_configuration_exist():
    assert set(TELEMETRY_DEFAULT_FIELDS) <= set(FIELD_BY_NAME)


def test_every_flag_has_its_own_bit_and_fits_the_field():
    bits = [flag.value for flag in FrameFlag]
    assert sum(bits) == np.bitwise_or.reduce(bits) <= np.iinfo(FIELD_BY_NAME["flags"].dtype).max


@pytest.mark.parametrize(("written", "start", "stop"), [(5, 0, 5), (5, 2, 4), (13, 8, 13), (800, 794, 800)])
def test_records_come_back_as_written_also_across_the_end_of_the_ring(written, start, stop):
    ring = make_ring(8)
    feed(ring, written)
    first, records = ring.read(start, stop)
    assert first == start
    assert_records(records, range(start, stop))


def test_a_range_that_is_not_there_is_empty():
    ring = make_ring(8)
    feed(ring, 3)
    first, records = ring.read(3, 10)
    assert first == 3
    assert records["img"].shape == (0, SIZES["P"])


def test_what_was_overwritten_is_reported_as_lost():
    ring = make_ring(8)
    feed(ring, 20)
    first, records = ring.read(0, 20)
    assert first == 13  # one slot belongs to the writer
    assert_records(records, range(13, 20))


def test_a_copy_that_the_loop_overtakes_contains_no_torn_record():
    ring = make_ring(8)
    feed(ring, 8)

    class Overtaken(dict):
        """The loop writes three records while the first field has been copied and the rest has not."""

        def items(self):
            for place, item in enumerate(super().items()):
                if place == 1:
                    ring.fields = dict(ring.fields)
                    feed(ring, 3)
                yield item

    ring.fields = Overtaken(ring.fields)
    first, records = ring.read(1, 8)
    assert first == 4
    assert_records(records, range(4, 8))


def test_the_newest_value_is_the_last_records():
    ring = make_ring(8)
    np.testing.assert_array_equal(ring.newest("signal"), np.zeros(SIZES["A"]))
    feed(ring, 17)
    newest = ring.newest("signal")
    feed(ring, 8)
    np.testing.assert_array_equal(newest, value("signal", 16))


def test_unknown_fields_are_refused_by_name():
    ring = make_ring(8)
    with pytest.raises(RequestError, match=r"u_lo.*u_LO"):
        ring.newest("u_lo")
    with pytest.raises(RequestError, match="phase"):
        ring.append(phase=1.0)
    assert ring.write_index == 0


def test_more_records_than_the_ring_has_are_refused():
    with pytest.raises(RequestError, match="9 records"):
        make_ring(8).slices(0, 9)


@pytest.mark.parametrize(
    ("capacity", "sizes", "match"),
    [(1, SIZES, "capacity 1 "), (8, SIZES | {"H": 0}, "size H.*found 0"), (8, {"P": 4}, "size A.*nothing")],
)
def test_impossible_sizes_are_refused(capacity, sizes, match):
    with pytest.raises(ConfigError, match=match):
        TelemetryRing(capacity, sizes)
