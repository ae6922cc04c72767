"""Telemetry fields: names, types, sizes, units and meanings, once for the ring, the files and the manual."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

SIZE_KEYS: Final = {
    "P": "pixels of the sub-frame",
    "A": "actuators of the deformable mirror",
    "L": "low-order modes",
    "H": "high-order modes",
    "G": "points of the DM map, corners included",
}
"""Sizes that a vector field can have."""


class FrameFlag(enum.IntFlag):
    """What was unusual about a frame; bits of the field ``flags``."""

    SKIPPED = 1
    """Not used: nothing was computed. Another bit says why; none: the first read of a burst."""
    LIMITED = 2
    """A mode was limited."""
    TRIPPED = 4
    """A safety limit opened the loops."""
    MISSED_BEFORE = 8
    """Camera frames were lost just before this one."""
    NOT_APPLIED = 16
    """No command was written to the mirror."""
    NO_FLUX = 32
    """The flux was not above its limit, negative or not finite."""
    SATURATED = 64
    """Too many pixels were saturated."""
    NEGATIVE = 128
    """Too many pixels were far below the dark."""
    FROZEN = 256
    """The pixels are those of the frame before."""
    NOT_FINITE = 512
    """The signal or an error was not finite."""
    WRITE_FAILED = 1024
    """The command could not be written to the DM channel."""


@dataclass(frozen=True)
class Field:
    """One telemetry field."""

    name: str
    """Legacy telemetry name where one exists."""
    dtype: str
    """numpy type string of one element."""
    size_key: str
    """Key of `SIZE_KEYS` for a vector, empty for a scalar."""
    unit: str
    """Unit, empty for a pure number."""
    doc: str
    """Meaning, one sentence."""

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of one record's value: ``()`` or ``(sizes[size_key],)``."""
        return (sizes[self.size_key],) if self.size_key else ()

    @property
    def numpy_dtype(self) -> np.dtype:
        """Type of one element."""
        wanted: DTypeLike = self.dtype
        return np.dtype(wanted)


TELEMETRY_FIELDS: Final = (
    Field("frame", "i8", "", "", "frame counter of the camera stream (cnt0)"),
    Field("time_ns", "i8", "", "ns", "CLOCK_MONOTONIC when the loop woke up for the frame"),
    Field("latency_ns", "i4", "", "ns", "time from wake-up to the command's last post"),
    Field("LO_servo_mode", "i1", "", "", "tip/tilt loop in force: 0 open, 1 closed"),
    Field("HO_servo_mode", "i1", "", "", "high-order loop in force: 0 open, 1 closed"),
    Field("flags", "u2", "", "", "bits of FrameFlag"),
    Field("img", "i4", "P", "ADU", "raw sub-frame, row-major"),
    Field("img_dm", "f4", "A", "", "flux-normalised intensity at the actuators"),
    Field("signal", "f4", "A", "", "wavefront-sensor signal of this frame, before the boxcar"),
    Field("e_LO", "f4", "L", "DM units", "low-order mode errors as measured, set points not subtracted"),
    Field("u_LO", "f4", "L", "DM units", "low-order controller outputs"),
    Field("e_HO", "f4", "H", "DM units", "high-order mode errors as measured, set points not subtracted"),
    Field("u_HO", "f4", "H", "DM units", "high-order controller outputs"),
    Field("c_LO", "f4", "G", "DM units", "low-order DM map, legacy sign: before the minus of the command"),
    Field("c_HO", "f4", "G", "DM units", "high-order DM map, legacy sign: before the minus of the command"),
    Field("c_inj", "f4", "G", "DM units", "injected DM map: part of the command, or equal to set points"),
    Field("command", "f4", "G", "DM units", "DM map of the frame: -(c_LO + c_HO) + c_inj + offsets"),
    Field("flux", "f8", "", "ADU", "sum of the dark-subtracted sub-frame"),
    Field("rmse_est", "f4", "", "ADU", "mean of the dark-subtracted pixels outside the pupil"),
    Field("snr", "f4", "", "", "signal-to-noise ratio: temporal mean over deviation of img_dm, averaged"),
    Field("strehl", "f4", "", "", "Strehl ratio, extended Marechal approximation: model loop.strehl_model"),
    Field("version", "i8", "", "", "version of the parameters in force: each change has the next number"),
)
"""Every telemetry field, in the order of the files' datasets."""

FIELD_BY_NAME: Final[Mapping[str, Field]] = {field.name: field for field in TELEMETRY_FIELDS}
"""The same table by name."""
