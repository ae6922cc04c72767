"""Turbulence screens: von Karman statistics, as a first adaptive-optics stage leaves them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frequencies(samples: int, spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Spatial frequencies of the half plane that `numpy.fft.rfft2` uses, [cycles per unit of `spacing`]."""
    rows, columns = np.fft.fftfreq(samples, spacing), np.fft.rfftfreq(samples, spacing)
    return rows.astype(np.float64)[:, None], columns.astype(np.float64)[None, :]


def von_karman_spectrum(
    frequency: NDArray[np.float64], fried_m: float, outer_scale_m: float
) -> NDArray[np.float64]:
    """Spatial power spectrum of the phase [rad^2 m^2].

    0.0229 r0^(-5/3) (f^2 + 1/L0^2)^(-11/6); Roddier (1981), Progress in Optics 19, 281, with the outer scale
    of von Karman.

    Parameters
    ----------
    frequency : modulus of the spatial frequency [1/m].
    fried_m : Fried parameter at the wavelength of the phase [m].
    outer_scale_m : outer scale [m].
    """
    return np.asarray(0.0229 * fried_m ** (-5.0 / 3.0) * (frequency**2 + outer_scale_m**-2) ** (-11.0 / 6.0))


def phase_screen(
    spectrum: NDArray[np.float64], spacing: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a periodic random screen of a given power spectrum.

    White noise is filtered in Fourier space, so nothing but the period limits the low frequencies: it
    has to be several outer scales. The mean is zero.

    Parameters
    ----------
    spectrum : (n, n // 2 + 1) power spectrum on `frequencies(n, spacing)`.
    spacing : distance of two samples, in the unit of the frequencies.

    Returns
    -------
    (n, n) screen.
    """
    samples = spectrum.shape[0]
    amplitude = np.sqrt(spectrum) / spacing
    amplitude[0, 0] = 0.0
    noise = np.fft.rfft2(rng.standard_normal((samples, samples)))
    return np.asarray(np.fft.irfft2(noise * amplitude, s=(samples, samples)))


def first_stage(
    samples: int, spacing_m: float, diameter_m: float, actuators: int, rejection: float
) -> NDArray[np.float64]:
    """Amplitude that the first stage leaves at each frequency: 1 - rejection inside its band, else 1.

    Its mirror, with `actuators` across the diameter, reaches frequencies up to actuators / (2 diameter) along
    each axis.
    """
    fy, fx = frequencies(samples, spacing_m)
    edge = actuators / (2.0 * diameter_m)
    return np.where((np.abs(fy) < edge) & (np.abs(fx) < edge), 1.0 - rejection, 1.0)


def pixel_response(samples: int, spacing_m: float, pixel_m: float) -> NDArray[np.float64]:
    """Amplitude that averaging over square pixels leaves; zero where pixels cannot sample it."""
    fy, fx = frequencies(samples, spacing_m)
    averaged = np.sinc(fy * pixel_m) * np.sinc(fx * pixel_m)
    return np.where(np.hypot(fy, fx) < 0.5 / pixel_m, averaged, 0.0)


def pupil_rms(screen: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Rms over the pupil, piston removed, averaged (in the square) over all places on a periodic screen.

    Parameters
    ----------
    screen : (n, n) periodic screen.
    weights : (n, n) transmission of the pupil, placed anywhere.
    """
    transfer = np.fft.rfft2(weights / weights.sum())
    piston = np.fft.irfft2(np.fft.rfft2(screen) * np.conj(transfer), s=screen.shape)
    return float(np.sqrt(max(0.0, np.mean(screen**2) - np.mean(piston**2))))
