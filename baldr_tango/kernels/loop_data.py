"""The arrays that the real-time loop works on, and the names of their elements.

Everything the loop touches is an array that Python allocated: the loop never allocates, never takes
a lock and never calls the interpreter. Words shared between threads sit in cache lines of their own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.linear import Matrix

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

# Words of `control` (int64), 64 bytes apart.
VERSION: Final = 0
"""Version of the parameters in force; its lowest bit is the slot. Written by Python."""
ADOPTED: Final = 8
"""Version that the loop works with. Written by the loop."""
CHECKPOINTED: Final = 9
"""Newest `CHECKPOINT` that the loop has done. Written by the loop."""
STOP: Final = 16
"""Request to leave the loop: 0 or one of `STOP_*`. Written by Python."""
RESUMED: Final = 17
"""1 when the loop is entered again on the same streams: waiting frames and their numbers go on. By Python."""
CHECKPOINT: Final = 18
"""Another number asks for a copy of the loop's memory at the next frame boundary. Written by Python."""
PASSES: Final = 19
"""Leave after so many passes, of one frame at most; 0: go on. A replay goes step by step. By Python."""
CONTROL_WORDS: Final = 24

STOP_FLAT: Final = 1
"""Open the loops, write a flat command, leave."""
STOP_HOLD: Final = 2
"""Leave at once; the mirror and the controllers stay as they are."""
STOP_EXCHANGE: Final = 3
"""Leave at once, to be entered again with other arrays: a longer telemetry ring, other matrices."""

# Columns of `Parameters.switches`.
CLOSE_LO: Final = 0
CLOSE_HO: Final = 1
PAUSE: Final = 2
TYPE_LO: Final = 3
TYPE_HO: Final = 4
MEDIAN_REPAIR: Final = 5
RESET: Final = 6
"""Generation of the fault acknowledgement; a new one lets a tripped loop go on."""
BOXCAR: Final = 7
"""Frames of the running mean; 1 means none."""
SNR_FRAMES: Final = 8
HO_VIOLATIONS: Final = 9
PERIOD_NS: Final = 10
BURST: Final = 11
"""Non-destructive reads between two resets; below 2 every frame stands for itself."""
INJECT: Final = 12
INJECT_WAVEFORM: Final = 13
INJECT_BRANCH: Final = 14
INJECT_SET_POINT: Final = 15
"""1: the signal moves the set points of the closed loops; 0: it is added to the command."""
INJECT_LATENCY: Final = 16
INJECT_HOLD: Final = 17
INJECT_SEED: Final = 18
INJECT_EPOCH: Final = 19
"""Changes with every new arming: the waveform starts again."""
STREHL_PIXEL: Final = 20
"""Flat index of the pixel that the Strehl ratio is estimated from; below 0: from the high-order residual."""
OFFSET_EPOCH: Final = 21
"""Changes with the offsets: the mirror follows at once."""
WRONG_PIXELS: Final = 22
"""Saturated or negative pixels that a frame may have to be used."""
FROZEN_FRAMES: Final = 23
"""Repetitions of a frame after which further ones are not used; 0: all are."""
RUNAWAY_LEVEL: Final = 24
"""`RUNAWAY` at which the loop trips; 0: never."""
WRITE_FAILURES: Final = 25
"""Commands in a row that cannot be written before the loop trips; 0: any number."""
BUDGET_EPOCH: Final = 28
"""Changes with every request of a latency budget."""
BUDGET_FRAMES: Final = 29
"""Frames whose stages are timed; 0 ends it."""
N_SWITCHES: Final = 32

INJECT_LO: Final = 0
INJECT_HO: Final = 1
INJECT_ALL: Final = 2

# Columns of `Parameters.limits`.
COMMAND_LIMIT: Final = 0
LO_LIMIT: Final = 1
HO_LIMIT: Final = 2
FLUX_LIMIT: Final = 3
NM_PER_UNIT: Final = 4
WAVELENGTH_NM: Final = 5
STREHL_SLOPE: Final = 6
"""Line from the intensity of `STREHL_PIXEL` to the residual [DM units rms per ADU of a frame]."""
STREHL_INTERCEPT: Final = 7
"""[DM units rms]"""
SATURATION: Final = 8
"""[ADU] of a raw pixel"""
NEGATIVE: Final = 9
"""[ADU] below the dark"""
COMMAND_RMS: Final = 10
"""[DM units]"""
N_LIMITS: Final = 12

# Elements of `State.counters`.
FRAMES: Final = 0
LOST: Final = 1
STALE: Final = 2
SKIPPED: Final = 3
TORN: Final = 4
READ_ERRORS: Final = 5
WRITE_ERRORS: Final = 6
LIMITED: Final = 7
MUTED: Final = 8
TIMEOUTS: Final = 9
LAST_NUMBER: Final = 10
"""Frame counter of the newest frame, -1 when the next frame starts a new count."""
LAST_WAKE_NS: Final = 11
TRIP: Final = 12
"""Why the loop tripped (`TRIP_*`), 0 while it has not."""
LO_CLOSED: Final = 13
HO_CLOSED: Final = 14
PAUSED: Final = 15
RESET_SEEN: Final = 16
LATENCY_MAX_NS: Final = 17
JITTER_MAX_NS: Final = 18
SNR_COUNT: Final = 19
HISTORY: Final = 20
"""Signals in the ring that may enter the boxcar."""
CAMERA_RESTARTS: Final = 21
WRITES: Final = 22
INJECT_EPOCH_SEEN: Final = 23
INJECT_START: Final = 24
"""Frame number of the first frame since injection was armed, `NO_FRAME` before it."""
INJECT_REGISTER: Final = 25
"""Shift register of the pseudo-random sequence."""
INJECT_STEPS: Final = 26
"""Steps of that register so far."""
READS: Final = 27
"""Non-destructive reads of the burst so far, this frame included; 0: no burst has begun."""
INJECT_INDEX: Final = 28
"""Newest frame, counted from `INJECT_START`; -1 before the first."""
LOOPS: Final = 29
"""Both servo states in one word, so that nobody sees one of them alone: 1 low order, 2 high order closed."""
OFFSET_EPOCH_SEEN: Final = 30
BURST_START: Final = 31
"""Frame number of the first read since the last reset."""
INJECT_ARMED: Final = 32
"""1 while a signal is injected: from its arming until it is switched off, or until the loop trips."""
VERSION_IN_FORCE: Final = 33
"""Version of the parameters that frames are processed with."""
POSTS_OWED: Final = 40
"""Frames found by their count, less the posts taken for them."""
POSTS_NUMBER: Final = 41
"""Newest frame in `POSTS_OWED`."""
BUDGET_SEEN: Final = 42
BUDGET_LEFT: Final = 43
"""Frames whose stages are still to be timed."""
NO_FLUX: Final = 50
"""Frames not used because of their flux."""
SATURATED: Final = 51
"""Frames not used because of saturated pixels."""
SATURATED_PIXELS: Final = 52
"""Saturated pixels of the newest frame."""
NEGATIVES: Final = 53
"""Frames not used because of pixels below the dark."""
NEGATIVE_PIXELS: Final = 54
"""Such pixels of the newest frame."""
FROZEN: Final = 55
"""Frames that repeat the pixels of the frame before."""
FROZEN_RUN: Final = 56
"""The newest of them in a row."""
NOT_FINITE: Final = 57
"""Frames not used because the signal or an error was not finite."""
WRONG_FORMAT: Final = 58
"""Frames not used because the stream had changed its shape or type."""
LO_LIMITED: Final = 59
"""Tip/tilt maps beyond their limit."""
HO_LIMITED: Final = 60
"""High-order modes beyond their limit."""
COMMAND_LIMITED: Final = 61
"""Commands beyond their limit, or not finite."""
RUNAWAY: Final = 62
"""How much the controllers have run into their limits lately, see `loop_command.runs_away`."""
WRITE_RUN: Final = 63
"""Commands in a row, up to the newest, that could not be written."""
FLAT_PENDING: Final = 64
"""1 after a trip until the flat command is written."""
TRIPS: Final = 65
"""Trips since start."""
FROZEN_SKIPPED: Final = 66
"""Repeating frames that were not used."""
N_COUNTERS: Final = 72

CHECKPOINT_RECORD: Final = -2
"""Element of `State.checkpoint`: records in the ring when it was made."""
CHECKPOINT_VERSION: Final = -1
"""Element of `State.checkpoint`: version of the parameters in force then."""
CHECKPOINT_EXTRA: Final = 2

NO_FRAME: Final = -(1 << 62)
"""No frame yet."""

TRIP_LIMIT: Final = 1
"""The command exceeded its limit."""
TRIP_NOT_FINITE: Final = 2
"""The command was not finite."""
TRIP_RUNAWAY: Final = 3
"""The controllers kept running into their limits."""
TRIP_WRITE: Final = 4
"""Commands could not be written."""

# Histograms of times: bins of 64 ns up to 8 us, from there on 64 bins per doubling (1.6 %), up to 8 s.
BIN_SHIFT: Final = 6
"""The narrowest bin has ``1 << BIN_SHIFT`` nanoseconds."""
OCTAVE_BINS: Final = 64
N_BINS: Final = 22 * OCTAVE_BINS
"""The last one holds everything larger."""

# Stages of a frame in the latency budget; stage k ends with stamp k.
STAGE_WAIT: Final = 0
"""From the write time in the stream's header to the wake-up."""
STAGE_READ: Final = 1
STAGE_RECONSTRUCT: Final = 2
STAGE_CONTROL: Final = 3
STAGE_WRITE: Final = 4
STAGE_RECORD: Final = 5
STAGE_LATENCY: Final = 6
"""From the wake-up to the command written."""
N_STAGES: Final = 7
WRITE_TIME_SEEN: Final = 6
"""Element of `State.stamps`: write time of the frame before, to tell whether the stream keeps it."""
N_STAMPS: Final = 7

# Places inside a stream's file (ImageStreamIO 0.0.01).
HEADER_WORDS: Final = 42
"""int64 words of the header: 336 bytes."""
ACQUISITION_TIME_WORD: Final = 23
"""Seconds; nanoseconds are in the next word."""
WRITE_TIME_WORD: Final = 25
CNT0_WORD: Final = 30
WRITE_WORD: Final = 33
FORMAT_WORD: Final = 14
"""First of the words that say shape and type."""
FORMAT_WORDS: Final = 4
COUNTS_OFFSET: Final = 240
"""File offset of cnt0; the command buffer starts there and reaches to the end of the data."""
COUNTS_WORDS: Final = 12
"""int64 words from cnt0 to the first data element."""
COUNTS_NBYTES: Final = 32
"""Bytes from cnt0 to the write flag, rounded up."""

# Elements of `Io.handles`.
CAMERA_FD: Final = 0
CAMERA_SEMAPHORE: Final = 1
DM_FD: Final = 2
TRIGGER_SEMAPHORE: Final = 3
WAIT_NS: Final = 4
SPIN_NS: Final = 5
"""Time for which the camera's counter is polled before the semaphore is waited for; 0: not at all."""
N_HANDLES: Final = 6


class Io(NamedTuple):
    """Open streams and the buffers that frames and commands pass through."""

    handles: I64
    dm_semaphores: I64
    """Addresses of the DM channel's semaphores, its log semaphore included."""
    frame_words: I64
    """Header and pixels of the camera stream as they are in the file."""
    raw: I32
    """(P,) the pixels inside `frame_words`."""
    check: I64
    """(4,) counters read again after the frame."""
    format: I64
    """(4,) words of the camera stream's header that say shape and type, as they were on opening."""
    dm_words: I64
    """DM channel from cnt0 on: counters, write flag, data."""
    dm_map: F64
    """(G,) the data inside `dm_words` [DM units]."""


class Kalman(NamedTuple):
    """Matrices of a Kalman regulator with a steady gain, dense (2, M, M) float32."""

    transition: F32
    """A: disturbance from frame to frame."""
    control: F32
    """B: what a command takes away from the measurement."""
    measurement: F32
    """H: what the sensor sees of the disturbance."""
    gain: F32
    """Steady-state Kalman gain."""


class Parameters(NamedTuple):
    """What the operator and the configuration say; the first axis is the slot (two copies)."""

    switches: I64
    limits: F64
    dark: F32
    flux_weights: F32
    bad_pixels: I64
    """(k,) flat indices, not slotted: another list means another configuration."""
    exterior_pixels: I64
    to_actuators: Matrix
    reference: F32
    inverse_clear_pupil: F32
    reconstructor_lo: Matrix
    reconstructor_ho: Matrix
    shapes_lo: Matrix
    shapes_ho: Matrix
    used_ho: I64
    """(2, H) 1 for modes whose reconstructor row is not zero."""
    set_point_lo: F64
    kp_lo: F64
    ki_lo: F64
    kd_lo: F64
    leak_lo: F64
    lower_lo: F64
    upper_lo: F64
    set_point_ho: F64
    kp_ho: F64
    ki_ho: F64
    kd_ho: F64
    leak_ho: F64
    lower_ho: F64
    upper_ho: F64
    injection: F64
    """(2, N_VALUES) see `injection`."""
    inject_map: F32
    """(2, G) DM map of a unit signal, for injection into the command."""
    inject_lo: F64
    """(2, L) modes of a unit signal, for injection into the set points."""
    inject_ho: F64
    inject_shape_lo: F32
    """(2, G) DM map of `inject_lo`."""
    inject_shape_ho: F32
    kalman_lo: Kalman
    kalman_ho: Kalman
    offset_lo: F32
    """(2, G) map added while the tip/tilt loop is open [DM units]."""
    offset_ho: F32


class State(NamedTuple):
    """What the loop remembers from frame to frame."""

    counters: I64
    latency_bins: I64
    jitter_bins: I64
    stamps: I64
    """(N_STAMPS,) ends of the stages of the newest timed frame [ns]."""
    stage_bins: I64
    """(N_STAGES, N_BINS) of the newest latency budget."""
    stage_max: I64
    """(N_STAGES,) [ns]"""
    image: F32
    """(P,) dark-subtracted frame."""
    scratch: F32
    averaged: F32
    """(A,) signal after the boxcar."""
    integral_lo: F64
    previous_lo: F64
    integral_ho: F64
    previous_ho: F64
    violations: I64
    muted: I64
    actuator_violations: I64
    """(G,) times a point of the command was beyond its limit, since start."""
    held_lo: F32
    """(G,) tip/tilt part of the command in force, before the minus."""
    held_ho: F32
    command: F32
    """(G,) command in force."""
    last_lo: F32
    """(L,) controller output of the frame before."""
    last_ho: F32
    burst: F64
    """(4,) sums over the non-destructive reads of a burst, see `frame`."""
    burst_total: F64
    """(P,) sum of the reads [ADU]."""
    burst_moment: F64
    """(P,) sum of frame number times read [ADU frames]."""
    predicted_lo: F32
    """(L,) Kalman: disturbance expected at the next frame."""
    predicted_ho: F32
    scratch_lo: F32
    """(L,)"""
    scratch_ho: F32
    target_lo: F64
    """(L,) set point with the injected signal."""
    target_ho: F64
    injected: F32
    """(G,) injected part of the command."""
    mean: F32
    """(A,) running mean of the actuator-space image."""
    variance: F32
    memory: I64
    """Everything above that outlives a frame, histograms apart: those arrays are views of it."""
    checkpoint: I64
    """Copy of `memory` between two frames, made when asked for; two more words say between which."""


class Ring(NamedTuple):
    """The telemetry ring's arrays, one per field; see `baldr_tango.telemetry.fields`."""

    cursor: I64
    """(8,) the first element counts the records ever written."""
    frame: I64
    time_ns: I64
    latency_ns: I32
    LO_servo_mode: NDArray[np.int8]
    HO_servo_mode: NDArray[np.int8]
    flags: NDArray[np.uint16]
    img: I32
    img_dm: F32
    signal: F32
    e_LO: F32
    u_LO: F32
    e_HO: F32
    u_HO: F32
    c_LO: F32
    c_HO: F32
    c_inj: F32
    command: F32
    flux: F64
    rmse_est: F32
    snr: F32
    strehl: F32
    version: I64


# Bits of the ring's field `flags`; the same numbers as `telemetry.fields.FrameFlag`.
FLAG_SKIPPED: Final = 1
FLAG_LIMITED: Final = 2
FLAG_TRIPPED: Final = 4
FLAG_MISSED_BEFORE: Final = 8
FLAG_NOT_APPLIED: Final = 16
FLAG_NO_FLUX: Final = 32
FLAG_SATURATED: Final = 64
FLAG_NEGATIVE: Final = 128
FLAG_FROZEN: Final = 256
FLAG_NOT_FINITE: Final = 512
FLAG_WRITE_FAILED: Final = 1024
