"""Cubes of frames on disk, as the camera server writes them in save mode.

``<directory>/YYYYMMDD/<stream>_THH:MM:SS.mmm.fits``: int32, one image per frame, header FPS, GAIN, RO_MODE.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import numpy as np

from baldr_tango.kernels.atomics import load_acquire
from baldr_tango.kernels.simulation import ReadOut

_log = logging.getLogger(__name__)

LOOK_S: Final = 0.05
"""Time between two looks at the number of frames that were kept."""

_BLOCK: Final = 2880
_CARD: Final = 80
_PIECE: Final = 64
_MB: Final = 1e6


@dataclass(frozen=True)
class CubeHeader:
    """What the camera server notes in a cube."""

    rate_hz: float
    gain: float
    read_out: str
    """GCDS, or NDMR when the frames are slopes."""


class CubeSaver:
    """Writes the frames that the compiled loop keeps; the loop never waits for it.

    Only whole cubes are written, in a thread that lives while saving is on. A cube that the disk was too slow
    for is left out. Saving ends by itself when the directory has reached its limit or cannot be written; no
    file is ever deleted. Methods may be called from any thread.

    Parameters
    ----------
    read_out : of the compiled loop.
    keep : switches whether the loop keeps frames.
    names : camera stream of each beam, in order.
    directory : of the cubes; made when the first one is written.
    frames : of a cube; at most as many as half of what the loop keeps.
    max_mb : size of all FITS files below the directory that is not exceeded [MB].
    header : says what to note.
    """

    def __init__(
        self,
        read_out: ReadOut,
        keep: Callable[[bool], None],
        names: Sequence[str],
        directory: Path,
        frames: int,
        max_mb: float,
        header: Callable[[], CubeHeader],
    ) -> None:
        self._read_out = read_out
        self._keep = keep
        self._names = tuple(names)
        self._directory = directory
        self._frames = frames
        self._max_mb = max_mb
        self._header = header
        self._lock = threading.Lock()
        self._ended: threading.Event | None = None
        self._thread: threading.Thread | None = None
        self.saved = 0
        """Cubes written."""
        self.left_out = 0
        """Cubes that the disk was too slow for."""

    @property
    def on(self) -> bool:
        """True while frames are kept for cubes."""
        return self._ended is not None

    def switch(self, on: bool) -> None:
        """Begin new cubes with the next frames, or end; a cube that is not complete is dropped."""
        with self._lock:
            if on == (self._ended is not None):
                return
            if not on:
                self._end()
                return
            first = [int(load_acquire(self._read_out.keeping, k)) for k in range(len(self._names))]
            self._ended = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._ended, first), name="frame cubes", daemon=True
            )
            self._keep(True)
            self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End, and wait for the file that is being written."""
        self.switch(False)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _end(self) -> None:
        self._keep(False)
        if self._ended is not None:
            self._ended.set()
        self._ended = None

    def _run(self, ended: threading.Event, first: list[int]) -> None:
        try:
            while not ended.wait(LOOK_S):
                for k, name in enumerate(self._names):
                    while load_acquire(self._read_out.keeping, k) >= first[k] + self._frames:
                        self._write(k, name, first[k])
                        first[k] += self._frames
        except OSError as error:
            _log.warning("virtual camera server: saving ends: %s", error)
            with self._lock:
                if self._ended is ended:
                    self._end()

    def _write(self, beam: int, name: str, first: int) -> None:
        now = datetime.now(timezone.utc)
        header = self._header()
        size = fits_size(self._frames * self._read_out.kept[0, 0].nbytes)
        held = sum(file.stat().st_size for file in self._directory.rglob("*.fits"))
        if held + size > self._max_mb * _MB:
            raise OSError(
                f"{self._directory} holds {held / _MB:.1f} MB of FITS files, allowed are {self._max_mb:g} MB"
                " (simulator.cube_max_mb)"
            )
        folder = self._directory / f"{now:%Y%m%d}"
        folder.mkdir(parents=True, exist_ok=True)
        time = f"{now:%H:%M:%S}.{now.microsecond // 1000:03d}"
        part = folder / f"{name}_T{time}.part"
        try:
            self._write_fits(part, beam, first, header)
            if load_acquire(self._read_out.keeping, beam) < first + self._read_out.kept.shape[1]:
                part.rename(part.with_suffix(".fits"))
                self.saved += 1
            else:
                self.left_out += 1
                _log.warning("virtual camera server: the disk is too slow, a cube of %s is left out", name)
        finally:
            part.unlink(missing_ok=True)

    def _write_fits(self, path: Path, beam: int, first: int, header: CubeHeader) -> None:
        kept = self._read_out.kept[beam]
        side = round(kept.shape[1] ** 0.5)
        cards = fits_header((self._frames, side, side), header)
        with path.open("wb") as file:
            file.write(cards)
            for begin in range(first, first + self._frames, _PIECE):
                numbers = np.arange(begin, min(begin + _PIECE, first + self._frames)) % kept.shape[0]
                file.write(kept[numbers].astype(">i4").tobytes())
            file.write(b"\0" * (fits_size(file.tell()) - file.tell()))


def fits_size(nbytes: int) -> int:
    """Return the size in whole FITS blocks that `nbytes` of data take, [bytes]; without the header."""
    return -(-nbytes // _BLOCK) * _BLOCK


def fits_header(shape: tuple[int, int, int], header: CubeHeader) -> bytes:
    """Return the header of a FITS file (standard 4.0) whose primary array is int32 of a shape."""
    frames, rows, columns = shape
    values: list[tuple[str, str, str]] = [
        ("SIMPLE", "T", "FITS standard"),
        ("BITPIX", "32", "int32"),
        ("NAXIS", "3", ""),
        ("NAXIS1", str(columns), "columns"),
        ("NAXIS2", str(rows), "rows"),
        ("NAXIS3", str(frames), "frames"),
        ("FPS", repr(float(header.rate_hz)), "[Hz] frame rate"),
        ("GAIN", repr(float(header.gain)), "camera gain"),
    ]
    cards = [f"{key:8}= {value:>20} / {text}".ljust(_CARD) for key, value, text in values]
    cards.append(f"RO_MODE = '{header.read_out:8}' / read-out mode".ljust(_CARD))
    cards.append("END".ljust(_CARD))
    text = "".join(cards).encode("ascii")
    return text.ljust(fits_size(len(text)))
