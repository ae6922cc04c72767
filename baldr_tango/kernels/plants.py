"""What a wavefront sensor behind a deformable mirror sees: an optical and a linear model, per frame.

Kernels on plain arrays; the arrays that belong together travel as named tuples. B beams, G = 144 points
of the DM grid, P pixels of a frame, p pixels inside the pupil, M phase masks, r terms of all their reference
waves together.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.jit import kernel
from baldr_tango.kernels.linear import copy

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

TRUTH: Final = (
    "frame",
    "opd_rms_nm",
    "strehl",
    "open_loop_rms_nm",
    "open_loop_strehl",
    "flux_adu",
    "dm_rms_nm",
    "late_ticks",
    "sum_frames",
    "sum_opd_ms_nm2",
    "sum_strehl",
    "sum_open_loop_ms_nm2",
    "sum_open_loop_strehl",
)
"""Order of the truth vector; the ``sum_`` entries accumulate from the first frame on."""

FRAME: Final = 0
OPD_RMS: Final = 1
STREHL: Final = 2
OPEN_RMS: Final = 3
OPEN_STREHL: Final = 4
FLUX: Final = 5
DM_RMS: Final = 6
LATE_TICKS: Final = 7
SUM_FRAMES: Final = 8
SUM_OPD_MS: Final = 9
SUM_STREHL: Final = 10
SUM_OPEN_MS: Final = 11
SUM_OPEN_STREHL: Final = 12


# What may change while the loop runs (float64), of the optical plant.
TURBULENCE_NM: Final = 0
"""Wavefront error of the turbulence [nm rms]."""
WIND: Final = 1
"""Speed of the turbulence [samples/s]."""
JITTER_NM: Final = 2
"""Rms of the tip/tilt jitter of each axis [nm]."""
N_LIVE: Final = 3


class OpticalPlant(NamedTuple):
    """Zernike wavefront sensor, mirror and turbulence of all beams."""

    pixels: I64
    """(p,) flat index of each pupil pixel in the frame."""
    weights: F32
    """(p,) field transmission."""
    influence: F32
    """(G, p) OPD per DM unit [nm]."""
    tilts: F32
    """(2, p) tip and tilt of unit rms."""
    project: F32
    """(r, p) field -> coefficients of the reference wave."""
    spread: F32
    """(r, P) coefficients -> reference wave on the frame."""
    wavenumber: float
    """2 pi / wavelength [rad/nm]."""
    terms: I64
    """(M + 1,) first term of each mask's reference wave; the last entry is r."""
    masks: F64
    """(M, 2) real and imaginary part of exp(i theta) - 1 of each mask, theta its phase shift."""
    screens: F32
    """(B, S, S) turbulence of unit rms, periodic and padded by its own first rows and columns."""
    window: I64
    """(p,) flat offset of each pupil pixel in a screen."""
    period: int
    """Samples after which a screen repeats."""
    positions: F64
    """(B, 2) where the pupil is on its screen [samples]; advances."""
    directions: F64
    """(B, 2) unit vector of the wind."""
    live: F64
    """(N_LIVE,) what may change while the loop runs: see the constants."""
    jitter: F64
    """(B, 2, 2) state of the tip/tilt jitter (stage, axis) [nm]; advances."""
    corner_hz: float
    """Corner frequency of the jitter."""
    vibration_hz: F64
    """(V,) frequency of each vibration; may change while the loop runs."""
    vibration_nm: F64
    """(V,) rms amplitude of each vibration, 0: none; may change while the loop runs."""
    vibration_angle: F64
    """(B, V) direction [rad]."""
    vibration_phase: F64
    """(B, V) phase [turns]; advances."""


class LinearPlant(NamedTuple):
    """Frames as a measured interaction matrix predicts them, of all beams."""

    reference: F32
    """(B, P) frame with the mask in, per unit flux."""
    clear: F32
    """(B, P) frame with the mask out, per unit flux."""
    support: I64
    """(B, n) flat index of the pixels that respond."""
    response: F32
    """(B, G, n) change of these pixels per DM unit, per unit flux."""
    static: F64
    """(B, G) disturbance that stays [DM units]."""
    varying: F64
    """(B, 2, G) state of the disturbance that varies (stage, point) [DM units]; advances."""
    varying_rms: F64
    """(1,) rms of the varying disturbance of each point [DM units]; may change while the loop runs."""
    corner_hz: float
    """Corner frequency of the varying disturbance."""
    weights: F64
    """(B, G) weight of each point in an average over the pupil; sums to 1."""
    nm_per_dm_unit: float
    wavenumber: float


@kernel
def advance_noise(state, pole, rms, normals, offset):
    """Advance slowly varying random numbers by one frame: white noise behind two equal low-pass filters.

    state : (2, n) the two filters; ``state[1]`` is the result, of standard deviation `rms`
    pole : fraction kept per frame, exp(-2 pi corner / rate)
    normals, offset : normal deviates and where to begin in them
    """
    # Variance of 1/(1 - a/z)^2 driven by unit white noise: (1 + a^2)/(1 - a^2)^3.
    drive = rms * np.sqrt((1.0 - pole * pole) ** 3 / (1.0 + pole * pole)) / (1.0 - pole)
    for i in range(state.shape[1]):
        state[0, i] = pole * state[0, i] + drive * normals[offset + i]
        state[1, i] = pole * state[1, i] + (1.0 - pole) * state[0, i]


@kernel
def cubic_weights(f):
    """Catmull-Rom weights of four samples, at the fraction `f` (0 to 1) from the second to the third."""
    return (
        0.5 * f * (f * (2.0 - f) - 1.0),
        0.5 * (f * f * (3.0 * f - 5.0) + 2.0),
        0.5 * f * (f * (4.0 - 3.0 * f) + 1.0),
        0.5 * f * f * (f - 1.0),
    )


@kernel
def sample_screen(screen, window, row, column, out):
    """Read a turbulence screen under the pupil, between its samples by cubic interpolation.

    screen : (S, S) padded so that no index wraps
    window : (p,) flat offset of each pupil pixel
    row, column : place of the window's corner [samples], at least 1
    out : (p,) overwritten
    """
    flat = screen.reshape(-1)
    side = screen.shape[1]
    y = int(np.floor(row))
    x = int(np.floor(column))
    vertical = cubic_weights(row - y)
    horizontal = cubic_weights(column - x)
    out[:] = 0.0
    for i in range(4):
        for j in range(4):
            weight = np.float32(vertical[i] * horizontal[j])
            start = (y + i - 1) * side + x + j - 1
            for k in range(window.size):
                out[k] += weight * flat[start + window[k]]


@kernel
def turbulence_opd(plant, beam, dt, normals, offset, out):
    """Advance the turbulence of one beam by `dt` [s] and write its OPD [nm] to `out` (p,)."""
    position = plant.positions[beam]
    step = plant.live[WIND] * dt
    for axis in range(2):
        position[axis] = (position[axis] + plant.directions[beam, axis] * step) % plant.period
    sample_screen(plant.screens[beam], plant.window, position[0] + 1.0, position[1] + 1.0, out)
    pole = np.exp(-2.0 * np.pi * plant.corner_hz * dt)
    advance_noise(plant.jitter[beam], pole, plant.live[JITTER_NM], normals, offset)
    tip = plant.jitter[beam, 1, 0]
    tilt = plant.jitter[beam, 1, 1]
    for k in range(plant.vibration_hz.size):
        phase = (plant.vibration_phase[beam, k] + plant.vibration_hz[k] * dt) % 1.0
        plant.vibration_phase[beam, k] = phase
        if plant.vibration_nm[k] == 0.0:
            continue
        value = np.sqrt(2.0) * plant.vibration_nm[k] * np.sin(2.0 * np.pi * phase)
        tip += value * np.cos(plant.vibration_angle[beam, k])
        tilt += value * np.sin(plant.vibration_angle[beam, k])
    strength = np.float32(plant.live[TURBULENCE_NM])
    for i in range(out.size):
        out[i] = (
            strength * out[i] + np.float32(tip) * plant.tilts[0, i] + np.float32(tilt) * plant.tilts[1, i]
        )


@kernel
def weighted_rms(values, weights):
    """Rms of `values` about their mean, weighted."""
    total = np.float64(0.0)
    mean = np.float64(0.0)
    for i in range(values.size):
        total += weights[i]
        mean += weights[i] * values[i]
    mean /= total
    square = np.float64(0.0)
    for i in range(values.size):
        square += weights[i] * (values[i] - mean) ** 2
    return np.sqrt(square / total)


@kernel
def field_and_strehl(opd, weights, wavenumber, field):
    """Field in the pupil and its Strehl ratio.

    opd : (p,) [nm]
    field : (2, p) real and imaginary part, overwritten
    Returns abs(sum of the field)^2 over that of a flat wavefront.
    """
    real = np.float64(0.0)
    imag = np.float64(0.0)
    total = np.float64(0.0)
    k = np.float32(wavenumber)
    for i in range(opd.size):
        phase = k * opd[i]
        field[0, i] = weights[i] * np.cos(phase)
        field[1, i] = weights[i] * np.sin(phase)
    for i in range(opd.size):
        real += field[0, i]
        imag += field[1, i]
        total += weights[i]
    return (real * real + imag * imag) / (total * total)


@kernel
def zernike_image(plant, field, mask, wave, image):
    """Intensity behind a Zernike phase mask, as a fraction of the light that enters.

    field : (2, p) field in the pupil
    mask : 1 to M: which one is in the beam; 0: none
    wave : (2, P) scratch for the reference wave
    image : (P,) overwritten; N'Diaye et al. 2013, A&A 555, A94, with the reference wave of this very field
    """
    energy = np.float32(0.0)
    for i in range(plant.weights.size):
        energy += plant.weights[i] * plant.weights[i]
    scale = np.float32(1.0) / energy
    if mask > 0:
        real_wave = wave[0]
        imag_wave = wave[1]
        real_wave[:] = 0.0
        imag_wave[:] = 0.0
        a = np.float32(plant.masks[mask - 1, 0])
        b = np.float32(plant.masks[mask - 1, 1])
        for j in range(plant.terms[mask - 1], plant.terms[mask]):
            real = np.float32(0.0)
            imag = np.float32(0.0)
            for i in range(plant.pixels.size):
                real += plant.project[j, i] * field[0, i]
                imag += plant.project[j, i] * field[1, i]
            c = a * real - b * imag
            d = a * imag + b * real
            for i in range(image.size):
                real_wave[i] += plant.spread[j, i] * c
                imag_wave[i] += plant.spread[j, i] * d
        for k in range(plant.pixels.size):
            real_wave[plant.pixels[k]] += field[0, k]
            imag_wave[plant.pixels[k]] += field[1, k]
        for i in range(image.size):
            image[i] = scale * (real_wave[i] * real_wave[i] + imag_wave[i] * imag_wave[i])
    else:
        image[:] = 0.0
        for k in range(plant.pixels.size):
            image[plant.pixels[k]] = scale * (field[0, k] * field[0, k] + field[1, k] * field[1, k])


@kernel
def optical_frame(plant, beam, command, dt, turbulent, mask, normals, offset, scratch, wave, image, truth):
    """Advance one beam of the optical plant by one frame.

    command : (G,) mirror command relative to its flat [DM units]
    dt : frame period [s]
    mask : 1 to M: phase mask in the beam; 0: none
    scratch : (4, p) float32; wave : (2, P) float32
    image : (P,) intensity per unit flux, overwritten
    truth : the truth vector; OPD, Strehl and DM entries overwritten
    """
    opd = scratch[0]
    mirror = scratch[1]
    field = scratch[2:4]
    turbulence_opd(plant, beam, dt, normals, offset, opd)
    if not turbulent:
        opd[:] = 0.0
    truth[OPEN_RMS] = weighted_rms(opd, plant.weights)
    truth[OPEN_STREHL] = field_and_strehl(opd, plant.weights, plant.wavenumber, field)
    mirror[:] = 0.0
    for g in range(command.size):
        c = np.float32(command[g])
        for i in range(mirror.size):
            mirror[i] += c * plant.influence[g, i]
    for i in range(mirror.size):
        opd[i] += mirror[i]
    truth[DM_RMS] = weighted_rms(mirror, plant.weights)
    truth[OPD_RMS] = weighted_rms(opd, plant.weights)
    truth[STREHL] = field_and_strehl(opd, plant.weights, plant.wavenumber, field)
    zernike_image(plant, field, mask, wave, image)


@kernel
def marechal(rms_nm, wavenumber):
    """Strehl ratio of a small wavefront error (extended Marechal approximation)."""
    return np.exp(-((wavenumber * rms_nm) ** 2))


@kernel
def linear_frame(plant, beam, command, dt, turbulent, mask, normals, offset, disturbed, change, image, truth):
    """Advance one beam of the linear plant by one frame.

    As `optical_frame`, with scratch `disturbed` (G,) float64 and `change` (n,) float32; any mask is
    that of the calibration. The OPD entries of the truth are those of command and disturbance, the Strehl
    ratio is the extended Marechal approximation.
    """
    pole = np.exp(-2.0 * np.pi * plant.corner_hz * dt)
    advance_noise(plant.varying[beam], pole, plant.varying_rms[0], normals, offset)
    for g in range(command.size):
        disturbed[g] = plant.static[beam, g] + plant.varying[beam, 1, g] if turbulent else 0.0
    scale = plant.nm_per_dm_unit
    weights = plant.weights[beam]
    truth[OPEN_RMS] = scale * weighted_rms(disturbed, weights)
    truth[DM_RMS] = scale * weighted_rms(command, weights)
    for g in range(command.size):
        disturbed[g] += command[g]
    truth[OPD_RMS] = scale * weighted_rms(disturbed, weights)
    truth[STREHL] = marechal(truth[OPD_RMS], plant.wavenumber)
    truth[OPEN_STREHL] = marechal(truth[OPEN_RMS], plant.wavenumber)
    if mask == 0:
        copy(plant.clear[beam], image)
        return
    copy(plant.reference[beam], image)
    change[:] = 0.0
    for g in range(command.size):
        c = np.float32(disturbed[g])
        for i in range(change.size):
            change[i] += c * plant.response[beam, g, i]
    for i in range(change.size):
        image[plant.support[beam, i]] += change[i]
