"""What the virtual instrument knows and a real one does not: the wavefront itself.

Stream ``<camera>_truth``, one float64 vector per frame of each beam, in the order of `TRUTH_FIELDS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels import plants
from baldr_tango.streams import Stream

TRUTH_FIELDS: Final[dict[str, str]] = {
    "frame": "number of the camera frame, its cnt0",
    "opd_rms_nm": "wavefront error behind the mirror, piston removed, weighted with the pupil [nm rms]",
    "strehl": "Strehl ratio behind the mirror at the sensor's wavelength",
    "open_loop_rms_nm": "wavefront error before the mirror [nm rms]",
    "open_loop_strehl": "Strehl ratio before the mirror",
    "flux_adu": "light of the frame [ADU]",
    "dm_rms_nm": "shape of the mirror about its flat, piston removed [nm rms]",
    "late_ticks": "frame periods of all beams that began more than half a period late",
    "sum_frames": "frames in the sums below",
    "sum_opd_ms_nm2": "sum of opd_rms_nm squared [nm^2]",
    "sum_strehl": "sum of strehl",
    "sum_open_loop_ms_nm2": "sum of open_loop_rms_nm squared [nm^2]",
    "sum_open_loop_strehl": "sum of open_loop_strehl",
}
"""Entries of the truth vector, in order, with their meaning."""


def truth_stream(camera: str) -> str:
    """Return the name of the truth stream that belongs to a camera stream."""
    return f"{camera}_truth"


@dataclass(frozen=True)
class TruthMeans:
    """Averages over some frames; wavefront errors are averaged in the square."""

    frames: int
    opd_rms_nm: float
    strehl: float
    open_loop_rms_nm: float
    open_loop_strehl: float


def means_of(sums: NDArray[np.float64]) -> TruthMeans | None:
    """Average from the sums of a truth vector; None when there is no frame in them."""
    frames = sums[plants.SUM_FRAMES]
    if frames < 1:
        return None
    return TruthMeans(
        frames=int(frames),
        opd_rms_nm=math.sqrt(max(0.0, sums[plants.SUM_OPD_MS] / frames)),
        strehl=float(sums[plants.SUM_STREHL] / frames),
        open_loop_rms_nm=math.sqrt(max(0.0, sums[plants.SUM_OPEN_MS] / frames)),
        open_loop_strehl=float(sums[plants.SUM_OPEN_STREHL] / frames),
    )


class TruthReader:
    """Reads the truth of one beam; every frame counts, however seldom one reads."""

    def __init__(self, camera: str, directory: str | Path | None = None) -> None:
        """Open the truth stream that belongs to the camera stream `camera`.

        Raises
        ------
        BackendError : there is no such stream.
        """
        self._stream = Stream.open(
            truth_stream(camera), directory, shape=(len(TRUTH_FIELDS),), dtype=np.float64
        )
        self._begin = self._vector()

    def __enter__(self) -> TruthReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self) -> dict[str, float]:
        """Return the truth of the newest frame, by name."""
        return dict(zip(TRUTH_FIELDS, self._vector().tolist(), strict=True))

    def is_current(self) -> bool:
        """Tell whether the stream is still the one that was opened."""
        return self._stream.is_current() is None

    def restart(self) -> None:
        """Begin a new average with the next frame."""
        self._begin = self._vector()

    def means(self) -> TruthMeans | None:
        """Average over all frames since the last `restart`, or since opening; None when there is none."""
        sums = self._vector() - self._begin
        return means_of(sums)

    def latest(self) -> TruthMeans | None:
        """Average over the frames since the last call and begin anew; None when there is no new frame."""
        result = self.means()
        if result is not None:
            self.restart()
        return result

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _vector(self) -> NDArray[np.float64]:
        return np.asarray(self._stream.read()[0], dtype=np.float64)
