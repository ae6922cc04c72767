"""Telemetry ring: one writer (the loop), any number of readers, no lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import ConfigError, RequestError
from baldr_tango.kernels.atomics import fence, load_acquire, store_release
from baldr_tango.telemetry.fields import FIELD_BY_NAME, SIZE_KEYS, TELEMETRY_FIELDS


class TelemetryRing:
    """The newest records of the loop, one contiguous array per field.

    The writer fills slot ``i % capacity`` of every field with record ``i`` and then stores ``i + 1`` into
    ``index[0]`` (release). It never waits for a reader, so the slot of the oldest record may be half
    overwritten at any time: ``capacity - 1`` records are readable.

    Parameters
    ----------
    capacity : records kept, at least 2.
    sizes : length of the vector fields by size key (see `SIZE_KEYS`), each at least 1.

    Raises
    ------
    ConfigError : a capacity or a size is missing or out of range.
    """

    def __init__(self, capacity: int, sizes: Mapping[str, int]) -> None:
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

    @property
    def write_index(self) -> int:
        """Records ever written."""
        return int(load_acquire(self.index, 0))

    @property
    def oldest(self) -> int:
        """Oldest record that can be read now."""
        return max(0, self.write_index - self.capacity + 1)

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

    def read(self, start: int, stop: int) -> tuple[int, dict[str, NDArray[Any]]]:
        """Copy the records ``start`` to ``stop`` (exclusive).

        Returns
        -------
        first_valid : first record of the copy. Larger than `start` when older records are gone: the
            difference is the number of records lost.
        records : arrays (n,) or (n, size) by field name; n is 0 when nothing of the range is there.
        """
        first = max(start, self.oldest)
        wanted = self.slices(first, min(stop, self.write_index))
        if wanted:
            copy = {
                name: np.concatenate([array[part] for part in wanted]) for name, array in self.fields.items()
            }
        else:
            copy = {name: array[:0].copy() for name, array in self.fields.items()}
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
