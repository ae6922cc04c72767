"""The real-time loop: wait for a frame, process it, write the mirror, record it, again.

`run` holds no GIL from its first to its last instruction. It looks at the parameter version once per
frame, so a change made by an operator is seen whole or not at all, and it never blocks for longer than
the wait given in ``Io.handles``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.control import are_finite, largest, rms
from baldr_tango.kernels.frame import (
    CHARGE,
    accumulate,
    add_read,
    boxcar,
    burst_slope,
    mean_of,
    repair_with_median,
    sensor_signal,
    signal_to_noise,
    subtract_dark,
)
from baldr_tango.kernels.jit import kernel, part_of_kernel
from baldr_tango.kernels.libc import (
    monotonic_ns,
    sem_trywait,
    sem_wait_until,
    sleep_until_ns,
)
from baldr_tango.kernels.linear import copy, multiply
from baldr_tango.kernels.loop_command import (
    apply_command,
    reset_ho,
    reset_lo,
    runs_away,
    settle_command,
    write_settled,
)
from baldr_tango.kernels.loop_control import carry_outputs_over, control_ho, control_lo
from baldr_tango.kernels.loop_injection import arm, disarm, inject, prepare_targets
from baldr_tango.kernels.loop_streams import (
    OTHER_FORMAT,
    READ,
    TORN,
    number_frame,
    read_frame,
    same_pixels,
    settled_count,
    write_command,
)
from baldr_tango.kernels.loop_timing import begin_budget, bin_of, note_stages, stamp
from baldr_tango.kernels.loop_waiting import forget_frames, wait_for_count
from baldr_tango.kernels.prefetch import prefetch_row

_PAUSE_NS = 2_000_000


@part_of_kernel
def adopt(parameters: Any, state: Any, io: Any, slot: int) -> None:
    """Take over a new set of parameters at a frame boundary.

    Opening resets the controller and removes its correction from the mirror at once, with or without
    frames arriving; so closing starts from zero, or from what an operator has set while the loop was open.
    New offsets and the end of an injection reach the mirror at once, too.
    """
    counters = state.counters
    switches = parameters.switches[slot]
    changed = switches[d.OFFSET_EPOCH] != counters[d.OFFSET_EPOCH_SEEN]
    counters[d.OFFSET_EPOCH_SEEN] = switches[d.OFFSET_EPOCH]
    if switches[d.RESET] != counters[d.RESET_SEEN]:
        counters[d.RESET_SEEN] = switches[d.RESET]
        offsets = max(largest(parameters.offset_lo[slot]), largest(parameters.offset_ho[slot]))
        changed = changed or (counters[d.TRIP] != 0 and offsets > 0.0)
        counters[d.TRIP] = 0
        counters[d.WRITE_RUN] = 0
    changed = changed or counters[d.FLAT_PENDING] != 0
    close_lo = 1 if switches[d.CLOSE_LO] != 0 and counters[d.TRIP] == 0 else 0
    close_ho = 1 if switches[d.CLOSE_HO] != 0 and counters[d.TRIP] == 0 else 0
    if close_lo == 0 and counters[d.LO_CLOSED] != 0:
        reset_lo(state)
        changed = True
    if close_ho == 0 and counters[d.HO_CLOSED] != 0:
        reset_ho(state)
        changed = True
    counters[d.LO_CLOSED] = close_lo
    counters[d.HO_CLOSED] = close_ho
    counters[d.LOOPS] = close_lo + 2 * close_ho
    if switches[d.INJECT_EPOCH] != counters[d.INJECT_EPOCH_SEEN]:
        counters[d.INJECT_EPOCH_SEEN] = switches[d.INJECT_EPOCH]
        changed = changed or largest(state.injected) > 0.0
        arm(state, switches)
    if switches[d.BUDGET_EPOCH] != counters[d.BUDGET_SEEN]:
        counters[d.BUDGET_SEEN] = switches[d.BUDGET_EPOCH]
        begin_budget(state, switches)
    if changed:
        apply_command(parameters, state, io, slot, state.command, 0)
    if counters[d.PAUSED] != 0 and switches[d.PAUSE] == 0:
        forget_frames(state, io)
    counters[d.PAUSED] = switches[d.PAUSE]


@part_of_kernel
def time_of_read(state: Any, switches: Any, charge: float) -> int:
    """Return the time of a non-destructive read [frames since the first of its burst].

    The collected charge only grows until the reset; whatever makes it fall began a new burst.
    """
    counters = state.counters
    t = counters[d.LAST_NUMBER] - counters[d.BURST_START]
    is_known = counters[d.READS] > 0 and 0 < t < switches[d.BURST]
    if not is_known or charge < state.burst[CHARGE]:
        counters[d.BURST_START] = counters[d.LAST_NUMBER]
        counters[d.READS] = 0
        t = 0
    counters[d.READS] += 1
    state.burst[CHARGE] = charge
    return t


@part_of_kernel
def hold(state: Any, ring: Any, row: int) -> None:
    """Fill in the record of a frame that is not used: the command in force stays on the mirror."""
    ring.img_dm[row][:] = np.float32(0.0)
    ring.signal[row][:] = np.float32(0.0)
    ring.e_LO[row][:] = np.float32(0.0)
    ring.e_HO[row][:] = np.float32(0.0)
    copy(state.last_lo, ring.u_LO[row])
    copy(state.last_ho, ring.u_HO[row])
    copy(state.held_lo, ring.c_LO[row])
    copy(state.held_ho, ring.c_HO[row])
    copy(state.injected, ring.c_inj[row])
    copy(state.command, ring.command[row])


@part_of_kernel
def check_pixels(state: Any, switches: Any) -> int:
    """Return the flags of a frame whose pixels say that it must not be used, counted; 0: it may be."""
    counters = state.counters
    flags = 0
    if 0 < switches[d.FROZEN_FRAMES] <= counters[d.FROZEN_RUN]:
        flags |= d.FLAG_FROZEN
        counters[d.FROZEN_SKIPPED] += 1
    if counters[d.SATURATED_PIXELS] > switches[d.WRONG_PIXELS]:
        flags |= d.FLAG_SATURATED
        counters[d.SATURATED] += 1
    if counters[d.NEGATIVE_PIXELS] > switches[d.WRONG_PIXELS]:
        flags |= d.FLAG_NEGATIVE
        counters[d.NEGATIVES] += 1
    return flags


@part_of_kernel
def take_flux(parameters: Any, state: Any, io: Any, slot: int, dark_subtracted: float) -> float:
    """Finish the frame in ``state.image`` and return its flux; 0 for a read that only begins a burst.

    dark_subtracted : flux of the frame as it is
    """
    p = parameters
    switches = p.switches[slot]
    flux = dark_subtracted
    if switches[d.BURST] > 1:
        t = time_of_read(state, switches, flux)
        add_read(io.raw, t, state.burst, state.burst_total, state.burst_moment)
        if t == 0:
            return 0.0
        flux = burst_slope(
            state.burst, state.burst_total, state.burst_moment, p.flux_weights[slot], state.image
        )
    else:
        state.counters[d.READS] = 0
    if switches[d.MEDIAN_REPAIR] != 0 and p.bad_pixels.size > 0:
        flux = repair_with_median(state.image, p.bad_pixels, state.scratch)
    return flux


@part_of_kernel
def compute(parameters: Any, state: Any, io: Any, ring: Any, slot: int, row: int) -> tuple[int, bool]:
    """Turn the frame in ``io.raw`` into a mirror command in the ring's row.

    Returns the frame's flags, and whether the command must be written to the mirror.

    Vectors are written straight into row `row` of the ring, so recording them costs nothing.
    """
    p = parameters
    counters = state.counters
    switches = p.switches[slot]
    limits = p.limits[slot]
    flux, saturated, negative = subtract_dark(
        io.raw,
        p.dark[slot],
        p.flux_weights[slot],
        np.float32(limits[d.SATURATION]),
        np.float32(limits[d.NEGATIVE]),
        state.image,
    )
    counters[d.SATURATED_PIXELS] = saturated
    counters[d.NEGATIVE_PIXELS] = negative
    flags = check_pixels(state, switches)
    is_burst_start = False
    if flags == 0:
        flux = take_flux(p, state, io, slot, flux)
        is_burst_start = switches[d.BURST] > 1 and counters[d.READS] == 1
        if not is_burst_start and not limits[d.FLUX_LIMIT] < flux < np.inf:
            flags |= d.FLAG_NO_FLUX
            counters[d.NO_FLUX] += 1
    ring.flux[row] = flux
    if is_burst_start or flags != 0:
        if not is_burst_start:
            counters[d.SKIPPED] += 1
            counters[d.HISTORY] = 0
        hold(state, ring, row)
        return flags | d.FLAG_SKIPPED | d.FLAG_NOT_APPLIED, False
    image_dm = ring.img_dm[row]
    signal = ring.signal[row]
    error_lo = ring.e_LO[row]
    error_ho = ring.e_HO[row]
    output_lo = ring.u_LO[row]
    output_ho = ring.u_HO[row]
    shape_lo = ring.c_LO[row]
    shape_ho = ring.c_HO[row]
    multiply(p.to_actuators, slot, state.image, image_dm)
    sensor_signal(image_dm, flux, p.reference[slot], p.inverse_clear_pupil[slot], signal)
    frames = switches[d.BOXCAR]
    if frames > 1 and counters[d.HISTORY] >= frames - 1:
        boxcar(
            ring.signal,
            ring.flags,
            load_acquire(ring.cursor, 0),
            signal,
            frames,
            state.averaged,
        )
        multiply(p.reconstructor_lo, slot, state.averaged, error_lo)
        multiply(p.reconstructor_ho, slot, state.averaged, error_ho)
    else:
        multiply(p.reconstructor_lo, slot, signal, error_lo)
        multiply(p.reconstructor_ho, slot, signal, error_ho)
    if not (are_finite(signal) and are_finite(error_lo) and are_finite(error_ho)):
        counters[d.NOT_FINITE] += 1
        counters[d.SKIPPED] += 1
        counters[d.HISTORY] = 0
        hold(state, ring, row)
        return d.FLAG_NOT_FINITE | d.FLAG_SKIPPED | d.FLAG_NOT_APPLIED, False
    counters[d.HISTORY] += 1
    stamp(state, d.STAGE_RECONSTRUCT)
    restarts, resets = counters[d.LO_LIMITED], counters[d.HO_LIMITED]
    prepare_targets(p, state, slot, inject(p, state, slot), ring.c_inj[row])
    if counters[d.LO_CLOSED] != 0:
        if control_lo(p, state, slot, error_lo, output_lo, shape_lo):
            flags |= d.FLAG_LIMITED
    else:
        output_lo[:] = np.float32(0.0)
        shape_lo[:] = np.float32(0.0)
    if counters[d.HO_CLOSED] != 0:
        if control_ho(p, state, slot, error_ho, output_ho, shape_ho):
            flags |= d.FLAG_LIMITED
    else:
        output_ho[:] = np.float32(0.0)
        shape_ho[:] = np.float32(0.0)
    copy(shape_lo, state.held_lo)
    copy(shape_ho, state.held_ho)
    was_tripped = counters[d.TRIP] != 0
    restarts, resets = counters[d.LO_LIMITED] - restarts, counters[d.HO_LIMITED] - resets
    fault = d.TRIP_RUNAWAY if runs_away(p, state, slot, restarts, resets) else 0
    must_write = settle_command(p, state, slot, ring.command[row], fault)
    if was_tripped:
        flags |= d.FLAG_NOT_APPLIED
    elif counters[d.TRIP] != 0:
        flags |= d.FLAG_TRIPPED
    return flags, must_write


@part_of_kernel
def process(parameters: Any, state: Any, io: Any, ring: Any, slot: int, row: int) -> int:
    """Turn the frame in ``io.raw`` into a command and write it to the mirror; return the frame's flags."""
    flags, must_write = compute(parameters, state, io, ring, slot, row)
    if flags & d.FLAG_SKIPPED:
        return flags
    if must_write:
        write_settled(io, state, ring.command[row])
    if state.counters[d.WRITE_RUN] != 0:
        flags |= d.FLAG_WRITE_FAILED | d.FLAG_NOT_APPLIED
    return flags


@part_of_kernel
def prefetch_record(ring: Any, row: int) -> None:
    """Have the memory of a coming record ready: rows of a long ring have left the cache long ago."""
    prefetch_row(ring.img, row)
    prefetch_row(ring.img_dm, row)
    prefetch_row(ring.signal, row)
    prefetch_row(ring.e_HO, row)
    prefetch_row(ring.u_HO, row)
    prefetch_row(ring.c_LO, row)
    prefetch_row(ring.c_HO, row)
    prefetch_row(ring.c_inj, row)
    prefetch_row(ring.command, row)


@part_of_kernel
def judge(parameters: Any, state: Any, ring: Any, slot: int, row: int) -> None:
    """Fill in a frame's figures of merit, after its command is on the mirror.

    The Strehl ratio is that of the extended Marechal approximation, ``exp(-(2 pi rms / wavelength)^2)``
    (Mahajan 1983, J. Opt. Soc. Am. 73, 860). The residual is either the rms of the high-order errors over
    the controlled actuators, which knows neither tip/tilt nor what the sensor does not see and includes its
    noise, or the measured line ``slope * intensity + intercept`` of the pixel behind the secondary
    obstruction, which holds for the source and the band it was measured with.
    """
    counters = state.counters
    ring.rmse_est[row] = np.float32(mean_of(state.image, parameters.exterior_pixels))
    most = parameters.switches[slot, d.SNR_FRAMES]
    counters[d.SNR_COUNT] = min(counters[d.SNR_COUNT] + 1, most)
    n = np.float64(counters[d.SNR_COUNT])
    accumulate(ring.img_dm[row], 1.0 / n, state.mean, state.variance)
    ring.snr[row] = np.float32(signal_to_noise(state.mean, state.variance, n / (n - 1.0)) if n > 1.0 else 0.0)
    limits = parameters.limits[slot]
    pixel = parameters.switches[slot, d.STREHL_PIXEL]
    if pixel < 0:
        residual = np.float64(rms(ring.e_HO[row], parameters.used_ho[slot]))
    else:
        intensity = np.float64(state.image[pixel])
        residual = max(limits[d.STREHL_SLOPE] * intensity + limits[d.STREHL_INTERCEPT], 0.0)
    phase = 2.0 * np.pi * limits[d.NM_PER_UNIT] * residual / limits[d.WAVELENGTH_NM]
    ring.strehl[row] = np.float32(np.exp(-phase * phase))


@part_of_kernel
def record(
    parameters: Any,
    state: Any,
    io: Any,
    ring: Any,
    slot: int,
    flags: int,
    lost: int,
    woken_ns: int,
    written_ns: int,
) -> None:
    """Complete the record of a frame whose command is on its way, and let readers see it.

    flags : of `process`; lost : frames before this one; woken_ns, written_ns : wake-up, command written
    """
    counters = state.counters
    written = load_acquire(ring.cursor, 0)
    capacity = ring.frame.size
    row = written % capacity
    latency = written_ns - woken_ns
    if flags & d.FLAG_SKIPPED:
        ring.rmse_est[row] = np.float32(0.0)
        ring.snr[row] = np.float32(0.0)
        ring.strehl[row] = np.float32(0.0)
    else:
        judge(parameters, state, ring, slot, row)
    copy(io.raw, ring.img[row])
    ring.frame[row] = counters[d.LAST_NUMBER]
    ring.time_ns[row] = woken_ns
    ring.latency_ns[row] = np.int32(latency)
    ring.version[row] = counters[d.VERSION_IN_FORCE]
    ring.LO_servo_mode[row] = np.int8(counters[d.LO_CLOSED])
    ring.HO_servo_mode[row] = np.int8(counters[d.HO_CLOSED])
    flags |= (d.FLAG_MISSED_BEFORE if lost > 0 else 0) | (d.FLAG_FROZEN if counters[d.FROZEN_RUN] > 0 else 0)
    ring.flags[row] = np.uint16(flags)
    state.latency_bins[bin_of(latency)] += 1
    counters[d.LATENCY_MAX_NS] = max(counters[d.LATENCY_MAX_NS], latency)
    if counters[d.LAST_WAKE_NS] != 0 and lost == 0:
        jitter = abs(woken_ns - counters[d.LAST_WAKE_NS] - parameters.switches[slot, d.PERIOD_NS])
        state.jitter_bins[bin_of(jitter)] += 1
        counters[d.JITTER_MAX_NS] = max(counters[d.JITTER_MAX_NS], jitter)
    counters[d.LAST_WAKE_NS] = woken_ns
    counters[d.FRAMES] += 1
    store_release(ring.cursor, 0, written + 1)
    if counters[d.BUDGET_LEFT] > 0 and flags & (d.FLAG_SKIPPED | d.FLAG_TRIPPED | d.FLAG_NOT_APPLIED) == 0:
        note_stages(state, io, woken_ns, written_ns)
    prefetch_record(ring, (written + 1) % capacity)


@part_of_kernel
def handle_frame(parameters: Any, state: Any, io: Any, ring: Any, slot: int, woken_ns: int) -> None:
    """Read, number, process and record one frame."""
    counters = state.counters
    outcome = read_frame(io)
    if outcome != READ:
        if outcome == TORN:
            counters[d.TORN] += 1
        elif outcome == OTHER_FORMAT:
            counters[d.WRONG_FORMAT] += 1
        else:
            counters[d.READ_ERRORS] += 1
        return
    written = load_acquire(ring.cursor, 0)
    capacity = ring.frame.size
    count = settled_count(io) if counters[d.LAST_NUMBER] < 0 else io.frame_words[d.CNT0_WORD]
    lost = number_frame(state, count, io.raw, ring.img[(written - 1) % capacity])
    if lost < 0:
        return
    # Noise makes each frame differ from the one before, at the first pixels already.
    repeats = written > 0 and same_pixels(io.raw, ring.img[(written - 1) % capacity])
    counters[d.FROZEN] += 1 if repeats else 0
    counters[d.FROZEN_RUN] = counters[d.FROZEN_RUN] + 1 if repeats else 0
    stamp(state, d.STAGE_READ)
    flags = process(parameters, state, io, ring, slot, written % capacity)
    record(parameters, state, io, ring, slot, flags, lost, woken_ns, monotonic_ns())


@part_of_kernel
def remember(control: Any, state: Any, ring: Any, adopted: int) -> None:
    """Copy the loop's memory between two frames, when that is asked for: a replay begins there."""
    asked = load_acquire(control, d.CHECKPOINT)
    if asked == load_acquire(control, d.CHECKPOINTED):
        return
    for i in range(state.memory.size):
        state.checkpoint[i] = state.memory[i]
    words = state.memory.size + d.CHECKPOINT_EXTRA
    state.checkpoint[words + d.CHECKPOINT_RECORD] = load_acquire(ring.cursor, 0)
    state.checkpoint[words + d.CHECKPOINT_VERSION] = adopted
    store_release(control, d.CHECKPOINTED, asked)


@kernel
def run(control: Any, parameters: Any, state: Any, io: Any, ring: Any) -> int:
    """Run the loop until it is asked to stop; return the request, one of `STOP_*`.

    control : (CONTROL_WORDS,) int64 words shared with Python
    parameters, state, io, ring : see `loop_data`
    """
    counters = state.counters
    semaphore = io.handles[d.CAMERA_SEMAPHORE]
    adopted = np.int64(-1)
    if load_acquire(control, d.RESUMED) != 0:
        adopted = load_acquire(control, d.ADOPTED)
    else:
        forget_frames(state, io)
        counters[d.LAST_WAKE_NS] = 0
    passes = np.int64(0)
    most = load_acquire(control, d.PASSES)
    while True:
        stop = load_acquire(control, d.STOP)
        if stop != 0:
            break
        if most > 0 and passes == most:
            stop = np.int64(d.STOP_EXCHANGE)
            break
        passes += 1
        version = load_acquire(control, d.VERSION)
        slot = version & 1
        # A flat that could not be written is tried again with every turn, frames or not.
        if version != adopted or counters[d.FLAT_PENDING] != 0:
            if adopted >= 0:
                carry_outputs_over(parameters, state, adopted & 1, slot)
            adopt(parameters, state, io, slot)
            adopted = version
            counters[d.VERSION_IN_FORCE] = version
            store_release(control, d.ADOPTED, version)
        remember(control, state, ring, adopted)
        if counters[d.PAUSED] != 0:
            sleep_until_ns(monotonic_ns() + _PAUSE_NS)
            counters[d.LAST_WAKE_NS] = 0
            continue
        if io.handles[d.SPIN_NS] > 0:
            arrived = wait_for_count(state, io)
        else:
            until = monotonic_ns() + io.handles[d.WAIT_NS]
            # A semaphore that was initialised again under a waiter does not wake it; the post is there.
            arrived = sem_wait_until(semaphore, until) or sem_trywait(semaphore)
        if not arrived:
            counters[d.TIMEOUTS] += 1
            counters[d.LAST_WAKE_NS] = 0
            continue
        handle_frame(parameters, state, io, ring, slot, monotonic_ns())
    if stop == d.STOP_FLAT:
        counters[d.LO_CLOSED] = 0
        counters[d.HO_CLOSED] = 0
        counters[d.LOOPS] = 0
        reset_lo(state)
        reset_ho(state)
        disarm(state)
        counters[d.OFFSET_EPOCH_SEEN] = -1  # offsets come back with the next start
        if counters[d.TRIP] == 0 or counters[d.FLAT_PENDING] != 0:
            counters[d.FLAT_PENDING] = 0
            state.command[:] = np.float32(0.0)
            write_command(io, state, state.command)
    return stop
