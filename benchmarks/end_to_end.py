"""Rows: from the post of the camera's process to the command written, beside a bare semaphore."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels import loop_data as d
from baldr_tango.names import GRID_SIDE
from baldr_tango.streams import Stream
from benchmarks.posting import PING
from benchmarks.problem import instrument_problem
from benchmarks.row import NOT_MEASURED, Row
from devices.cli.isolation import SHARED_MEMORY, temporary_directory

RATE_HZ: Final = 1000.0
FRAMES: Final = 5000
GOAL_SEMAPHORE_US: Final = 10.0
GOAL_SPIN_US: Final = 3.0
_SKIPPED: Final = 100  # the first frames fill caches
_QUIET_GAIN: Final = 1e-9
_TIMEOUT_S: Final = 60.0


def _run(waiting: str, loop_cpus: list[int], camera_cpus: list[int]) -> dict[str, NDArray[Any]]:
    """Let camera and loop run once; return their time stamps."""
    _, p = instrument_problem()
    quiet = {
        name: replace(getattr(p, name), ki=getattr(p, name).ki * _QUIET_GAIN)
        for name in ("control_lo", "control_ho")
    }
    options = {
        "frames": FRAMES,
        "period_ns": int(1e9 / RATE_HZ),
        "waiting": waiting,
        "loop_cpus": loop_cpus,
        "camera_cpus": camera_cpus,
        "pings": waiting == "semaphore",  # a loop that polls leaves its CPU to nobody
    }
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory(SHARED_MEMORY))
        (directory / "parameters.pickle").write_bytes(pickle.dumps(replace(p, **quiet)))
        light = np.random.default_rng(1).uniform(20, 60, p.dark.size)
        frame = np.round(p.dark + light).astype(np.int32).reshape(p.frame_shape)
        np.save(directory / "frame.npy", frame)
        grid = (GRID_SIDE, GRID_SIDE)
        shapes = {
            "baldr1": (p.frame_shape, np.int32),
            "dm1disp02": (grid, float),
            "dm1": (grid, float),
            PING: ((1,), float),
        }
        for name, (shape, dtype) in shapes.items():
            stack.callback(Stream.destroy, name, directory)
            stack.enter_context(Stream.create(name, shape, dtype, directory))
        loop = _start("loop", directory, options, stack)
        camera = _start("camera", directory, options, stack)
        _expect(camera, "done")
        loop.communicate("end\n", timeout=_TIMEOUT_S)
        with np.load(directory / "camera.npz") as posts, np.load(directory / "loop.npz") as records:
            return {**posts, **records}


def _start(role: str, directory: Path, options: dict[str, Any], stack: ExitStack) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.posting", role, str(directory), json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    _expect(process, "ready")
    return process


def _expect(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a process of the benchmark said {said!r}, expected {word!r}")


def _figures(found: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Medians [us] of one run; frame number k is the camera's k-th post.

    A frame is posted when its semaphores are, as the bare one; without them, when its count is written.
    """
    answered = found["woke"] > 0
    posts = found["posted"] if answered.any() else found["written"]
    place = found["frame"] - 1
    keep = (place >= _SKIPPED) & (place < found["posted"].size)
    place = place[keep]
    woke, latency = found["time_ns"][keep], found["latency_ns"][keep]
    figures = {
        "post to command us": np.median(woke + latency - posts[place]) * 1e-3,
        "post to wake-up us": np.median(woke - posts[place]) * 1e-3,
        "wake-up to command us": np.median(latency) * 1e-3,
        "compute us": found["stages"][d.STAGE_RECONSTRUCT] + found["stages"][d.STAGE_CONTROL],
        "frames": float(place.size),
    }
    if answered.any():
        trips = (found["woke"] - found["pinged"])[answered][_SKIPPED:]
        figures["bare semaphore us"] = float(np.median(trips)) * 1e-3
    return {name: float(value) for name, value in figures.items()}


def rows() -> list[Row]:
    """Measure once."""
    cpus = sorted(os.sched_getaffinity(0))
    last, first = [cpus[-1]], [cpus[0]]
    source, _ = instrument_problem()
    how = (
        f"{source}; a process posts {FRAMES} frames at {RATE_HZ:g} Hz into a real stream, the product's loop"
        " is in another, both real-time; CLOCK_MONOTONIC before the post against the telemetry's time stamps;"
        " medians"
    )
    found = []
    for where, camera_cpus in (("one CPU", last), ("two CPUs", first)):
        if where == "two CPUs" and len(cpus) < 2:
            continue
        figures = _figures(_run("semaphore", last, camera_cpus))
        found.append(
            Row(
                f"post to command over a bare semaphore, {where}",
                GOAL_SEMAPHORE_US,
                figures["post to command us"] - figures["bare semaphore us"],
                "us",
                figures,
                f"{how}. The bare semaphore is posted by the same process between the frames, to a thread of"
                " the loop's process with the same priority and CPU.",
            )
        )
    name = "post to command over compute, spin"
    method = (
        f"{how}. Compute is reconstruction and control of the same frames, from the loop's latency budget."
    )
    if len(cpus) < 2:
        reason = "a loop that polls needs a CPU of its own"
        return [*found, Row(name, GOAL_SPIN_US, NOT_MEASURED, "us", {}, method, reason)]
    figures = _figures(_run("spin", last, first))
    over = figures["post to command us"] - figures["compute us"]
    reason = "reading the frame and writing the command are system calls, which are not compute."
    return [*found, Row(name, GOAL_SPIN_US, over, "us", figures, method, reason)]
