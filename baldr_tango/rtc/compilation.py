"""Compile the loop, or load it from the disk, without running it."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.derived import ControllerSettings, LoopParameters
from baldr_tango.configuration.settings import LimitSettings, LoopSettings
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import fence, load_acquire, store_release
from baldr_tango.kernels.libc import address_of
from baldr_tango.kernels.loop import run
from baldr_tango.rtc.arrays import LoopArrays, build_arrays, touched

_compiling = threading.Lock()


def is_compiling() -> bool:
    """Tell whether a thread of this process is compiling the loop, or loading it."""
    return _compiling.locked()


def compile_loop(arrays: LoopArrays) -> None:
    """Make the compiled loop ready for arrays of these types, whatever their sizes; it serves no frame."""
    with _compiling:
        control = np.zeros(d.CONTROL_WORDS, dtype=np.int64)
        # What readers of the ring and of the parameters call comes first: afterwards the compiler is busy
        # for long, and a client's read must not wait for it.
        store_release(control, d.STOP, d.STOP_HOLD)
        load_acquire(control, d.STOP)
        fence()
        idle = np.zeros(4, dtype=np.int64)  # a semaphore that nobody posts
        handles = np.zeros(d.N_HANDLES, dtype=np.int64)
        handles[d.CAMERA_SEMAPHORE] = address_of(idle)
        run(control, arrays.parameters, arrays.state, buffers(arrays, handles, idle[:0]), arrays.ring_arrays)


def compile_ahead() -> None:
    """Compile the loop before there is a calibration: only the types of the arrays matter."""
    compile_loop(build_arrays(smallest_parameters(), LoopSettings()))


def smallest_parameters() -> LoopParameters:
    """Return parameters of a loop with one pixel, one actuator and one mode of each kind."""
    one, none = np.ones(1), np.zeros(0, dtype=np.int64)
    matrix = np.ones((1, 1))
    control = ControllerSettings(one, one, one, one, one, one)
    return LoopParameters(
        beam=1,
        mask="",
        mode="",
        config_file="",
        config_sha256="",
        controller_type_lo="PID",
        controller_type_ho="PID",
        frame_shape=(1, 1),
        frame_rate_hz=1.0,
        gain=1.0,
        dark=one,
        bad_pixels=none,
        bad_pixel_rule="neighbours",
        pixels_to_actuators=matrix,
        flux_weights=one,
        reference=one,
        clear_pupil=one,
        signal_mask=np.ones(1, dtype=bool),
        reconstructor_lo=matrix,
        reconstructor_ho=matrix,
        mode_shapes_lo=matrix,
        mode_shapes_ho=matrix,
        exterior_pixels=none,
        control_lo=control,
        control_ho=control,
        limits=LimitSettings(),
        boxcar=1,
        nm_per_dm_unit=1.0,
        wavelength_nm=1.0,
        strehl_line=(1.0, 0.0),
        interaction_matrix=None,
    )


def buffers(arrays: LoopArrays, handles: NDArray[np.int64], dm_semaphores: NDArray[np.int64]) -> d.Io:
    """Allocate and touch what frames and commands pass through.

    handles : see `loop_data`; dm_semaphores : addresses of those that each command posts
    """
    pixel_words = (arrays.n_pixels * 4 + 7) // 8
    frame_words = touched(d.HEADER_WORDS + pixel_words, np.int64)
    dm_words = touched(d.COUNTS_WORDS + arrays.n_grid, np.int64)
    first = d.HEADER_WORDS * 2
    return d.Io(
        handles=handles,
        dm_semaphores=dm_semaphores,
        frame_words=frame_words,
        raw=frame_words.view(np.int32)[first : first + arrays.n_pixels],
        check=touched(d.COUNTS_NBYTES // 8, np.int64),
        format=touched(d.FORMAT_WORDS, np.int64),
        dm_words=dm_words,
        dm_map=dm_words[d.COUNTS_WORDS :].view(np.float64),
    )
