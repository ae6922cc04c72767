"""Rows: computation of one frame, beside C++/Eigen in double precision and beside moving its bytes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.bad_pixels import fold_repair
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.kernels.libc import monotonic_ns
from baldr_tango.kernels.structure import pack
from benchmarks.cpp_reference import CppReference, UnavailableError, version
from benchmarks.frame_bench import FrameBench, frame_bench, frames_of, interleaved, time_clock, time_compute
from benchmarks.problem import instrument_problem
from benchmarks.row import NOT_MEASURED, Row

CPP_GOAL: Final = 0.1
FLOOR_GOAL: Final = 2.5
BAD_PIXELS: Final = (301, 396, 517, 683)
"""Flat indices of the pixels declared bad for the comparison: the instrument's file names none."""
TOLERANCE: Final = 2e-5
"""Largest difference to the C++ command, relative to its largest value: float32 against double."""

_timer: Any = numba.njit(
    nogil=True, _nrt=False, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"}
)


@_timer
def time_move(copied, target, read, times):
    """Time copying an array into another and reading a third one, float32."""
    for k in range(times.size):
        began = monotonic_ns()
        for i in range(target.size):
            target[i] = copied[i]
        total = np.float32(0.0)
        for i in range(read.size):
            total += read[i]
        target[0] = total
        times[k] = monotonic_ns() - began


def with_bad_pixels(p: LoopParameters, rule: str) -> LoopParameters:
    """Return the same problem with `BAD_PIXELS`, repaired by a rule as the loop's parameters hold it."""
    bad = np.array(BAD_PIXELS, dtype=np.int64)
    if rule == "median":
        return replace(p, bad_pixels=bad, bad_pixel_rule=rule)
    return replace(
        p,
        bad_pixels=bad,
        bad_pixel_rule=rule,
        pixels_to_actuators=fold_repair(p.pixels_to_actuators, bad, p.frame_shape),
        flux_weights=fold_repair(p.flux_weights, bad, p.frame_shape),
    )


def bytes_of(p: LoopParameters, is_factored: bool = False) -> tuple[int, int]:
    """Bytes read and bytes written for one frame of the sparse problem in single precision.

    Read: raw frame, dark, flux weights and the dark-subtracted frame; weight and index of every non-zero of
    the interpolation and of sparse reconstructors, all elements of dense matrices (the mode shapes among
    them); references, six gains and limits, set points and two states per mode. Written: the dark-subtracted
    frame, the controllers' states, and the vectors of the telemetry record.

    is_factored : count a dense matrix as the loop holds it, which finds a selection plus low rank in the
        mode shapes
    """

    def matrix(values: NDArray[np.float64]) -> int:
        used = int(np.count_nonzero(values))
        if used * 4 <= values.size:
            return used * 8
        if is_factored:
            packed = pack(values, slots=1)
            return sum(part.nbytes for part in packed[1:] if isinstance(part, np.ndarray))
        return values.size * 4

    n_pixels, n_signals = p.dark.size, p.reference.size
    n_modes = p.control_lo.kp.size + p.control_ho.kp.size
    n_grid = p.mode_shapes_lo.shape[0]
    matrices = (p.pixels_to_actuators, p.reconstructor_lo, p.reconstructor_ho, p.mode_shapes_lo)
    read = 4 * n_pixels * 4 + sum(map(matrix, (*matrices, p.mode_shapes_ho)))
    read += 2 * 4 * n_signals + (6 + 1 + 2) * 8 * n_modes
    written = 4 * n_pixels + 2 * 8 * n_modes + 4 * (2 * n_signals + 2 * n_modes + 4 * n_grid)
    return read, written


def disagreement(p: LoopParameters, bench: FrameBench, reference: CppReference, frames: Any) -> float:
    """Return the largest difference of the commands over some frames, relative to the largest command."""
    one = np.zeros(1, dtype=np.int64)
    worst, largest = 0.0, 0.0
    for frame in frames:
        time_compute(bench.groups, frame[np.newaxis], one)
        expected = reference.step(frame)
        worst = max(worst, float(np.abs(bench.arrays.ring.newest("command") - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return worst / largest


def cpp_rows(source: str, p: LoopParameters) -> list[Row]:
    """Compare with C++, with bad pixels (there: the frame's median) and without."""
    frames = frames_of(p)
    names = {
        "compute over C++/Eigen": (BAD_PIXELS, with_bad_pixels(p, "neighbours"), "with 4 bad pixels"),
        "compute over C++/Eigen, no bad pixels": ((), p, "without bad pixels"),
    }
    try:
        built = version()
        references = {name: CppReference(p, bad) for name, (bad, _, _) in names.items()}
    except UnavailableError as error:
        return [Row(name, CPP_GOAL, NOT_MEASURED, "x", reason=f"{error}.") for name in names]
    timers = {}
    with ExitStack() as stack:
        # The same rule on both sides for the agreement; the product's own rule is timed.
        legacy = stack.enter_context(frame_bench(with_bad_pixels(p, "median"), 100))
        error = disagreement(p, legacy, CppReference(p, BAD_PIXELS), frames)
        if not error <= TOLERANCE:
            reason = (
                f"the commands differ by {error:.1e} of their range, more than {TOLERANCE:.0e}: not timed."
            )
            return [Row(name, CPP_GOAL, NOT_MEASURED, "x", reason=reason) for name in names]
        timers["legacy rule"] = partial(time_compute, legacy.groups, frames)
        for name, (_, problem, _) in names.items():
            groups = stack.enter_context(frame_bench(problem, 100)).groups
            timers[f"ours {name}"] = partial(time_compute, groups, frames)
            timers[f"cpp {name}"] = partial(references[name].time, frames)
        timers["clock"] = partial(time_clock, groups)
        times = interleaved(timers)
    rows = []
    for name, (bad, _, what) in names.items():
        ours, cpp = times[f"ours {name}"] - times["clock"], times[f"cpp {name}"] - times["clock"]
        parts = {"compute us": ours, "C++ us": cpp, "commands differ by": error}
        if bad:
            parts["compute with the legacy median us"] = times["legacy rule"] - times["clock"]
        method = (
            f"{source}, {what}, 64 frames in turns; {built}. Frame in memory -> command and telemetry vectors"
            " in memory, both loops closed; medians of interleaved rounds. A bad pixel costs C++ the frame's"
            " median; here its share is folded into the weights."
        )
        rows.append(Row(name, CPP_GOAL, ours / cpp, "x", parts, method))
    return rows


def _mover(sizes: tuple[int, int]) -> Any:
    """Timer of moving so many bytes (read, written)."""
    read, written = sizes
    copied = np.ones(written // 4, dtype=np.float32)
    rest = np.ones((read - written) // 4, dtype=np.float32)
    return partial(time_move, copied, np.zeros_like(copied), rest)


def floor_row(source: str, p: LoopParameters) -> Row:
    """Compare with moving the bytes of the frame through this cache."""
    sizes, factored = bytes_of(p), bytes_of(p, is_factored=True)
    with frame_bench(p, 100) as bench:
        timers = {
            "compute": partial(time_compute, bench.groups, frames_of(p)),
            "move": _mover(sizes),
            "move factored": _mover(factored),
            "clock": partial(time_clock, bench.groups),
        }
        times = interleaved(timers)
    compute, move = times["compute"] - times["clock"], times["move"] - times["clock"]
    parts = {
        "compute us": compute,
        "moving us": move,
        "kB": sum(sizes) / 1e3,
        "GB/s": sum(sizes) / move / 1e3,
        "kB with the mode shapes factored": sum(factored) / 1e3,
        "moving those us": times["move factored"] - times["clock"],
    }
    method = (
        f"{source}; reading and writing as many bytes, hot in the same cache, in one compiled loop. "
        + " ".join((bytes_of.__doc__ or "").split("\n\n")[1].split())
    )
    return Row("compute over moving its bytes", FLOOR_GOAL, compute / move, "x", parts, method)


def rows() -> list[Row]:
    """Measure once."""
    source, p = instrument_problem()
    return [*cpp_rows(source, p), floor_row(source, p)]
