"""Frames that the loop has recorded, chosen and averaged for a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.bad_pixels import repair_sources
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.telemetry.ring import TelemetryRing

FloatArray = NDArray[np.float64]

DEFAULT_FRAMES: Final = 1000
"""Newest frames that are looked at when nobody says how many."""

LEAST_FRAMES: Final = 10
"""Frames without which a measurement is refused."""

SETTLE_FRAMES: Final = 2
"""Frames after a change of the mirror that may have been exposed before or while it moved."""

STEADY_SIGMA: Final = 10.0
"""Departure of the flux from its newest mean that means other light, over its newest deviation."""

_NEWEST: Final = 20
_SAME_MAP: Final = 1e-6
_PIECE: Final = 256


@dataclass(frozen=True)
class Frames:
    """Consecutive records of the ring, and those among them that are used."""

    ring: TelemetryRing
    first: int
    """Number of the first record."""
    used: NDArray[np.bool_]
    """(n,) whether a record is used."""

    @property
    def count(self) -> int:
        """Frames used."""
        return int(self.used.sum())

    def only(self, used: NDArray[np.bool_]) -> Frames:
        """Use no others than these, (n,) of booleans."""
        return Frames(self.ring, self.first, self.used & used)

    def field(self, name: str) -> NDArray[Any]:
        """Values of one telemetry field in the frames used."""
        return np.concatenate([records[name][used] for records, used in self.pieces(name)])

    def pieces(self, *names: str) -> Iterator[tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]]:
        """Copies of some fields, with the flags of those used, some hundred records at a time.

        Raises
        ------
        StateError : the loop has overwritten them meanwhile.
        """
        for begin in range(0, self.used.size, _PIECE):
            used = self.used[begin : begin + _PIECE]
            start = self.first + begin
            first, records = self.ring.read(start, start + used.size, names)
            if first != start:
                raise StateError("the frames were overwritten meanwhile; increase set_telem_capacity")
            yield records, used


def choose_frames(
    ring: TelemetryRing, wanted: int | None, *, dark: bool = False, after_ns: int | None = None
) -> Frames:
    """Choose the newest frames that belong together.

    They begin after the last change of a servo state, and, while both loops are open, of the map on the
    mirror (injected signals apart), whose first two frames may still show the one before. Frames without
    usable flux do not count.

    Parameters
    ----------
    wanted : number of frames; None: what there is, at most `DEFAULT_FRAMES`.
    dark : the light is off: frames without flux are the ones that count, and they begin where the flux has
        come to its present level.
    after_ns : frames that the loop took before this time do not count [CLOCK_MONOTONIC, ns]; None: all do.

    Raises
    ------
    RequestError : the number is out of range.
    StateError : there are too few such frames.
    """
    if wanted is not None and not LEAST_FRAMES <= wanted <= ring.horizon:
        raise RequestError(f"frames: expected {LEAST_FRAMES} to {ring.horizon}, found {wanted}")
    stop = ring.write_index
    count = min(ring.available, DEFAULT_FRAMES if wanted is None else wanted)
    names = ("LO_servo_mode", "HO_servo_mode", "command", "c_inj", "flags", "flux", "time_ns")
    first, records = ring.read(stop - count, stop, names)
    begin = _steady_flux(records["flux"]) if dark else _unchanged(records)
    usable = np.ones(records["flags"].size, dtype=bool) if dark else records["flags"] & d.FLAG_SKIPPED == 0
    usable[:begin] = False
    if after_ns is not None:
        usable &= records["time_ns"] >= after_ns
    frames = Frames(ring, first, usable)
    least = LEAST_FRAMES if wanted is None else wanted
    if frames.count < least:
        why = "since the light changed" if dark else "since the last change of loops, mirror or mask"
        raise StateError(f"{frames.count} usable frames {why}, {least} are needed; wait a moment")
    return frames


def _unchanged(records: dict[str, NDArray[Any]]) -> int:
    """First record after the last change of servo states or, with open loops, of the mirror."""
    lo, ho = records["LO_servo_mode"], records["HO_servo_mode"]
    changed = (lo[1:] != lo[:-1]) | (ho[1:] != ho[:-1])
    if lo.size and not lo[-1] and not ho[-1]:
        static = records["command"] - records["c_inj"]
        changed |= np.abs(static[1:] - static[:-1]).max(axis=1, initial=0.0) > _SAME_MAP
    last = np.flatnonzero(changed)
    # The record of a change holds the frame that came before the mirror moved.
    return int(last[-1]) + 2 + SETTLE_FRAMES if last.size else 0


def _steady_flux(flux: FloatArray) -> int:
    """First record from which on the flux has its present level."""
    newest = flux[-_NEWEST:]
    if newest.size < 2:
        return 0
    other = np.abs(flux - np.median(newest)) > STEADY_SIGMA * newest.std(ddof=1) + 1e-9
    other[-newest.size :] = False
    last = np.flatnonzero(other)
    return int(last[-1]) + 2 if last.size else 0


def mean_raw(frames: Frames) -> FloatArray:
    """Mean raw frame, (P,) [ADU]."""
    total: Any = 0.0
    for records, used in frames.pieces("img"):
        total = total + records["img"][used].sum(axis=0, dtype=np.float64)
    return np.asarray(total / frames.count)


@dataclass(frozen=True)
class MeanLight:
    """Average of frames, bad pixels repaired."""

    normalised: FloatArray
    """(P,) mean of the frames, each over its own flux."""
    image: FloatArray
    """(P,) mean of the dark-subtracted frames [ADU]."""
    flux: float
    """Flux of that mean [ADU]."""
    frames: int
    """Frames that it is made of."""


def mean_light(frames: Frames, p: LoopParameters, burst: int) -> MeanLight:
    """Average frames after subtraction of the dark in force, whatever it was when they were taken.

    In non-destructive read-out (`burst` reads, 2 or more) a frame is the increase since the read before.

    Raises
    ------
    StateError : a frame that is used has no light with this dark.
    """
    normalised: Any = 0.0
    image: Any = 0.0
    count = 0
    before: NDArray[Any] | None = None
    for records, used in frames.pieces("img"):
        raw = records["img"].astype(np.float64)
        if burst > 1:
            previous = raw[:1] if before is None else before
            used = used & (np.arange(raw.shape[0]) > (0 if before is None else -1))
            before, raw = raw[-1:], raw - np.concatenate([previous, raw[:-1]])
        else:
            raw = raw - p.dark
        light = repaired(raw[used], p)
        image = image + light.sum(axis=0)
        if burst <= 1:  # the increase from read to read may well be less than its noise
            flux = light.sum(axis=1)
            if not (flux > p.limits.min_flux_adu).all():
                raise StateError("a frame has too little light with the present dark; is the light on?")
            normalised = normalised + (light / flux[:, np.newaxis]).sum(axis=0)
        count += light.shape[0]
    mean = np.asarray(image / count) if count else np.zeros_like(p.dark)
    total = float(mean.sum())
    if not total > 0:
        raise StateError("there is no light in the frames")
    shape = mean / total if burst > 1 else np.asarray(normalised / count)
    return MeanLight(shape, mean, total, count)


def repaired(light: FloatArray, p: LoopParameters) -> FloatArray:
    """Repair the bad pixels of dark-subtracted frames (n, P) by the loop's rule."""
    bad = p.bad_pixels
    if not bad.size:
        return light
    out = light.copy()
    if p.bad_pixel_rule == "median":
        out[:, bad] = np.median(light, axis=1, keepdims=True)
        return out
    for pixel, sources in repair_sources(bad, p.frame_shape).items():
        out[:, pixel] = light[:, sources].mean(axis=1)
    return out
