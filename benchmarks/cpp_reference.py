"""The C++/Eigen reference: built on the spot, loaded with ctypes.

It needs a C++ compiler (``$CXX``, g++ or clang++) and Eigen 3: Debian's ``libeigen3-dev``, PyPI's
``cmeel-eigen``, or a folder named by ``$EIGEN3_INCLUDE_DIR``.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.configuration.derived import ControllerSettings, LoopParameters
from baldr_tango.rtc.arrays import CONTROLLER_TYPES

SOURCE: Final = Path(__file__).parent / "cpp" / "reference.cpp"
FLAGS: Final = ("-std=c++17", "-O3", "-march=native", "-DNDEBUG", "-shared", "-fPIC")


class UnavailableError(Exception):
    """No compiler, no Eigen, or the source does not compile here."""


def compiler() -> str:
    """Return the path of a C++ compiler."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise UnavailableError("no C++ compiler: install g++")


def eigen() -> Path:
    """Return the folder that ``Eigen/Dense`` is in."""
    candidates = [
        os.environ.get("EIGEN3_INCLUDE_DIR", ""),
        str(Path(sysconfig.get_path("purelib")) / "cmeel.prefix" / "include" / "eigen3"),
        "/usr/include/eigen3",
        "/usr/local/include/eigen3",
    ]
    for folder in candidates:
        if folder and (Path(folder) / "Eigen" / "Dense").is_file():
            return Path(folder)
    raise UnavailableError("no Eigen headers: install libeigen3-dev, or cmeel-eigen from PyPI")


@cache
def library() -> Any:
    """Compile and load the reference; once per process."""
    command = [compiler(), *FLAGS, f"-I{eigen()}", str(SOURCE)]
    with tempfile.TemporaryDirectory(prefix="baldr-bench-") as folder:
        product = Path(folder) / "reference.so"
        done = subprocess.run([*command, "-o", str(product)], capture_output=True, text=True)
        if done.returncode != 0:
            raise UnavailableError(f"{SOURCE.name} does not compile: {done.stderr.strip().splitlines()[0]}")
        loaded = ctypes.CDLL(str(product))  # stays mapped after its file is gone
    pointer = ctypes.c_void_p
    loaded.reference_create.argtypes = [pointer] * 13
    loaded.reference_create.restype = pointer
    loaded.reference_free.argtypes = [pointer]
    loaded.reference_step.argtypes = [pointer] * 3
    loaded.reference_step.restype = ctypes.c_int
    loaded.reference_time.argtypes = [pointer, pointer, ctypes.c_int64, pointer, ctypes.c_int64]
    return loaded


def version() -> str:
    """Name compiler and Eigen, for the report."""
    told = subprocess.run([compiler(), "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    macros = (eigen() / "Eigen" / "src" / "Core" / "util" / "Macros.h").read_text(encoding="utf-8")
    number = [
        line.split()[2]
        for name in ("WORLD", "MAJOR", "MINOR")
        for line in macros.splitlines()
        if line.startswith(f"#define EIGEN_{name}_VERSION")
    ]
    return f"{told}, Eigen {'.'.join(number)}, {' '.join(FLAGS[1:3])}"


def _gains(control: ControllerSettings) -> NDArray[np.float64]:
    return np.concatenate(
        [control.kp, control.ki, control.kd, control.leak, control.lower, control.upper]
    ).astype(np.float64)


class CppReference:
    """One controller in C++, both loops closed, no boxcar, no injection.

    Parameters
    ----------
    p : its parameters. `p.pixels_to_actuators` is taken as it is: bad pixels must not be folded into it.
    bad_pixels : (k,) flat indices repaired with the median of the frame
    records : of the telemetry ring

    Raises
    ------
    UnavailableError : it cannot be built here.
    """

    def __init__(self, p: LoopParameters, bad_pixels: ArrayLike = (), records: int = 256) -> None:
        self._library = library()
        n_actuators, n_pixels = p.pixels_to_actuators.shape
        bad = np.ascontiguousarray(bad_pixels, dtype=np.int64)
        kinds = [CONTROLLER_TYPES[kind] for kind in (p.controller_type_lo, p.controller_type_ho)]
        sizes = [n_pixels, n_actuators, p.mode_shapes_lo.shape[1], p.mode_shapes_ho.shape[1]]
        sizes += [p.mode_shapes_lo.shape[0], records, bad.size, *kinds]
        limits = [p.limits.command, p.limits.lo_command, p.limits.ho_mode, p.limits.min_flux_adu]
        # Where nothing is measured, a division by infinity gives the signal 0.
        clear_pupil = np.where(p.signal_mask, p.clear_pupil, np.inf)
        given: list[NDArray[Any]] = [np.array(sizes, dtype=np.int64)]
        given += [np.ascontiguousarray(p.dark, dtype=np.float64), bad]
        for values in (p.pixels_to_actuators, p.reference, clear_pupil, p.reconstructor_lo):
            given.append(np.ascontiguousarray(values, dtype=np.float64))
        for values in (p.reconstructor_ho, p.mode_shapes_lo, p.mode_shapes_ho):
            given.append(np.ascontiguousarray(values, dtype=np.float64))
        given += [_gains(p.control_lo), _gains(p.control_ho), np.array(limits, dtype=np.float64)]
        self._handle = self._library.reference_create(*(array.ctypes.data for array in given))
        self._command = np.zeros(p.mode_shapes_lo.shape[0])

    def close(self) -> None:
        """Free its memory."""
        if self._handle:
            self._library.reference_free(self._handle)
            self._handle = None

    def step(self, raw: NDArray[np.int32]) -> NDArray[np.float64]:
        """Process one frame (P,); return the command (G,) [DM units]."""
        self._library.reference_step(self._handle, raw.ctypes.data, self._command.ctypes.data)
        return self._command.copy()

    def time(self, frames: NDArray[np.int32], times: NDArray[np.int64]) -> None:
        """Fill `times` with the durations of that many frames [ns], taken in turns from `frames` (n, P)."""
        self._library.reference_time(
            self._handle, frames.ctypes.data, frames.shape[0], times.ctypes.data, times.size
        )
