"""One frame, compute only: the compiled loop's steps beside the same equations in numpy, in one run.

``python benchmarks/bench_frame.py [CALIBRATION --beam N --mask M]``; without a calibration file a problem of
the instrument's sizes (32x32 pixels, 140 actuators, 2 + 140 modes) is made up: bilinear interpolation,
diagonal reconstructor, mode shapes without tip and tilt. Times are medians [us]; look at the ratios.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numba
import numpy as np

from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import load_runtime, shipped_config
from baldr_tango.configuration.settings import LoopSettings
from baldr_tango.kernels import loop as steps
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.libc import address_of, monotonic_ns
from baldr_tango.rtc.arrays import build_arrays
from baldr_tango.rtc.loop import buffers

ROUNDS = 10
FRAMES = 2000


@numba.njit(nogil=True, _nrt=False)
def time_process(parameters, state, io, ring, times):
    """Time frame -> command, the write to the DM channel included."""
    for k in range(times.size):
        began = monotonic_ns()
        steps.process(parameters, state, io, ring, 0, k % ring.frame.size)
        times[k] = monotonic_ns() - began


@numba.njit(nogil=True, _nrt=False)
def time_write(state, io, times):
    """Time the write to the DM channel alone."""
    for k in range(times.size):
        began = monotonic_ns()
        steps.write_command(io, state, state.command)
        times[k] = monotonic_ns() - began


@numba.njit(nogil=True, _nrt=False)
def time_read(io, times):
    """Time the read of a frame."""
    for k in range(times.size):
        began = monotonic_ns()
        steps.read_frame(io)
        times[k] = monotonic_ns() - began


def numpy_frame(p: LoopParameters, raw: np.ndarray, integral: np.ndarray) -> np.ndarray:
    """Compute the same frame with dense float64 matrices, as one writes it down first."""
    r = raw.astype(np.float64) - p.dark
    signal = (p.pixels_to_actuators @ r / r.sum() - p.reference) / p.clear_pupil
    errors = np.concatenate([p.reconstructor_lo @ signal, p.reconstructor_ho @ signal])
    integral += 0.1 * errors
    return -(p.mode_shapes_lo @ integral[:2] + p.mode_shapes_ho @ integral[2:])


def made_up() -> LoopParameters:
    """Parameters of the instrument's sizes and sparsity, without a calibration file."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.problem import random_problem

    problem = random_problem(side=32, grid=12)
    basis = np.linalg.qr(problem.mode_shapes_lo)[0]
    shapes = problem.mode_shapes_ho - basis @ basis.T @ problem.mode_shapes_ho
    return type(problem)(**{**vars(problem), "mode_shapes_ho": shapes})


def chosen(options: argparse.Namespace) -> LoopParameters:
    """Parameters of the file named on the command line, or made-up ones."""
    if options.calibration is None:
        return made_up()
    settings = load_runtime(shipped_config("real_calibration.toml")).for_beam(options.beam)
    calibration = load_calibration(options.calibration, options.beam, options.mask)
    return derive(calibration, settings, frame_rate_hz=calibration.frame_rate_hz, gain=calibration.gain)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--mask", default="H3")
    p = chosen(parser.parse_args())
    arrays = build_arrays(p, LoopSettings(ring_frames=256))
    semaphore = np.zeros(4, dtype=np.int64)
    handles = np.zeros(d.N_HANDLES, dtype=np.int64)
    handles[d.TRIGGER_SEMAPHORE] = address_of(semaphore)
    with tempfile.TemporaryFile(dir="/dev/shm") as camera, tempfile.TemporaryFile(dir="/dev/shm") as mirror:
        handles[d.CAMERA_FD], handles[d.DM_FD] = camera.fileno(), mirror.fileno()
        io = buffers(arrays, handles, np.full(11, address_of(semaphore), dtype=np.int64))
        light = np.random.default_rng(1).uniform(20, 60, io.raw.size)
        io.raw[:] = np.round(p.dark + light)
        os.pwrite(camera.fileno(), io.frame_words.tobytes(), 0)
        arrays.state.counters[[d.LO_CLOSED, d.HO_CLOSED]] = 1
        times = {name: [] for name in ("numpy float64, dense", "frame to command", "write", "read")}
        samples = np.zeros(FRAMES, dtype=np.int64)
        integral = np.zeros(2 + p.reconstructor_ho.shape[0])
        for _ in range(ROUNDS + 1):  # the first round compiles and warms up
            began = time.perf_counter()
            for _ in range(200):
                numpy_frame(p, io.raw, integral)
            times["numpy float64, dense"].append((time.perf_counter() - began) / 200 * 1e6)
            time_process(arrays.parameters, arrays.state, io, arrays.ring_arrays, samples)
            times["frame to command"].append(np.median(samples) / 1e3)
            time_write(arrays.state, io, samples)
            times["write"].append(np.median(samples) / 1e3)
            time_read(io, samples)
            times["read"].append(np.median(samples) / 1e3)
    medians = {name: float(np.median(rounds[1:])) for name, rounds in times.items()}
    medians["compute alone"] = medians["frame to command"] - medians["write"]
    reference = medians["compute alone"]
    sys.stdout.write("| step | median us | over compute |\n| --- | --- | --- |\n")
    for name, value in medians.items():
        sys.stdout.write(f"| {name} | {value:.2f} | {value / reference:.2f} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
