"""A recording as a replay needs it: every frame, the versions of the parameters, where the loop can begin."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.journal import ENTERED, FIRST, PARAMETERS, STATE, Entry
from baldr_tango.telemetry.reader import TelemetryFile

NEEDED: Final = ("frame", "flags", "version", "command")
"""Fields without which nothing can be replayed or compared."""

_TIMES: Final = ("time_ns", "latency_ns")

Arrays = dict[str, NDArray[Any]]


class Recording:
    """A telemetry file that can be replayed.

    Parameters
    ----------
    path : the file, finished or not.

    Raises
    ------
    BackendError : it cannot be read, or is no telemetry file.
    RequestError : it does not hold what a replay needs; says what.
    """

    def __init__(self, path: Path | str) -> None:
        self.file = TelemetryFile(path)
        try:
            self._load()
        except BaseException:
            self.file.close()
            raise

    def _load(self) -> None:
        every = int(self.file.attributes.get("image_every", 0))
        if every != 1:
            held = f"one raw image of {every} frames" if every else "no raw images"
            self._refuse(f"it holds {held}; record with [telemetry] image_every = 1")
        if not self.file.has_journal:
            self._refuse("it holds raw images, but not the parameters of the loop")
        missing = [name for name in NEEDED if name not in self.file.fields]
        if missing:
            self._refuse(f"[telemetry] fields lacked {', '.join(missing)}")
        self.rows = len(self.file)
        """Complete records."""
        journal = self.file.journal()
        first = [entry.record for entry in journal if entry.kind == FIRST]
        if not self.rows or not first:
            self._refuse("it holds no frame")
        self.records = first[0] + np.arange(self.rows)
        """(rows,) number of each record in the ring of the loop that was recorded."""
        for gap in self.file.gaps:
            if 0 < gap["row"] < self.rows:
                self.records[int(gap["row"]) :] += int(gap["count"])
        self.states = {entry.record: entry for entry in journal if entry.kind in (STATE, ENTERED)}
        """Where the loop can begin, by the record before which it does."""
        self.entered = {entry.record for entry in journal if entry.kind == ENTERED}
        """Records before which the recorded loop began anew."""
        self._changes = {e.version: dict(e.arrays or {}) for e in journal if e.kind == PARAMETERS}
        if not self._changes or not any(int(record) in self.states for record in self.records):
            self._refuse("it holds no frame before which the memory of the loop is known")
        self.capacity = int(self.file.attributes["ring_capacity"])
        """Records of the loop's ring."""
        base = self._changes[min(self._changes)]
        self.sizes = {
            "P": base["dark"].size,
            "A": base["reference"].size,
            "L": base["kp_lo"].size,
            "H": base["kp_ho"].size,
            "G": base["offset_lo"].size,
        }
        """Sizes of the vector fields."""
        self.compared = tuple(
            name for name in self.file.fields if name in FIELD_BY_NAME and name not in _TIMES
        )
        """Fields that a replay must give again: all but times."""

    def _refuse(self, reason: str) -> None:
        raise RequestError(f"telemetry file {self.file.path}: cannot be replayed: {reason}")

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def parameters(self, version: int) -> Arrays:
        """Return all arrays of the parameters of a version, by the names of `packing.slot_arrays`.

        Raises
        ------
        RequestError : the file does not have them.
        """
        arrays: Arrays = {}
        for number in range(min(self._changes), version + 1):
            arrays |= self.change(number)
        return arrays

    def change(self, version: int) -> Arrays:
        """Return the arrays of a version that differ from the version before; raises as `parameters` does."""
        if version not in self._changes:
            self._refuse(f"version {version} of the parameters is not in it")
        return _padded(self._changes[version])

    def block(self, start: int, stop: int) -> tuple[Arrays, NDArray[np.int32]]:
        """Return the fields and the raw images (n, P) of some rows.

        Raises
        ------
        RequestError : an image is not that of its row.
        """
        fields = self.file.records(start, stop)
        images = self.file.images(start, stop)
        if not np.array_equal(images["frame"], fields["frame"]):
            self._refuse(f"the raw images of rows {start} to {stop - 1} are not those of their frames")
        return fields, images["img"]


def _padded(arrays: Arrays) -> Arrays:
    """Give switches and limits the columns that this version of the loop has: 0 where the file had none."""
    wanted = {"switches": d.N_SWITCHES, "limits": d.N_LIMITS}
    return {
        name: np.pad(array, (0, max(0, wanted[name] - array.size))) if name in wanted else array
        for name, array in arrays.items()
    }


def is_fresh(entry: Entry) -> bool:
    """True where the loop began anew; False where it only had its memory copied."""
    return entry.kind == ENTERED
