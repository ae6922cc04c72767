"""Signal injection: one scalar per frame, exact in frames.

Time is the frame number divided by the frame rate, so that a lost or late frame does not shift the
waveform, and the same frames always give the same signal.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from baldr_tango.kernels.jit import kernel

NONE: Final = 0
SINE: Final = 1
SQUARE: Final = 2
STEP: Final = 3
CHIRP: Final = 4
PRBS: Final = 5

# Elements of `values` (float64).
AMPLITUDE: Final = 0
FREQUENCY_HZ: Final = 1
PHASE_RAD: Final = 2
DUTY: Final = 3
START_S: Final = 4
STOP_S: Final = 5
CHIRP_F0_HZ: Final = 6
CHIRP_F1_HZ: Final = 7
CHIRP_S: Final = 8
N_VALUES: Final = 9

DEFAULT_SEED: Final = 0xACE1
"""Seed taken for 0, of which a shift register never gets away."""
REGISTER_MASK: Final = 0x7FFFFFFF
"""The 31 bits of the register."""
OUTSIDE: Final = -1
_ROUNDING: Final = 1e-6
"""Frames: a time that is a whole number of frames but for rounding is that number."""
_EDGE: Final = 1e-9
"""Cycles: an edge of the square wave that falls on a frame but for rounding falls on it."""


@kernel
def prbs_step(register: int) -> int:
    """Shift the 31-bit register of the pseudo-random binary sequence (x^31 + x^28 + 1) by one."""
    bit = ((register >> 30) ^ (register >> 27)) & 1
    return ((register << 1) | bit) & REGISTER_MASK


@kernel
def waveform(kind: int, values: Any, t: float, register: int) -> float:
    """Value of the waveform at time `t` [s] after its first sample.

    sine ``A sin(2 pi f t + phi)``; square A during the first `DUTY` of a period, then 0; step A; chirp
    from f0 to f1 in T, linear in frequency, constant phase afterwards; prbs +A or -A by the last bit of
    `register`.
    """
    amplitude = values[AMPLITUDE]
    if kind == SINE:
        return amplitude * np.sin(2.0 * np.pi * values[FREQUENCY_HZ] * t + values[PHASE_RAD])
    if kind == SQUARE:
        frequency = values[FREQUENCY_HZ]
        if frequency <= 0.0:
            return 0.0
        cycles = t * frequency + values[PHASE_RAD] / (2.0 * np.pi) + _EDGE
        return amplitude if cycles - np.floor(cycles) < values[DUTY] else 0.0
    if kind == STEP:
        return amplitude
    if kind == CHIRP:
        duration = values[CHIRP_S]
        if duration <= 0.0:
            return 0.0
        u = min(max(t, 0.0), duration)
        slope = (values[CHIRP_F1_HZ] - values[CHIRP_F0_HZ]) / duration
        return amplitude * np.sin(
            2.0 * np.pi * (values[CHIRP_F0_HZ] * u + 0.5 * slope * u * u) + values[PHASE_RAD]
        )
    if kind == PRBS:
        return amplitude if register & 1 else -amplitude
    return 0.0


@kernel
def step_of(frame: int, hold: int, values: Any, period_s: float) -> int:
    """Number of the waveform's sample at a frame, 0 the first inside the gate; `OUTSIDE` the gate.

    A frame is inside when its time is neither before the start nor after the stop; a stop time of 0 means
    no end. A sample lasts for `hold` frames, the first from the first frame inside.

    frame : frames since injection was armed, less the latency
    """
    if frame < 0 or not period_s > 0.0:
        return OUTSIDE
    first = np.int64(np.ceil(values[START_S] / period_s - _ROUNDING))
    if frame < first:
        return OUTSIDE
    if values[STOP_S] > 0.0 and frame > np.int64(np.floor(values[STOP_S] / period_s + _ROUNDING)):
        return OUTSIDE
    return (frame - first) // max(hold, 1)
