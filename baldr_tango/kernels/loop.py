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
from baldr_tango.kernels.control import (
    KALMAN,
    LEAKY,
    PID,
    carry_over,
    count_set,
    forget_silenced,
    kalman_step,
    largest,
    leaky_step,
    limit_modes,
    pid_step,
    rms,
)
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
from baldr_tango.kernels.injection import (
    DEFAULT_SEED,
    OUTSIDE,
    PRBS,
    REGISTER_MASK,
    prbs_step,
    step_of,
    waveform,
)
from baldr_tango.kernels.jit import kernel, part_of_kernel
from baldr_tango.kernels.libc import (
    address_of,
    monotonic_ns,
    pread,
    pwrite,
    sem_post_capped,
    sem_trywait,
    sem_wait_until,
    sleep_until_ns,
)
from baldr_tango.kernels.linear import copy, multiply

_POST_CAP = 10
_PAUSE_NS = 2_000_000
_BUSY_ATTEMPTS = 20
_MOST_ATTEMPTS = 500
_RETRY_NS = 20_000
_SETTLE_ATTEMPTS = 5
_LONGEST_GAP = 1_000_000
"""Frames: a camera that counts on by more has begun a new count."""

_READ = 0
_TORN = 1
_SHORT = 2


@part_of_kernel
def read_frame(io: Any) -> int:
    """Copy the camera stream into ``io.frame_words``; return 0, 1 (torn) or 2 (the file is too short).

    The frame is good when neither the counter nor the write flag moved while it was copied. A writer
    may post before it takes its flag down, and may be interrupted there: it gets about 20 ms.
    """
    nbytes = d.HEADER_WORDS * 8 + io.raw.size * 4
    for attempt in range(_MOST_ATTEMPTS):
        if pread(io.handles[d.CAMERA_FD], address_of(io.frame_words), nbytes, 0) != nbytes:
            return _SHORT
        if (
            pread(io.handles[d.CAMERA_FD], address_of(io.check), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
            != d.COUNTS_NBYTES
        ):
            return _SHORT
        same = io.check[0] == io.frame_words[d.CNT0_WORD]
        if same and io.check[3] & 0xFF == 0 and io.frame_words[d.WRITE_WORD] & 0xFF == 0:
            return _READ
        # The writer may have been preempted by this very thread: let it finish.
        if attempt >= _BUSY_ATTEMPTS:
            sleep_until_ns(monotonic_ns() + _RETRY_NS)
    return _TORN


@part_of_kernel
def write_command(io: Any, state: Any, command: Any) -> None:
    """Put a map into the DM channel and wake whoever waits for it.

    Order as the instrument's programs expect: write flag, data, counters, flag off, the channel's
    semaphores, then the semaphore of the summed map, which moves the mirror.

    command : (G,) float32 [DM units]
    """
    for i in range(command.size):
        io.dm_map[i] = np.float64(command[i])
    nbytes = (d.COUNTS_WORDS + io.dm_map.size) * 8
    flag_byte = io.dm_words[3] & ~0xFF
    io.dm_words[3] = flag_byte | 1
    written = pwrite(io.handles[d.DM_FD], address_of(io.dm_words), nbytes, d.COUNTS_OFFSET)
    io.dm_words[0] += 1
    io.dm_words[1] += 1
    io.dm_words[3] = flag_byte
    counted = pwrite(io.handles[d.DM_FD], address_of(io.dm_words), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
    if written != nbytes or counted != d.COUNTS_NBYTES:
        state.counters[d.WRITE_ERRORS] += 1
    for k in range(io.dm_semaphores.size):
        sem_post_capped(io.dm_semaphores[k], _POST_CAP)
    sem_post_capped(io.handles[d.TRIGGER_SEMAPHORE], _POST_CAP)
    copy(command, state.command)
    state.counters[d.WRITES] += 1


@kernel
def drain(semaphore: int) -> None:
    """Take every post that is waiting."""
    while sem_trywait(semaphore):
        pass


@part_of_kernel
def reset_lo(state: Any) -> None:
    """Bring the tip/tilt controller to its zero state."""
    state.integral_lo[:] = 0.0
    state.previous_lo[:] = 0.0
    state.last_lo[:] = np.float32(0.0)
    state.predicted_lo[:] = np.float32(0.0)
    state.held_lo[:] = np.float32(0.0)


@part_of_kernel
def reset_ho(state: Any) -> None:
    """Bring the high-order controller to its zero state; muted modes speak again."""
    state.integral_ho[:] = 0.0
    state.previous_ho[:] = 0.0
    state.last_ho[:] = np.float32(0.0)
    state.predicted_ho[:] = np.float32(0.0)
    state.held_ho[:] = np.float32(0.0)
    state.violations[:] = 0
    state.muted[:] = 0
    state.counters[d.MUTED] = 0


@part_of_kernel
def compose(parameters: Any, state: Any, slot: int, out: Any) -> None:
    """Compute the DM command ``-(c_LO + c_HO) + c_inj`` plus the offsets of the open loops.

    out : (G,) float32 [DM units], overwritten
    """
    lo_open = state.counters[d.LO_CLOSED] == 0
    ho_open = state.counters[d.HO_CLOSED] == 0
    for i in range(out.size):
        value = state.injected[i] - (state.held_lo[i] + state.held_ho[i])
        if lo_open:
            value += parameters.offset_lo[slot, i]
        if ho_open:
            value += parameters.offset_ho[slot, i]
        out[i] = value


@part_of_kernel
def disarm(state: Any) -> None:
    """End the signal injection: nothing is sent any more."""
    state.counters[d.INJECT_ARMED] = 0
    state.injected[:] = np.float32(0.0)


@part_of_kernel
def arm(state: Any, switches: Any) -> None:
    """Start the signal injection anew, or end it, as the switches say."""
    counters = state.counters
    disarm(state)
    counters[d.INJECT_ARMED] = 1 if switches[d.INJECT] != 0 and counters[d.TRIP] == 0 else 0
    counters[d.INJECT_START] = d.NO_FRAME
    counters[d.INJECT_INDEX] = -1
    counters[d.INJECT_STEPS] = 0
    seed = switches[d.INJECT_SEED] & REGISTER_MASK
    counters[d.INJECT_REGISTER] = seed if seed != 0 else DEFAULT_SEED


@part_of_kernel
def apply_command(parameters: Any, state: Any, io: Any, slot: int, out: Any) -> bool:
    """Compose the command, check it and write it; a bad one trips the loop and flattens the mirror.

    Returns True when `out` is what the mirror got. After a trip nothing is written until the fault is
    acknowledged.
    """
    counters = state.counters
    if counters[d.TRIP] != 0:
        out[:] = np.float32(0.0)
        return False
    compose(parameters, state, slot, out)
    peak = largest(out)
    if peak <= parameters.limits[slot, d.COMMAND_LIMIT]:
        write_command(io, state, out)
        return True
    counters[d.TRIP] = d.TRIP_LIMIT if np.isfinite(peak) else d.TRIP_NOT_FINITE
    counters[d.LO_CLOSED] = 0
    counters[d.HO_CLOSED] = 0
    counters[d.LOOPS] = 0
    reset_lo(state)
    reset_ho(state)
    disarm(state)
    out[:] = np.float32(0.0)
    write_command(io, state, out)
    return False


@part_of_kernel
def inject(parameters: Any, state: Any, slot: int) -> float:
    """Return the injected signal of this frame; 0 while injection is off.

    The signal is a function of the frame number alone: the sample of frame n acts in frame n + latency,
    whatever was lost between them.
    """
    counters = state.counters
    switches = parameters.switches[slot]
    if counters[d.INJECT_ARMED] == 0:
        return 0.0
    number = counters[d.LAST_NUMBER]
    index = number - counters[d.INJECT_START]
    if index <= counters[d.INJECT_INDEX] or index > counters[d.INJECT_INDEX] + _LONGEST_GAP:
        index = counters[d.INJECT_INDEX] + 1
        counters[d.INJECT_START] = number - index
    counters[d.INJECT_INDEX] = index
    period_s = np.float64(switches[d.PERIOD_NS]) * 1e-9
    values = parameters.injection[slot]
    step = step_of(index - switches[d.INJECT_LATENCY], switches[d.INJECT_HOLD], values, period_s)
    if step == OUTSIDE:
        return 0.0
    if switches[d.INJECT_WAVEFORM] == PRBS:
        for _ in range(step - counters[d.INJECT_STEPS] + 1):
            counters[d.INJECT_REGISTER] = prbs_step(counters[d.INJECT_REGISTER])
        counters[d.INJECT_STEPS] = max(step + 1, counters[d.INJECT_STEPS])
    time_s = np.float64(step * max(switches[d.INJECT_HOLD], 1)) * period_s
    return waveform(switches[d.INJECT_WAVEFORM], values, time_s, counters[d.INJECT_REGISTER])


@part_of_kernel
def prepare_targets(parameters: Any, state: Any, slot: int, signal: float, injected: Any) -> None:
    """Set this frame's set points and injected map from the injected signal.

    The set points are those in force plus the signal, anew in every frame: nothing accumulates.

    injected : (G,) float32, overwritten for the record: the map added to the command, or the equivalent
        of what was added to the set points
    """
    switches = parameters.switches[slot]
    branch = switches[d.INJECT_BRANCH]
    moves = switches[d.INJECT_SET_POINT] != 0
    share_lo = np.float32(0.0)
    share_ho = np.float32(0.0)
    copy(parameters.set_point_lo[slot], state.target_lo)
    copy(parameters.set_point_ho[slot], state.target_ho)
    if moves and branch != d.INJECT_HO and state.counters[d.LO_CLOSED] != 0:
        share_lo = np.float32(signal)
        for i in range(state.target_lo.size):
            state.target_lo[i] += signal * parameters.inject_lo[slot, i]
    if moves and branch != d.INJECT_LO and state.counters[d.HO_CLOSED] != 0:
        share_ho = np.float32(signal)
        for i in range(state.target_ho.size):
            state.target_ho[i] += signal * parameters.inject_ho[slot, i]
    share = np.float32(0.0) if moves else np.float32(signal)
    for i in range(injected.size):
        added = share * parameters.inject_map[slot, i]
        state.injected[i] = added
        injected[i] = (
            added
            + share_lo * parameters.inject_shape_lo[slot, i]
            + share_ho * parameters.inject_shape_ho[slot, i]
        )


@part_of_kernel
def carry_outputs_over(parameters: Any, state: Any, before: int, slot: int) -> None:
    """Keep the output of closed PID loops continuous when their proportional gains change.

    before, slot : the parameters until now and from now on
    """
    p = parameters
    if state.counters[d.LO_CLOSED] != 0 and p.switches[slot, d.TYPE_LO] == PID:
        carry_over(p.kp_lo[before], p.kp_lo[slot], p.ki_lo[slot], state.previous_lo, state.integral_lo)
    if state.counters[d.HO_CLOSED] != 0 and p.switches[slot, d.TYPE_HO] == PID:
        carry_over(p.kp_ho[before], p.kp_ho[slot], p.ki_ho[slot], state.previous_ho, state.integral_ho)


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
    if changed:
        apply_command(parameters, state, io, slot, state.command)
    if counters[d.PAUSED] != 0 and switches[d.PAUSE] == 0:
        # Frames of the pause are neither processed late nor counted as lost.
        drain(io.handles[d.CAMERA_SEMAPHORE])
        counters[d.LAST_NUMBER] = -1
    counters[d.PAUSED] = switches[d.PAUSE]


@kernel
def same_pixels(a: Any, b: Any) -> bool:
    """True when two frames are equal pixel by pixel."""
    for i in range(a.size):  # noqa: SIM110 - a generator cannot be compiled
        if a[i] != b[i]:
            return False
    return True


@part_of_kernel
def number_frame(state: Any, count: int, raw: Any, last_raw: Any) -> int:
    """Return the lost frames before this one and store its number; -1 for a wake-up without a new frame.

    Camera streams post their semaphores *before* they advance the counter, so a new frame may still
    carry the old count; pixels tell it from a stale post. The total of lost frames stays exact.
    """
    counters = state.counters
    last = counters[d.LAST_NUMBER]
    if last < 0 or count < last - 1:
        if last >= 0:
            counters[d.CAMERA_RESTARTS] += 1
        counters[d.LAST_NUMBER] = count
        return 0
    if count <= last:
        if same_pixels(raw, last_raw):
            counters[d.STALE] += 1
            return -1
        counters[d.LAST_NUMBER] = last + 1
        return 0
    counters[d.LAST_NUMBER] = count
    counters[d.LOST] += count - last - 1
    return count - last - 1


@part_of_kernel
def control_lo(parameters: Any, state: Any, slot: int, error: Any, output: Any, shape: Any) -> bool:
    """One step of the closed tip/tilt loop; True when its map exceeded the limit and was reset.

    error, output : (L,) float32; shape : (G,) float32 map before the minus, overwritten
    """
    p = parameters
    if p.switches[slot, d.TYPE_LO] == KALMAN:
        copy(state.last_lo, output)
        kalman_step(
            error,
            state.target_lo,
            p.kalman_lo.transition[slot],
            p.kalman_lo.control[slot],
            p.kalman_lo.measurement[slot],
            p.kalman_lo.gain[slot],
            p.lower_lo[slot],
            p.upper_lo[slot],
            state.predicted_lo,
            state.scratch_lo,
            output,
        )
    elif p.switches[slot, d.TYPE_LO] == LEAKY:
        leaky_step(
            error,
            state.target_lo,
            p.ki_lo[slot],
            p.leak_lo[slot],
            p.lower_lo[slot],
            p.upper_lo[slot],
            state.integral_lo,
            state.previous_lo,
            output,
        )
    else:
        pid_step(
            error,
            state.target_lo,
            p.kp_lo[slot],
            p.ki_lo[slot],
            p.kd_lo[slot],
            p.lower_lo[slot],
            p.upper_lo[slot],
            state.integral_lo,
            state.previous_lo,
            output,
        )
    copy(output, state.last_lo)
    multiply(p.shapes_lo, slot, output, shape)
    if largest(shape) <= p.limits[slot, d.LO_LIMIT]:
        return False
    reset_lo(state)
    output[:] = np.float32(0.0)
    shape[:] = np.float32(0.0)
    state.counters[d.LIMITED] += 1
    return True


@part_of_kernel
def control_ho(parameters: Any, state: Any, slot: int, error: Any, output: Any, shape: Any) -> bool:
    """One step of the closed high-order loop; True when a mode exceeded the limit and was reset.

    error, output : (H,) float32; shape : (G,) float32 map before the minus, overwritten
    """
    p = parameters
    if p.switches[slot, d.TYPE_HO] == KALMAN:
        copy(state.last_ho, output)
        kalman_step(
            error,
            state.target_ho,
            p.kalman_ho.transition[slot],
            p.kalman_ho.control[slot],
            p.kalman_ho.measurement[slot],
            p.kalman_ho.gain[slot],
            p.lower_ho[slot],
            p.upper_ho[slot],
            state.predicted_ho,
            state.scratch_ho,
            output,
        )
    elif p.switches[slot, d.TYPE_HO] == LEAKY:
        leaky_step(
            error,
            state.target_ho,
            p.ki_ho[slot],
            p.leak_ho[slot],
            p.lower_ho[slot],
            p.upper_ho[slot],
            state.integral_ho,
            state.previous_ho,
            output,
        )
    else:
        pid_step(
            error,
            state.target_ho,
            p.kp_ho[slot],
            p.ki_ho[slot],
            p.kd_ho[slot],
            p.lower_ho[slot],
            p.upper_ho[slot],
            state.integral_ho,
            state.previous_ho,
            output,
        )
    limited = limit_modes(
        output,
        p.limits[slot, d.HO_LIMIT],
        p.switches[slot, d.HO_VIOLATIONS],
        state.integral_ho,
        state.previous_ho,
        state.violations,
        state.muted,
    )
    if p.switches[slot, d.TYPE_HO] == KALMAN:
        forget_silenced(output, state.predicted_ho)
    if limited > 0:
        state.counters[d.LIMITED] += limited
        state.counters[d.MUTED] = count_set(state.muted)
    copy(output, state.last_ho)
    multiply(p.shapes_ho, slot, output, shape)
    return limited > 0


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
def take_flux(parameters: Any, state: Any, io: Any, slot: int) -> float:
    """Bring the frame into ``state.image`` and return its flux; NaN for a read that only begins a burst."""
    p = parameters
    switches = p.switches[slot]
    flux = subtract_dark(io.raw, p.dark[slot], p.flux_weights[slot], state.image)
    if switches[d.BURST] > 1:
        t = time_of_read(state, switches, flux)
        add_read(io.raw, t, state.burst, state.burst_total, state.burst_moment)
        if t == 0:
            return np.nan
        flux = burst_slope(
            state.burst, state.burst_total, state.burst_moment, p.flux_weights[slot], state.image
        )
    else:
        state.counters[d.READS] = 0
    if switches[d.MEDIAN_REPAIR] != 0 and p.bad_pixels.size > 0:
        flux = repair_with_median(state.image, p.bad_pixels, state.scratch)
    return flux


@part_of_kernel
def process(parameters: Any, state: Any, io: Any, ring: Any, slot: int, row: int) -> int:
    """Turn the frame in ``io.raw`` into a mirror command; return the frame's flags.

    Vectors are written straight into row `row` of the ring, so recording them costs nothing.
    """
    p = parameters
    counters = state.counters
    switches = p.switches[slot]
    flux = take_flux(p, state, io, slot)
    is_burst_start = np.isnan(flux)
    ring.flux[row] = 0.0 if is_burst_start else flux
    if is_burst_start or not (np.isfinite(flux) and flux > p.limits[slot, d.FLUX_LIMIT]):
        if not is_burst_start:
            counters[d.SKIPPED] += 1
            counters[d.HISTORY] = 0
        hold(state, ring, row)
        return d.FLAG_SKIPPED | d.FLAG_NOT_APPLIED
    flags = 0
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
    counters[d.HISTORY] += 1
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
    if not apply_command(p, state, io, slot, ring.command[row]):
        flags |= d.FLAG_NOT_APPLIED if was_tripped else d.FLAG_TRIPPED
    return flags


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
def settled_count(io: Any) -> int:
    """Return the camera's counter of the frame just read, for the first frame of a count.

    A stream that posts before it counts is still about to advance it. Later frames need no such wait:
    from here on a count that lags is recognised.
    """
    count = io.frame_words[d.CNT0_WORD]
    for _ in range(_SETTLE_ATTEMPTS):
        sleep_until_ns(monotonic_ns() + _RETRY_NS)
        if (
            pread(io.handles[d.CAMERA_FD], address_of(io.check), d.COUNTS_NBYTES, d.COUNTS_OFFSET)
            == d.COUNTS_NBYTES
            and io.check[0] == count + 1
            and io.check[3] & 0xFF == 0
        ):
            return count + 1
    return count


@part_of_kernel
def handle_frame(parameters: Any, state: Any, io: Any, ring: Any, slot: int, woken_ns: int) -> None:
    """Read, number, process and record one frame."""
    counters = state.counters
    outcome = read_frame(io)
    if outcome != _READ:
        counters[d.TORN if outcome == _TORN else d.READ_ERRORS] += 1
        return
    written = load_acquire(ring.cursor, 0)
    capacity = ring.frame.size
    count = settled_count(io) if counters[d.LAST_NUMBER] < 0 else io.frame_words[d.CNT0_WORD]
    lost = number_frame(state, count, io.raw, ring.img[(written - 1) % capacity])
    if lost < 0:
        return
    row = written % capacity
    flags = process(parameters, state, io, ring, slot, row)
    latency = monotonic_ns() - woken_ns
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
    ring.LO_servo_mode[row] = np.int8(counters[d.LO_CLOSED])
    ring.HO_servo_mode[row] = np.int8(counters[d.HO_CLOSED])
    ring.flags[row] = np.uint16(flags | (d.FLAG_MISSED_BEFORE if lost > 0 else 0))
    state.latency_bins[min(latency // d.BIN_NS, d.N_BINS - 1)] += 1
    counters[d.LATENCY_MAX_NS] = max(counters[d.LATENCY_MAX_NS], latency)
    if counters[d.LAST_WAKE_NS] != 0 and lost == 0:
        jitter = abs(woken_ns - counters[d.LAST_WAKE_NS] - parameters.switches[slot, d.PERIOD_NS])
        state.jitter_bins[min(jitter // d.BIN_NS, d.N_BINS - 1)] += 1
        counters[d.JITTER_MAX_NS] = max(counters[d.JITTER_MAX_NS], jitter)
    counters[d.LAST_WAKE_NS] = woken_ns
    counters[d.FRAMES] += 1
    store_release(ring.cursor, 0, written + 1)


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
        drain(semaphore)
        counters[d.LAST_NUMBER] = -1
        counters[d.LAST_WAKE_NS] = 0
    while True:
        stop = load_acquire(control, d.STOP)
        if stop != 0:
            break
        version = load_acquire(control, d.VERSION)
        slot = version & 1
        if version != adopted:
            if adopted >= 0:
                carry_outputs_over(parameters, state, adopted & 1, slot)
            adopt(parameters, state, io, slot)
            adopted = version
            store_release(control, d.ADOPTED, version)
        if counters[d.PAUSED] != 0:
            sleep_until_ns(monotonic_ns() + _PAUSE_NS)
            counters[d.LAST_WAKE_NS] = 0
            continue
        arrived = sem_wait_until(semaphore, monotonic_ns() + io.handles[d.WAIT_NS])
        # A semaphore that was initialised again under a waiter does not wake it any more; the post is there.
        if not arrived and not sem_trywait(semaphore):
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
        if counters[d.TRIP] == 0:
            state.command[:] = np.float32(0.0)
            write_command(io, state, state.command)
    return stop
