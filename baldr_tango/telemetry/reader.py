"""Reading telemetry files: finished ones, running ones, and those of a process that was killed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import RequestError
from baldr_tango.telemetry.fields import FrameFlag
from baldr_tango.telemetry.files import MEGABYTE, is_finished, list_files, open_file
from baldr_tango.telemetry.journal import GROUP, Entry, read_journal

__all__ = ["RecordedField", "TelemetryFile", "list_files"]

_NOT_ROWS: Final = {"gaps", "images", "reference", GROUP}


@dataclass(frozen=True)
class RecordedField:
    """A field as a file has it."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    """Shape of one record's value."""
    unit: str
    doc: str


class TelemetryFile:
    """One telemetry file, open for reading; a running file grows with every look at it.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    BackendError : it cannot be read, or is no telemetry file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = open_file(self.path)
        self._datasets: dict[str, h5py.Dataset] = {
            name: self._file[name] for name in self._file if name not in _NOT_ROWS
        }
        self._images: dict[str, h5py.Dataset] = dict(self._file["images"].items())

    def __enter__(self) -> TelemetryFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Complete records now in the file."""
        return _common_length(self._datasets)

    @property
    def is_finished(self) -> bool:
        """True when the file was closed; False while it is written, or when its writer was killed."""
        return is_finished(self.path)

    @property
    def attributes(self) -> dict[str, Any]:
        """What describes the recording: texts, numbers, lists."""
        return {name: _plain(value) for name, value in self._file.attrs.items()}

    @property
    def reference(self) -> dict[str, Any]:
        """Arrays (and long texts) that describe the recording, for instance the dark."""
        group = self._file["reference"]
        return {name: _text(data) if data.dtype.kind == "O" else data[()] for name, data in group.items()}

    @property
    def has_journal(self) -> bool:
        """True when the file holds what a replay needs beside the frames."""
        return GROUP in self._file

    @property
    def origin(self) -> dict[str, str]:
        """Digest of the kernels that made the loop, and its processor; empty without a journal."""
        return (
            {name: str(value) for name, value in self._file[GROUP].attrs.items()} if self.has_journal else {}
        )

    def journal(self) -> list[Entry]:
        """Parameters and memory of the loop, as they were written; empty without a journal."""
        return read_journal(self._file[GROUP]) if self.has_journal else []

    @property
    def fields(self) -> dict[str, RecordedField]:
        """Fields that every record has, by name."""
        return {
            name: RecordedField(
                name, data.dtype, data.shape[1:], str(data.attrs["unit"]), str(data.attrs["description"])
            )
            for name, data in self._datasets.items()
        }

    @property
    def gaps(self) -> NDArray[Any]:
        """Records that were lost: structured array, one element per gap.

        ``count`` records, the first of them number ``record`` of the ring, are missing before ``row``. They
        were made of the camera's frames ``first_frame`` to ``last_frame``; -1: nothing is in the file on
        that side.
        """
        data = self._file["gaps"]
        data.refresh()
        gaps = data[()]
        return gaps[gaps["row"] <= len(self)]

    def records(
        self, start: int | None = None, stop: int | None = None, fields: tuple[str, ...] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Values of the records ``start`` to ``stop``, counted as a slice counts.

        Returns
        -------
        arrays (n,) or (n, size) by field name, of all fields or of those asked for.

        Raises
        ------
        RequestError : the file does not have such a field.
        """
        wanted = tuple(self._datasets) if fields is None else fields
        for name in wanted:
            if name not in self._datasets:
                raise RequestError(f"{self.path}: no field {name!r}; there are {', '.join(self._datasets)}")
        first, last, _ = slice(start, stop).indices(len(self))
        return {name: self._datasets[name][first : max(first, last)] for name in wanted}

    def images(self, start: int | None = None, stop: int | None = None) -> dict[str, NDArray[Any]]:
        """Raw images ``start`` to ``stop``, counted as a slice counts: ``frame`` (n,), ``img`` (n, P) ADU."""
        datasets = self._images
        first, last, _ = slice(start, stop).indices(_common_length(datasets))
        return {name: data[first : max(first, last)] for name, data in datasets.items()}

    def utc(self, time_ns: ArrayLike) -> NDArray[np.datetime64]:
        """UTC of values of ``time_ns``, by the clock pair taken when the file began."""
        attributes = self._file.attrs
        offset = int(attributes["utc_ns"]) - int(attributes["monotonic_ns"])
        return (np.asarray(time_ns, dtype=np.int64) + offset).astype("datetime64[ns]")

    def summary(self) -> dict[str, Any]:
        """The file in a few numbers, all of them fit for JSON.

        Rates and latencies are over all records; ``missed_frames`` are camera frames that the loop never had.
        """
        rows = len(self)
        attributes = self.attributes
        gaps = self.gaps
        summary: dict[str, Any] = {
            "path": str(self.path),
            "beam": attributes["beam"],
            "mask": attributes.get("mask", ""),
            "is_finished": self.is_finished,
            "size_mb": self.path.stat().st_size / MEGABYTE,
            "frames": rows,
            "images": _common_length(self._images),
            "lost_frames": int(gaps["count"].sum()),
        }
        if not rows:
            return summary
        data = self.records(fields=tuple(n for n in self._datasets if not self._datasets[n].shape[1:]))
        times = data["time_ns"]
        duration_s = float(times[-1] - times[0]) * 1e-9
        steps = np.diff(data["frame"])
        summary["start_utc"], summary["stop_utc"] = (f"{t}Z" for t in self.utc(times[[0, -1]]))
        summary["duration_s"] = duration_s
        summary["rate_hz"] = (rows - 1) / duration_s if duration_s > 0 else 0.0
        lost_inside = int(gaps["count"][(gaps["row"] > 0) & (gaps["row"] < rows)].sum())
        summary["missed_frames"] = max(0, int((steps[steps > 1] - 1).sum()) - lost_inside)
        for flag in FrameFlag if "flags" in data else ():
            summary[f"flag_{flag.name}"] = int(np.count_nonzero(data["flags"] & flag.value))
        if "latency_ns" in data:
            p50, p99, worst = np.percentile(data["latency_ns"], (50, 99, 100)) * 1e-3
            summary.update(latency_p50_us=p50, latency_p99_us=p99, latency_max_us=worst)
        for name in ("strehl", "snr", "flux"):
            usable = data[name][np.isfinite(data[name])] if name in data else np.zeros(0)
            if usable.size:
                summary[f"mean_{name}"] = float(usable.mean())
        return summary


def _common_length(datasets: dict[str, h5py.Dataset]) -> int:
    """Rows that every dataset has, up to the last one with a frame number."""
    for data in datasets.values():
        data.refresh()
    rows = min(data.shape[0] for data in datasets.values())
    frames = datasets["frame"]
    while rows and frames[rows - 1] < 0:  # fill value: the row was never written
        rows -= 1
    return rows


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _text(data: h5py.Dataset) -> str:
    return str(data.asstr()[()])
