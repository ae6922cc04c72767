"""Chunks: runs of ring records that are copied, written, or dropped as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels.atomics import fence
from baldr_tango.telemetry.ring import TelemetryRing

_LONGEST: Final = 1024
_RING_PARTS: Final = 8


@dataclass(frozen=True)
class Chunk:
    """Copies of consecutive records, which nothing overwrites any more."""

    first: int
    """Number of the first record."""
    columns: dict[str, NDArray[Any]]
    """(n,) or (n, size) by field name; ``frame`` always, raw images not."""
    images: NDArray[np.int32]
    """(m, P) raw images of the records chosen [ADU]."""
    image_frames: NDArray[np.int64]
    """(m,) their frame numbers."""

    def __len__(self) -> int:
        return len(self.columns["frame"])

    @property
    def stop(self) -> int:
        """Number of the record after the last one."""
        return self.first + len(self)

    @property
    def nbytes(self) -> int:
        """Size of fields and images [bytes]."""
        return self.images.nbytes + sum(array.nbytes for array in self.columns.values())


def chunk_records(ring: TelemetryRing) -> int:
    """Records of a full chunk: an eighth of the ring, so that the copy of one is far ahead of the loop."""
    return max(1, min(_LONGEST, ring.capacity // _RING_PARTS))


def take(ring: TelemetryRing, start: int, stop: int, names: Iterable[str], image_every: int) -> Chunk | None:
    """Copy the next chunk of the records ``start`` to ``stop`` (exclusive).

    If the loop has overwritten any record of it, the whole chunk is left out, and so on: what is given back
    begins a whole number of chunks behind `start`.

    Parameters
    ----------
    names : fields to copy besides ``frame``; ``img`` is ignored.
    image_every : one raw image of this many records, 0 none.

    Returns
    -------
    None when nothing is left up to `stop`.
    """
    size, first = chunk_records(ring), start
    while first < stop:
        overwritten = ring.oldest - first
        if overwritten > 0:
            first += -(-overwritten // size) * size
            continue
        chunk = _copy(ring, first, min(first + size, stop), names, image_every)
        if ring.oldest <= first:
            return chunk
    return None


def chunks(
    ring: TelemetryRing, start: int, stop: int, names: Iterable[str], image_every: int
) -> Iterator[Chunk]:
    """Give all chunks of the records ``start`` to ``stop`` (exclusive) that are still there; see `take`."""
    wanted = tuple(names)
    chunk = take(ring, start, stop, wanted, image_every)
    while chunk is not None:
        yield chunk
        chunk = take(ring, chunk.stop, stop, wanted, image_every)


def _copy(ring: TelemetryRing, first: int, stop: int, names: Iterable[str], image_every: int) -> Chunk:
    """Copy records that were all there when we began; the caller looks whether they still are."""
    parts = ring.slices(first, stop)
    columns = {
        name: np.concatenate([ring.fields[name][part] for part in parts])
        for name in dict.fromkeys(("frame", *names))
        if name != "img"
    }
    chosen = slice(-first % image_every, None, image_every) if image_every else slice(0, 0)
    slots = np.concatenate([np.arange(part.start, part.stop) for part in parts])[chosen]
    images = ring.fields["img"][slots]
    fence()
    return Chunk(first, columns, images, columns["frame"][chosen].copy())
