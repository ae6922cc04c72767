"""Rings, settings and predictable records for the telemetry tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.telemetry.fields import FIELD_BY_NAME, TELEMETRY_FIELDS
from baldr_tango.telemetry.ring import TelemetryRing

SIZES = {"P": 16, "A": 5, "L": 2, "H": 5, "G": 6}
PERIOD_NS = 1_000_000
FIRST_FRAME = 5000
ALL_FIELDS = tuple(FIELD_BY_NAME)


def make_ring(capacity: int = 64) -> TelemetryRing:
    return TelemetryRing(capacity, SIZES)


def make_settings(directory: Path, **changes: Any) -> TelemetrySettings:
    """Settings under which nothing is written or rotated before it is asked for."""
    values: dict[str, Any] = {
        "directory": directory,
        "fields": ALL_FIELDS,
        "image_every": 1,
        "chunk_s": 60.0,
        "min_free_mb": 0.0,
    }
    return TelemetrySettings(**(values | changes))


def value(name: str, record: int) -> Any:
    """What `feed` writes: different for every field, record and element, exact in every type."""
    if name == "frame":
        return FIRST_FRAME + record
    if name == "time_ns":
        return 10**12 + record * PERIOD_NS
    place = ALL_FIELDS.index(name)
    shape = FIELD_BY_NAME[name].shape(SIZES)
    return (np.arange(np.prod(shape, dtype=int)).reshape(shape) * 3 + place * 5 + record * 7) % 101


def feed(ring: TelemetryRing, count: int) -> None:
    """Write the next `count` records."""
    for record in range(ring.write_index, ring.write_index + count):
        ring.append(**{field.name: value(field.name, record) for field in TELEMETRY_FIELDS})


def assert_records(found: dict[str, np.ndarray], numbers: list[int] | range, where: str = "") -> None:
    """Check every value of every field against what `feed` wrote for these records."""
    assert found["frame"].tolist() == [FIRST_FRAME + n for n in numbers], where
    for name, array in found.items():
        expected = [value(name, number) for number in numbers]
        np.testing.assert_array_equal(
            array, np.array(expected).reshape(array.shape), err_msg=f"{name} {where}"
        )


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition that another thread or process makes true."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.002)
