"""Telemetry ring: one writer (the loop), any number of readers, no lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.kernels.atomics import fence, load_acquire, store_release
from baldr_tango.telemetry.fields import FIELD_BY_NAME, SIZE_KEYS, TELEMETRY_FIELDS

_PIECE: Final = 256  # records copied at a time
_LEAST_SPARE: Final = 64


def capacity_for(horizon: int) -> int:
    """Records of a ring whose newest `horizon` records can be copied while the loop goes on.

    A sixteenth more than is looked back over: time for the copying thread to get a processor.
    """
    return horizon + max(_LEAST_SPARE, horizon // 16)


class TelemetryRing:
    """The newest records of the loop, one contiguous array per field.

    The writer fills slot ``i % capacity`` of every field with record ``i`` and then stores ``i + 1`` into
    ``index[0]`` (release). It never waits for a reader, so the slot of the oldest record may be half
    overwritten at any time: ``capacity - 1`` records are readable.

    Parameters
    ----------
    capacity : records kept, at least 2.
    sizes : length of the vector fields by size key (see `SIZE_KEYS`), each at least 1.
    first : number of the first record that will be written.

    Raises
    ------
    ConfigError : a capacity or a size is missing or out of range.
    """

    def __init__(self, capacity: int, sizes: Mapping[str, int], *, first: int = 0) -> None:
        if capacity < 2:
            raise ConfigError(f"telemetry ring: capacity {capacity} records, expected at least 2")
        for key, meaning in SIZE_KEYS.items():
            if sizes.get(key, 0) < 1:
                found = sizes.get(key, "nothing")
                raise ConfigError(
                    f"telemetry ring: size {key} ({meaning}): found {found}, expected at least 1"
                )
        self.capacity = int(capacity)
        self.sizes: dict[str, int] = {key: int(sizes[key]) for key in SIZE_KEYS}
        self.fields: dict[str, NDArray[Any]] = {}
        for field in TELEMETRY_FIELDS:
            array = np.empty((self.capacity, *field.shape(self.sizes)), dtype=field.numpy_dtype)
            array.fill(0)  # touches every page: the loop must not fault while it runs
            self.fields[field.name] = array
        self.index: NDArray[np.int64] = np.zeros(8, dtype=np.int64)  # a cache line of its own
        self.index[0] = first
        self._first = first  # no record before this one was ever here
        self._horizon = self.capacity - 1

    @property
    def write_index(self) -> int:
        """Records ever written."""
        return int(load_acquire(self.index, 0))

    @property
    def oldest(self) -> int:
        """Oldest record that can be read now."""
        return max(self._first, self.write_index - self.capacity + 1)

    @property
    def horizon(self) -> int:
        """Newest records that savings, polls and averages look back over, at most ``capacity - 1``."""
        return self._horizon

    @horizon.setter
    def horizon(self, records: int) -> None:
        if not 1 <= records < self.capacity:
            raise RequestError(
                f"telemetry ring: horizon {records} records, expected 1 to {self.capacity - 1}"
            )
        self._horizon = int(records)

    @property
    def available(self) -> int:
        """Records that can be read now, within the horizon."""
        written = self.write_index
        return min(written - max(self._first, written - self.capacity + 1), self._horizon)

    @property
    def record_nbytes(self) -> int:
        """Size of one record [bytes]."""
        return sum(array[0].nbytes for array in self.fields.values())

    def slices(self, start: int, stop: int) -> tuple[slice, ...]:
        """Slots of the records ``start`` to ``stop`` (exclusive), as one slice or, across the end, two."""
        if stop <= start:
            return ()
        first, count = start % self.capacity, stop - start
        if count > self.capacity:
            raise RequestError(f"telemetry ring: {count} records asked for, it holds {self.capacity}")
        if first + count <= self.capacity:
            return (slice(first, first + count),)
        return (slice(first, self.capacity), slice(0, first + count - self.capacity))

    def read(
        self, start: int, stop: int, names: Iterable[str] | None = None
    ) -> tuple[int, dict[str, NDArray[Any]]]:
        """Copy the records ``start`` to ``stop`` (exclusive).

        Parameters
        ----------
        names : fields to copy; by default all.

        Returns
        -------
        first_valid : first record of the copy. Larger than `start` when older records are gone: the
            difference is the number of records lost.
        records : arrays (n,) or (n, size) by field name; n is 0 when nothing of the range is there.
        """
        fields = self.fields if names is None else {name: self.fields[name] for name in names}
        first = max(start, self.oldest)
        wanted = self.slices(first, min(stop, self.write_index))
        if wanted:
            copy = {name: np.concatenate([array[part] for part in wanted]) for name, array in fields.items()}
        else:
            copy = {name: array[:0].copy() for name, array in fields.items()}
        fence()
        overwritten = self.oldest - first  # by the loop, while we copied
        if overwritten > 0:
            first += overwritten
            copy = {name: array[overwritten:] for name, array in copy.items()}
        return first, copy

    def newest(self, name: str) -> NDArray[Any]:
        """Copy the last record's value of one field: () or (size,); zeros before the first record.

        Raises
        ------
        RequestError : there is no such field.
        """
        try:
            array = self.fields[name]
        except KeyError:
            raise RequestError(f"no telemetry field {name!r}; there are {', '.join(self.fields)}") from None
        while True:
            written = self.write_index
            value = np.array(array[(written - 1) % self.capacity if written else 0])
            fence()
            if written == 0 or self.oldest < written:
                return value

    def copied(self, capacity: int, newest: int | None = None) -> TelemetryRing:
        """Copy the newest records into a new ring, piece by piece; the loop goes on meanwhile.

        Records keep their numbers; the new ring looks back as far as it can.

        Parameters
        ----------
        capacity : records that the new ring holds.
        newest : records to copy at most; by default all that the new ring can give back.

        Raises
        ------
        ConfigError : the capacity is too small.
        """
        stop = self.write_index
        count = min(capacity - 1, capacity if newest is None else newest)
        start = max(self.oldest, stop - count)
        new = TelemetryRing(capacity, self.sizes, first=start)
        new.follow(self, stop)
        return new

    def follow(self, other: TelemetryRing, stop: int | None = None) -> None:
        """Take over from another ring the records that came after those that are here.

        Not to be used on a ring that the loop fills. What `other` has lost by now is left out, together with
        everything before.

        Parameters
        ----------
        other : a ring of the same sizes.
        stop : first record not to be taken; by default all are.
        """
        last = other.write_index if stop is None else stop
        record = self.write_index
        while record < last:
            oldest = other.oldest
            if oldest > record:
                self._first = record = min(oldest, last)
                continue
            here, there = record % self.capacity, record % other.capacity
            count = min(last - record, self.capacity - here, other.capacity - there, _PIECE)
            for name, array in self.fields.items():
                array[here : here + count] = other.fields[name][there : there + count]
            fence()
            overwritten = other.oldest  # by the loop, while we copied
            if overwritten > record:
                self._first = min(overwritten, last)
            record = max(record + count, min(overwritten, last))
        store_release(self.index, 0, max(last, self.write_index))

    def append(self, **values: ArrayLike) -> None:
        """Write one record from Python; fields that are not given become 0. Not to be used beside the loop.

        Raises
        ------
        RequestError : there is no such field.
        """
        unknown = sorted(set(values) - set(FIELD_BY_NAME))
        if unknown:
            raise RequestError(
                f"no telemetry field {', '.join(unknown)}; there are {', '.join(FIELD_BY_NAME)}"
            )
        written = self.write_index
        for name, array in self.fields.items():
            array[written % self.capacity] = values.get(name, 0)
        store_release(self.index, 0, written + 1)
