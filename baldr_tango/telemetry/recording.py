"""One telemetry file while it is written: layout, appending of ring records, safe closing.

The file is HDF5 in SWMR mode. The dataset ``frame`` grows last, after everything else has been flushed: a row
that it counts is complete in the file, whatever kills the process.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from baldr_tango import __version__
from baldr_tango.errors import BackendError
from baldr_tango.kernels.jit import HOST_CPU, KERNELS_DIGEST
from baldr_tango.telemetry.chunks import Chunk
from baldr_tango.telemetry.fields import FIELD_BY_NAME, Field, FrameFlag
from baldr_tango.telemetry.files import FORMAT, FORMAT_VERSION, file_name, publish
from baldr_tango.telemetry.journal import FIRST, Entry, Journal, JournalDatasets
from baldr_tango.telemetry.ring import TelemetryRing

Description = Mapping[str, Any]
"""What describes a recording: texts, numbers and arrays by name."""

GAP_DTYPE: Final = np.dtype(
    [("row", "<i8"), ("record", "<i8"), ("count", "<i8"), ("first_frame", "<i8"), ("last_frame", "<i8")]
)
"""One gap: row of the file before which records are missing, first missing record, how many, and the
camera's frames between those that the file has on either side; -1 where there is none."""

Gap = tuple[int, int, int, int]
"""First missing record, how many, first and last missing frame."""

_HDF5_CHUNK_BYTES: Final = 65536
_HDF5_CHUNK_ROWS: Final = 1024
_METADATA_BYTES: Final = 1_000_000  # generous: what HDF5 may add to a file beside the data of one append
_PLAIN_VERSION: Final = 1  # of the format, without a journal: any reader knows it
_LONG_TEXT: Final = 32768  # an HDF5 attribute ends at 64 kB
_BREATH_S: Final = 50e-6  # between two fields: threads that answer clients go first
_UNCLOSED: list[object] = []  # see RecordingFile.abandon

logger = logging.getLogger(__name__)


class RecordingFile:
    """A telemetry file that is being written.

    Parameters
    ----------
    directory : the beam's directory, which exists.
    beam : beam number.
    ring : the ring whose chunks will be appended.
    fields : names of the fields to record; ``frame`` and ``time_ns`` always are.
    image_every : one raw image of this many records, 0 none.
    compression : ``none``, ``lzf`` or ``gzip``.
    description : texts and numbers become attributes, arrays datasets below ``reference``.
    path : file to be written instead of a new one named by the time; it may exist.
    journal : what a replay of the file needs; None: it cannot be replayed. The file ends it.

    Raises
    ------
    OSError, RuntimeError : the file cannot be created.
    """

    def __init__(
        self,
        directory: Path,
        beam: int,
        ring: TelemetryRing,
        *,
        fields: tuple[str, ...],
        image_every: int,
        compression: str,
        description: Description,
        path: Path | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.ring = ring
        self.rows = 0
        self.images = 0
        self.gaps = 0
        self.data_bytes = 0
        self.opened_ns = time.monotonic_ns()
        self.journal = journal
        self.image_every = image_every if "img" in fields else 0
        # Bytes of the same weight side by side: smaller, and less work for the compression.
        self._storage: dict[str, Any] = {}
        if compression != "none":
            self._storage = {"compression": compression, "shuffle": True}
        if compression == "gzip":
            self._storage["compression_opts"] = 1
        self._columns: dict[str, h5py.h5d.DatasetID] = {}
        self._chunk_bytes = 0
        self._journal: JournalDatasets | None = None
        hidden = path or directory / f".{file_name(beam, time.time_ns())}.{os.getpid()}.new"
        mode = "w" if path else "x"
        self._file = h5py.File(hidden, mode, libver=("v110", "v110"), locking="best-effort")
        try:
            self._reserve(_METADATA_BYTES)
            self._describe(beam, fields, description)
            self._create(fields)
            self._file.swmr_mode = True
            self.path = path or _publish(hidden, directory, beam)
        except BaseException:
            self.abandon()
            hidden.unlink(missing_ok=True)
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Fields that every row has."""
        return ("frame", *self._columns)

    @property
    def nbytes(self) -> int:
        """Size of the file [bytes]."""
        return int(self._file.id.get_filesize())

    def append(self, chunk: Chunk, gap: Gap | None = None) -> None:
        """Write a chunk and flush it to the file.

        Parameters
        ----------
        gap : records that are missing before the chunk.

        Raises
        ------
        OSError, RuntimeError : the disk is full or broken; call `abandon` and nothing else.
        """
        entries = self.journal.take() if self.journal is not None else []
        if not self.rows and self.journal is not None:
            entries.append(Entry(FIRST, chunk.first))
        told = sum(entry.nbytes for entry in entries)
        self._reserve(2 * self._chunk_bytes + _METADATA_BYTES + chunk.nbytes + told)
        if self._journal is not None:
            self._journal.append(entries)
        for name, dataset in self._columns.items():
            self._put(dataset, self.rows, chunk.columns[name])
            time.sleep(_BREATH_S)
        self._put(self._img, self.images, chunk.images)
        if gap is not None:
            self._put_gap(gap)
        h5py.h5f.flush(self._file.id)
        self._put(self._image_frame, self.images, chunk.image_frames)
        self._image_frame.flush()
        self._put(self._frame, self.rows, chunk.columns["frame"])
        self._frame.flush()
        self.gaps += gap is not None
        self.rows += len(chunk)
        self.images += len(chunk.image_frames)
        self.data_bytes += chunk.nbytes

    def note_gap(self, gap: Gap) -> None:
        """Note records that are missing behind the last row; raises as `append` does."""
        self._reserve(self._chunk_bytes + _METADATA_BYTES)
        self._put_gap(gap)
        self.gaps += 1

    def _put_gap(self, gap: Gap) -> None:
        self._gaps.resize(self.gaps + 1, axis=0)
        self._gaps[self.gaps] = (self.rows, *gap)

    def sync(self) -> None:
        """Have the operating system put everything written on the disk."""
        os.fsync(self._file.id.get_vfd_handle())

    def close(self, *, sync: bool = False) -> None:
        """Finish the file, with `sync` on the disk itself; a file without a row is deleted.

        Raises
        ------
        OSError, RuntimeError : the disk is full or broken; the file is given up as `abandon` does.
        """
        self._end_journal()
        if not self._file.id.valid:
            return
        try:
            self._reserve(_METADATA_BYTES)
            h5py.h5f.flush(self._file.id)
            if sync:
                self.sync()
            self._file.close()
        except BaseException:
            self.abandon()
            raise
        if self.rows == 0 and self.gaps == 0:
            self.path.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Let go of a file that can no longer be written; what was flushed stays readable.

        HDF5 cannot close a file whose last writes fail: it leaves half-freed objects that end the process
        with a segmentation fault, at once or at exit (seen with HDF5 2.0). So its descriptor is turned to
        memory first, where the rest succeeds and is forgotten.
        """
        self._end_journal()
        if not self._file.id.valid:
            return
        try:
            descriptor = self._file.id.get_vfd_handle()
            memory = os.memfd_create("abandoned telemetry")
            try:
                os.ftruncate(memory, os.fstat(descriptor).st_size)
                os.dup2(memory, descriptor)
            finally:
                os.close(memory)
            self._file.close()
        except Exception:
            _UNCLOSED.append(self.__dict__)  # never collected, so never closed a second time
            logger.exception("a telemetry file could not be given up cleanly")

    def _end_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _describe(self, beam: int, fields: tuple[str, ...], description: Description) -> None:
        attributes = self._file.attrs
        reference = self._file.create_group("reference")
        for name, value in description.items():
            is_array = isinstance(value, np.ndarray) and value.ndim > 0 and value.dtype.kind in "biuf"
            if is_array or (isinstance(value, str) and len(value) > _LONG_TEXT):
                reference.create_dataset(name, data=value)
            elif isinstance(value, (str, bool, int, float, np.generic)):
                attributes[name] = value
            elif value is not None:
                attributes[name] = str(value)
        utc_ns, monotonic_ns = clock_pair()
        attributes["format"] = FORMAT
        attributes["format_version"] = FORMAT_VERSION if self.journal is not None else _PLAIN_VERSION
        attributes["beam"] = beam
        attributes["software_version"] = __version__
        attributes["host"] = platform.node()
        attributes["utc_start"] = str(np.datetime64(utc_ns, "ns")) + "Z"
        attributes["utc_ns"] = utc_ns
        attributes["monotonic_ns"] = monotonic_ns
        attributes["ring_capacity"] = self.ring.capacity
        attributes["image_every"] = self.image_every
        attributes["fields"] = list(fields)

    def _create(self, fields: tuple[str, ...]) -> None:
        for name in dict.fromkeys(("frame", "time_ns", *fields)):
            if name != "img":
                self._columns[name] = self._dataset(self._file, name, FIELD_BY_NAME[name])
        self._frame = self._columns.pop("frame")  # grows last: it says how many rows are complete
        group = self._file.create_group("images")
        self._img = self._dataset(group, "img", FIELD_BY_NAME["img"])
        self._image_frame = self._dataset(group, "frame", FIELD_BY_NAME["frame"])
        self._gaps = self._file.create_dataset("gaps", (0,), GAP_DTYPE, maxshape=(None,), chunks=(64,))
        self._gaps.attrs["description"] = (
            "records lost: before which row, the first, how many; first and last lost frame (-1: none)"
        )
        if self.journal is not None:
            self._journal = JournalDatasets(self._file, {"kernels": KERNELS_DIGEST, "processor": HOST_CPU})

    def _dataset(self, group: h5py.Group, name: str, field: Field) -> h5py.h5d.DatasetID:
        shape, dtype = field.shape(self.ring.sizes), field.numpy_dtype
        row_bytes = dtype.itemsize * int(np.prod(shape))
        chunk_rows = max(1, min(_HDF5_CHUNK_ROWS, _HDF5_CHUNK_BYTES // row_bytes))
        self._chunk_bytes += chunk_rows * row_bytes
        dataset = group.create_dataset(
            name,
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(chunk_rows, *shape),
            fillvalue=np.nan if dtype.kind == "f" else -1 if dtype.kind == "i" else 0,
            **self._storage,
        )
        dataset.attrs["unit"] = field.unit
        dataset.attrs["description"] = field.doc
        if name == "flags":
            dataset.attrs["bits"] = ", ".join(f"{flag.value} {flag.name}" for flag in FrameFlag)
        return dataset.id

    def _reserve(self, nbytes: int) -> None:
        """Claim disk space before HDF5 needs it: an error here is harmless, one inside HDF5 is not."""
        descriptor = self._file.id.get_vfd_handle()
        os.posix_fallocate(descriptor, int(self._file.id.get_filesize()), nbytes)

    @staticmethod
    def _put(dataset: h5py.h5d.DatasetID, row: int, values: NDArray[Any]) -> None:
        """Write values from a row on; h5py's own slicing costs ten times as much of the GIL."""
        if not len(values):
            return
        tail = values.shape[1:]
        if dataset.shape[0] < row + len(values):
            dataset.set_extent((row + len(values), *tail))
        space = dataset.get_space()
        space.select_hyperslab((row, *(0 for _ in tail)), values.shape)
        dataset.write(h5py.h5s.create_simple(values.shape), space, values)


def clock_pair() -> tuple[int, int]:
    """UTC and CLOCK_MONOTONIC of the same instant [ns], to well below a microsecond.

    The best of a few tries: the one in which the two readings of the monotonic clock are closest.
    """
    tries = []
    for _ in range(5):
        before = time.monotonic_ns()
        utc = time.time_ns()
        after = time.monotonic_ns()
        tries.append((after - before, utc, (before + after) // 2))
    _, utc, monotonic = min(tries)
    return utc, monotonic


def _publish(hidden: Path, directory: Path, beam: int) -> Path:
    """Move the complete file to its final name, which is the time at which it began."""
    utc_ns = time.time_ns()
    for step in range(1000):
        path = directory / file_name(beam, utc_ns + step * 10**6)
        try:
            publish(hidden, path)
        except FileExistsError:
            continue
        return path
    raise BackendError(f"{directory}: no free name for a telemetry file")
