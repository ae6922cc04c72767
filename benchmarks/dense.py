"""Rows: dense products of large systems beside the bandwidth of the memory that the matrix is in."""

from __future__ import annotations

import statistics
from typing import Any, Final

import numba
import numpy as np

from baldr_tango.kernels.libc import monotonic_ns
from baldr_tango.kernels.linear import multiply
from baldr_tango.kernels.structure import pack
from benchmarks.row import Row

GOAL: Final = 1.3
CASES: Final = ((1000, 80, 15, 10), (4000, 240, 5, 3))
"""Actuators, pixels per side, rounds, products per round."""

_timer: Any = numba.njit(
    nogil=True, _nrt=False, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"}
)


@_timer
def time_product(matrix, x, out, times):
    """Time the loop's own product."""
    for k in range(times.size):
        began = monotonic_ns()
        multiply(matrix, 0, x, out)
        times[k] = monotonic_ns() - began


@_timer
def time_one_stream(values, out, times):
    """Time reading a matrix once, from its first to its last element."""
    for k in range(times.size):
        began = monotonic_ns()
        total = np.float32(0.0)
        for i in range(values.shape[0]):
            for j in range(values.shape[1]):
                total += values[i, j]
        out[0] = total
        times[k] = monotonic_ns() - began


@_timer
def time_four_streams(values, out, times):
    """Time reading a matrix once, in four places at a time."""
    quarter = values.shape[0] // 4
    for k in range(times.size):
        began = monotonic_ns()
        total = np.float32(0.0)
        for i in range(quarter):
            for j in range(values.shape[1]):
                total += (
                    values[i, j]
                    + values[quarter + i, j]
                    + values[2 * quarter + i, j]
                    + values[3 * quarter + i, j]
                )
        out[0] = total
        times[k] = monotonic_ns() - began


def dense_row(actuators: int, side: int, rounds: int, calls: int) -> Row:
    """Measure one size."""
    rng = np.random.default_rng(0)
    matrix = pack(rng.random((actuators, side * side), dtype=np.float32), slots=1)
    weights = matrix.weights[0]
    x = rng.random(side * side, dtype=np.float32)
    out = np.zeros(actuators, dtype=np.float32)
    times = np.zeros(calls, dtype=np.int64)
    found: dict[str, list[float]] = {"product": [], "one": [], "four": []}
    for _ in range(rounds + 1):  # the first warms up
        time_product(matrix, x, out, times)
        found["product"].append(float(np.median(times)) / 1e3)
        time_one_stream(weights, out, times)
        found["one"].append(float(np.median(times)) / 1e3)
        time_four_streams(weights, out, times)
        found["four"].append(float(np.median(times)) / 1e3)
    middle = {name: statistics.median(values[1:]) for name, values in found.items()}
    reading = min(middle["one"], middle["four"])
    parts = {
        "product us": middle["product"],
        "reading us": reading,
        "MB": weights.nbytes / 1e6,
        "GB/s": weights.nbytes / reading / 1e3,
    }
    method = (
        f"{actuators} x {side * side} float32, one thread; the loop's own product beside reading the same"
        " matrix once, in one or four streams, whichever is faster; interleaved rounds."
    )
    name = f"dense product over reading the matrix, {actuators} actuators, {side}x{side} pixels"
    return Row(name, GOAL, middle["product"] / reading, "x", parts, method)


def rows() -> list[Row]:
    """Measure once."""
    return [dense_row(*case) for case in CASES]
