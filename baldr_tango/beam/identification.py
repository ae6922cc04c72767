"""Model of a disturbance, identified from recorded frames, for the Kalman regulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.kalman import DEFAULT_NOISE, KalmanModel, kalman_model
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop

FloatArray = NDArray[np.float64]

LEAST_FRAMES: Final = 500
"""Frames without which an identification is refused."""

DEFAULT_FRAMES: Final = 4000
"""Newest frames that are used when nobody says how many."""

MOST_GAIN: Final = 0.5
"""Largest gain of an identified model when nobody says another.

The model knows one loop only. Tip and tilt are seen by the high-order loop too, whose gain adds to that of
the low-order loop, and the gain of the sensor varies with the residual wavefront.
"""

_LAGS: Final = 4
_FADED: Final = 0.9999
_LEAST_NOISE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class Identified:
    """A diagonal model, mode by mode, and how many frames it comes from."""

    model: KalmanModel
    frames: int

    def predicted_rms(self) -> FloatArray:
        """(M,) rms of the residual that the regulator is to leave [DM units]."""
        return np.asarray(np.sqrt(np.diag(self.model.covariance)))


def identify(
    loop: RealTimeLoop, which: Literal["lo", "ho"], frames: int | None = None, most_gain: float = MOST_GAIN
) -> Identified:
    """Identify the disturbance of one loop from its newest frames, whether it was open or closed.

    Errors are measured after the command of the frame before has acted, so error plus that command is the
    disturbance as the sensor sees it, with the sensor's noise. The loop should see what it measures: the
    reconstructor is taken to be right (``H = B = 1``).

    Parameters
    ----------
    most_gain : largest gain of a mode; the noise is taken larger where the gain would be

    Raises
    ------
    RequestError : the number of frames or the gain is out of range.
    StateError : there are too few frames in a row.
    """
    ring = loop.arrays.ring
    wanted = min(DEFAULT_FRAMES, ring.capacity) if frames is None else frames
    if frames is not None and not LEAST_FRAMES <= frames <= ring.capacity:
        raise RequestError(f"frames: expected {LEAST_FRAMES} to {ring.capacity}, found {wanted}")
    if not 0.0 < most_gain < 1.0:
        raise RequestError(f"largest gain: expected a number between 0 and 1, found {most_gain:g}")
    error, output = f"e_{which.upper()}", f"u_{which.upper()}"
    stop = ring.write_index
    _, records = ring.read(stop - wanted, stop, ("frame", "flags", error, output))
    seen = pseudo_open_loop(records, error, output)
    if seen.count < LEAST_FRAMES:
        raise StateError(f"{seen.count} usable frames in a row are recorded, {LEAST_FRAMES} are needed")
    control = getattr(loop.parameters, f"control_{which}")
    a, q, r = first_order(seen, control.leak)
    r = np.maximum(r, noise_for(a, q, most_gain))
    one = np.eye(a.size)
    return Identified(kalman_model(np.diag(a), one, one, np.diag(q), np.diag(r)), seen.count)


def noise_for(a: FloatArray, q: FloatArray, gain: float) -> FloatArray:
    """Variance of the noise with which the steady gain of a scalar model (H = 1) is `gain`.

    From ``K = P / (P + r)`` and the Riccati equation: ``q = r K (1 / (1 - K) - a^2)``.
    """
    return np.asarray(q / (gain * (1.0 / (1.0 - gain) - a * a)))


@dataclass(frozen=True, eq=False)
class Seen:
    """Disturbance as the sensor saw it."""

    values: FloatArray
    """(n, M) [DM units]; 0 where it is not known."""
    known: NDArray[np.bool_]
    """(n,)"""

    @property
    def count(self) -> int:
        """Frames of which the disturbance is known."""
        return int(self.known.sum())

    def covariance(self, lag: int) -> FloatArray:
        """(M,) mean product of frames `lag` apart."""
        end = len(self.values) - lag
        pairs = self.known[:end] & self.known[lag:]
        return np.asarray((self.values[:end] * self.values[lag:])[pairs].mean(axis=0))


def pseudo_open_loop(records: dict[str, NDArray[Any]], error: str, output: str) -> Seen:
    """Add to each error the command of the frame before; after a gap or a skipped frame it is not known."""
    errors, outputs = records[error].astype(np.float64), records[output].astype(np.float64)
    if len(errors) < 2:
        return Seen(errors[:0], np.zeros(0, dtype=bool))
    fine = (records["flags"] & (d.FLAG_SKIPPED | d.FLAG_TRIPPED | d.FLAG_NOT_APPLIED)) == 0
    known = fine[1:] & fine[:-1] & (np.diff(records["frame"]) == 1)
    values = errors[1:] + outputs[:-1]
    values[~known] = 0.0
    return Seen(values, known)


def first_order(seen: Seen, leak: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Fit a first-order disturbance plus white noise: covariance ``s a^k`` at lag k > 0, ``s + r`` at 0.

    The noise is white, so it shows at lag 0 only. a and s are least-squares fits over the lags 1 to 5.

    Parameters
    ----------
    leak : (M,) a for modes that show no disturbance

    Returns
    -------
    a, q, r : (M,) transition, innovation variance ``s (1 - a^2)`` and noise variance [(DM units)^2]
    """
    c = np.array([seen.covariance(lag) for lag in range(_LAGS + 2)])
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.sum(c[2:] * c[1:-1], axis=0) / np.sum(c[1:-1] ** 2, axis=0)
        a = np.clip(a, 0.0, _FADED)
        powers = a ** np.arange(1, _LAGS + 2)[:, None]
        s = np.sum(c[1:] * powers, axis=0) / np.sum(powers**2, axis=0)
    is_seen = np.isfinite(s) & (s > 0.0) & (a > 0.0)
    a, s = np.where(is_seen, a, np.minimum(leak, _FADED)), np.where(is_seen, np.minimum(s, c[0]), 0.0)
    r = np.maximum(c[0] - s, _LEAST_NOISE * c[0])
    return a, s * (1.0 - a**2), np.where(r > 0.0, r, DEFAULT_NOISE)
