"""The virtual instrument's loop: mirror commands in, frames out, for all beams, without the interpreter.

B beams, G = 144 points of the DM grid, P pixels of a frame, C DM channels, K frames kept for files.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.jit import allocating_kernel, kernel
from baldr_tango.kernels.libc import monotonic_ns, sem_trywait, sleep_until_ns
from baldr_tango.kernels.plants import (
    FLUX,
    FRAME,
    LATE_TICKS,
    OPD_RMS,
    OPEN_RMS,
    OPEN_STREHL,
    STREHL,
    SUM_FRAMES,
    SUM_OPD_MS,
    SUM_OPEN_MS,
    SUM_OPEN_STREHL,
    SUM_STREHL,
    LinearPlant,
    OpticalPlant,
    linear_frame,
    optical_frame,
)
from baldr_tango.kernels.simulation_streams import (
    StreamTable,
    read_mirror,
    write_combined,
    write_frame,
    write_truth,
)

# Control words (int64). MIRRORS: the DM channels are summed and applied. READS: reads between two resets of
# the detector, below 2: every frame stands for itself. SLOPES: the camera server filters its frames. KEEP:
# frames are kept for files. From MASK_IN on, one word per beam numbers the mask that is in (0: none), then
# one word per beam says whether it sees turbulence.
RUN: Final = 0
PERIOD_NS: Final = 1
LAMP: Final = 2
SILENT: Final = 3
POST_FIRST: Final = 4
DROP_EVERY: Final = 5
MIRRORS: Final = 6
READS: Final = 7
SLOPES: Final = 8
KEEP: Final = 9
MASK_IN: Final = 10

# Counters (int64).
TICKS: Final = 0
LATE: Final = 1
SKIPPED: Final = 2
NOT_FINITE: Final = 3
WRITE_ERRORS: Final = 4
N_COUNTERS: Final = 5

# Rows of the counts: cnt0 and cnt1 of the streams of each beam.
FRAME_COUNTS: Final = 0
MIRROR_COUNTS: Final = 1
TRUTH_COUNTS: Final = 2
N_COUNTS: Final = 3

# Levels (float64): flux and gain relative to those at the start.
FLUX_SCALE: Final = 0
GAIN_SCALE: Final = 1
N_LEVELS: Final = 2

SLEEP_SLICE_NS: Final = 20_000_000
"""Longest uninterrupted sleep [ns], so that stopping is prompt at any frame rate."""


WINDOW: Final = 9
"""Frames in the slope filter of the camera server."""

FILTER_LEVEL: Final = 1000
"""What the camera server adds to the filtered frame [ADU]."""

FULL_SCALE: Final = 65535.0
"""Largest number of the camera's converter [ADU]."""


class Detector(NamedTuple):
    """Camera of all beams."""

    dark: NDArray[np.float32]
    """(B, P) level of a frame without light [ADU]."""
    flux: NDArray[np.float64]
    """(B,) light of a frame [ADU]; may change while the loop runs."""
    read_noise: NDArray[np.float64]
    """(B,) [ADU rms]; may change while the loop runs."""
    electrons_per_adu: float
    normals: NDArray[np.float32]
    """(N,) normal deviates; each use begins at a random place."""
    dice: NDArray[np.int64]
    """(B,) state of the generator of these places; advances."""


class ReadOut(NamedTuple):
    """What camera and camera server remember from frame to frame, of all beams."""

    charge: NDArray[np.float32]
    """(B, P) charge since the reset [ADU]; advances."""
    place: NDArray[np.int64]
    """(B,) reads since the reset; advances."""
    window: NDArray[np.int32]
    """(B, WINDOW, P) newest frames before the filter [ADU]; frame n at n modulo WINDOW."""
    windowed: NDArray[np.int64]
    """(B,) frames that went into the window."""
    kept: NDArray[np.int32]
    """(B, K, P) newest frames as they were written [ADU]; frame n at n modulo K."""
    keeping: NDArray[np.int64]
    """(B,) frames kept so far."""


@kernel
def random_place(dice, beam, places):
    """Draw an index below `places` (at most 2^22): linear congruential generator, lower bits dropped."""
    state = (dice[beam] * 1103515245 + 12345) & 0x7FFFFFFF
    dice[beam] = state
    return (state >> 8) % places


@kernel
def expose(image, dark, flux, gain, read_noise, electrons_per_adu, normals, offset, frame):
    """Turn intensity into a camera frame.

    Photon noise is the normal approximation of Poisson's, of variance flux / electrons_per_adu; together
    with the read noise it takes one deviate per pixel.

    image : (P,) intensity per unit flux
    dark : (P,) level without light [ADU]
    flux : light of the frame [ADU], with the gain in it
    gain : relative to the one at which `electrons_per_adu` holds
    frame : (P,) int32, overwritten [ADU]
    """
    floor = np.float32(read_noise * read_noise)
    photon = np.float32(gain / electrons_per_adu)
    light = np.float32(flux)
    for i in range(image.size):
        signal = light * image[i]
        sigma = np.sqrt(floor + photon * max(signal, np.float32(0.0)))
        value = dark[i] + signal + sigma * normals[offset + i]
        value = min(max(value, np.float32(-2.0e9)), np.float32(2.0e9))
        frame[i] = np.int32(np.rint(value))


@kernel
def add_charge(charge, image, flux, gain, electrons_per_adu, normals, offset):
    """Add the light of one frame period to the charge, with its photon noise; arguments as of `expose`.

    charge : (P,) [ADU], advances
    """
    photon = np.float32(gain / electrons_per_adu)
    light = np.float32(flux)
    for i in range(charge.size):
        signal = light * image[i]
        charge[i] += signal + np.sqrt(photon * max(signal, np.float32(0.0))) * normals[offset + i]


@kernel
def read_charge(charge, dark, read_noise, normals, offset, frame):
    """Read the detector without resetting it; the converter ends at `FULL_SCALE`.

    charge : (P,) since the reset [ADU]
    frame : (P,) int32, overwritten [ADU]
    """
    noise = np.float32(read_noise)
    for i in range(charge.size):
        value = dark[i] + charge[i] + noise * normals[offset + i]
        frame[i] = np.int32(np.rint(min(max(value, np.float32(-2.0e9)), np.float32(FULL_SCALE))))


@kernel
def filter_slopes(window, newest, frame):
    """Replace a frame by the slope filter over the newest ones: 60 times the increase per read.

    ``1000 + sum_k (4 - k) frame[now - k]``, k = 0..8. As on the instrument, a reset inside the window is not
    left out: frames within nine of it are wrong.

    window : (WINDOW, P); newest : number of the newest frame
    frame : (P,) int32, overwritten
    """
    frame[:] = FILTER_LEVEL
    for k in range(WINDOW):
        weight = 4 - k
        row = window[(newest - k) % WINDOW]
        for i in range(frame.size):
            frame[i] += weight * row[i]


@kernel
def apply_mirror(combined, flat, command):
    """Move the mirror: ``command = combined - flat``; where that is not a number the actuator stays.

    Returns the number of actuators that were given something not finite.
    """
    refused = 0
    for g in range(combined.size):
        # Not isfinite(combined - flat): reassociation turns that into True.
        if 0.0 <= combined[g] <= 1.0:
            command[g] = combined[g] - flat
        else:
            refused += 1
    return refused


@kernel
def is_triggered(streams, beam, mirror_counts):
    """Take all posts of a mirror's trigger; True when there was one, or when the mirror never moved yet.

    The DM server sums its channels when the combined stream's semaphore is posted, and not otherwise.
    """
    triggered = mirror_counts[beam, 0] == 0
    while sem_trywait(streams.triggers[beam]):
        triggered = True
    return triggered


@kernel
def show(values, scale, out):
    """Copy for those who look on: ``out = scale * values``."""
    for i in range(out.size):
        out[i] = np.float32(scale * values[i])


@kernel
def account(truth, frame, flux, late):
    """Complete the truth vector of a frame and add it to the sums."""
    truth[FRAME] = frame
    truth[FLUX] = flux
    truth[LATE_TICKS] = late
    truth[SUM_FRAMES] += 1.0
    truth[SUM_OPD_MS] += truth[OPD_RMS] * truth[OPD_RMS]
    truth[SUM_STREHL] += truth[STREHL]
    truth[SUM_OPEN_MS] += truth[OPEN_RMS] * truth[OPEN_RMS]
    truth[SUM_OPEN_STREHL] += truth[OPEN_STREHL]


@kernel
def wait_for_tick(control, counters, deadline, period):
    """Sleep until the next tick is due; return its time, or -1 when told to stop.

    A tick that is more than half a period late restarts the clock, so that frames never follow each other in
    less than half a period: no camera catches up.
    """
    now = monotonic_ns()
    late = now - deadline
    if 2 * late > period:
        counters[LATE] += 1
        counters[SKIPPED] += late // period
        deadline = now
    while now < deadline:
        if load_acquire(control, RUN) == 0:
            return -1
        sleep_until_ns(min(deadline, now + SLEEP_SLICE_NS))
        now = monotonic_ns()
    if load_acquire(control, RUN) == 0:
        return -1
    return deadline


@allocating_kernel
def serve(
    is_linear: bool,
    optical: OpticalPlant,
    linear: LinearPlant,
    detector: Detector,
    read_out: ReadOut,
    streams: StreamTable,
    flat: float,
    control: NDArray[np.int64],
    levels: NDArray[np.float64],
    counters: NDArray[np.int64],
    command: NDArray[np.float64],
    truth: NDArray[np.float64],
    counts: NDArray[np.int64],
    opd: NDArray[np.float32],
    max_ticks: int,
) -> None:
    """Serve all beams until told to stop, or for `max_ticks` frame periods when that is positive.

    flat : DM command of a flat mirror [DM units]
    control, levels, counters : see the constants of this module
    command : (B, G) mirror command relative to the flat [DM units], overwritten every tick
    truth : (B, len(TRUTH)) overwritten every tick
    counts : (N_COUNTS, B, 2) cnt0 and cnt1 of camera, combined DM stream and truth; continued
    opd : (B, p) wavefront error behind the mirror [nm], on the pupil's pixels or (linear plant) on the G
        points of the DM grid, overwritten every tick
    """
    beams = streams.descriptors.shape[0]
    pixels = detector.dark.shape[1]
    grid = command.shape[1]
    channel = np.zeros(grid)
    total = np.zeros(grid)
    combined = np.zeros(grid)
    disturbed = np.zeros(grid)
    change = np.zeros(linear.support.shape[1], dtype=np.float32)
    scratch = np.zeros((4, optical.pixels.size), dtype=np.float32)
    wave = np.zeros((2, pixels), dtype=np.float32)
    image = np.zeros(pixels, dtype=np.float32)
    frame = np.zeros(pixels, dtype=np.int32)
    flag = np.zeros(1, dtype=np.uint8)
    frame_counts = counts[FRAME_COUNTS]
    mirror_counts = counts[MIRROR_COUNTS]
    truth_counts = counts[TRUTH_COUNTS]
    places = detector.normals.size - max(pixels, grid)
    keep_length = read_out.kept.shape[1]
    tick = counters[TICKS]
    last = tick + max_ticks
    deadline = monotonic_ns()
    while max_ticks <= 0 or tick < last:
        period = load_acquire(control, PERIOD_NS)
        deadline = wait_for_tick(control, counters, deadline + period, period)
        if deadline < 0:
            break
        dt = 1e-9 * period
        lit = load_acquire(control, LAMP) != 0
        post_first = load_acquire(control, POST_FIRST) != 0
        drop_every = load_acquire(control, DROP_EVERY)
        mirrors = load_acquire(control, MIRRORS) != 0
        reads = load_acquire(control, READS)
        slopes = load_acquire(control, SLOPES) != 0
        keep = load_acquire(control, KEEP) != 0
        leave_out = load_acquire(control, SILENT) != 0 or (
            drop_every > 0 and tick % drop_every == drop_every - 1
        )
        for b in range(beams):
            mask = load_acquire(control, MASK_IN + b)
            turbulent = load_acquire(control, MASK_IN + beams + b) != 0
            errors = 0
            if mirrors and is_triggered(streams, b, mirror_counts):
                read_mirror(streams, b, channel, total, combined)
                errors += write_combined(streams, b, combined, flag, mirror_counts)
                counters[NOT_FINITE] += apply_mirror(combined, flat, command[b])
            offset = random_place(detector.dice, b, places)
            if is_linear:
                linear_frame(
                    linear, b, command[b], dt, turbulent, mask, detector.normals, offset,
                    disturbed, change, image, truth[b],
                )  # fmt: skip
                show(disturbed, linear.nm_per_dm_unit, opd[b])
            else:
                optical_frame(
                    optical, b, command[b], dt, turbulent, mask, detector.normals, offset,
                    scratch, wave, image, truth[b],
                )  # fmt: skip
                show(scratch[0], 1.0, opd[b])
            flux = detector.flux[b] * levels[FLUX_SCALE] if lit else 0.0
            place = random_place(detector.dice, b, places)
            if reads > 1:
                read_out.place[b] += 1
                if read_out.place[b] < reads:
                    add_charge(
                        read_out.charge[b], image, flux, levels[GAIN_SCALE], detector.electrons_per_adu,
                        detector.normals, random_place(detector.dice, b, places),
                    )  # fmt: skip
                else:  # reset: the first read sees no light yet
                    read_out.place[b] = 0
                    read_out.charge[b, :] = 0.0
            if not leave_out:
                if reads > 1:
                    read_charge(
                        read_out.charge[b], detector.dark[b], detector.read_noise[b], detector.normals,
                        place, frame,
                    )  # fmt: skip
                else:
                    expose(
                        image, detector.dark[b], flux, levels[GAIN_SCALE], detector.read_noise[b],
                        detector.electrons_per_adu, detector.normals, place, frame,
                    )  # fmt: skip
                newest = read_out.windowed[b]
                read_out.window[b, newest % WINDOW] = frame
                read_out.windowed[b] = newest + 1
                if slopes:
                    filter_slopes(read_out.window[b], newest, frame)
                if keep:
                    kept = read_out.keeping[b]
                    read_out.kept[b, kept % keep_length] = frame
                    store_release(read_out.keeping, b, kept + 1)
                errors += write_frame(streams, b, frame, flag, frame_counts, post_first)
            account(truth[b], frame_counts[b, 0], flux, counters[LATE])
            errors += write_truth(streams, b, truth, flag, truth_counts)
            counters[WRITE_ERRORS] += errors
        tick += 1
        store_release(counters, TICKS, tick)
