"""What compression of telemetry files saves and costs: ``python -m benchmarks.compression FILE``.

FILE is a recording. Its records are written again with each compression that
HDF5 has here, in the pieces and chunks of the product. blosc needs the package hdf5plugin.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from baldr_tango.telemetry.reader import TelemetryFile

RATE_HZ: Final = 8000.0
"""Records per second of four beams at 2 kHz."""

_PIECE: Final = 512
_ROUNDS: Final = 3
_MOST: Final = 16384
_CHUNK_BYTES: Final = 65536
_CHUNK_ROWS: Final = 1024


def candidates() -> dict[str, dict[str, Any]]:
    """Return the arguments of h5py by name of the compression."""
    found: dict[str, dict[str, Any]] = {
        "none": {},
        "lzf": {"compression": "lzf"},
        "lzf, shuffle": {"compression": "lzf", "shuffle": True},
        "gzip 1": {"compression": "gzip", "compression_opts": 1},
        "gzip 1, shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    }
    if importlib.util.find_spec("hdf5plugin"):
        import hdf5plugin

        found["blosc2 lz4, shuffle"] = dict(hdf5plugin.Blosc2("lz4", 5, hdf5plugin.Blosc2.SHUFFLE))
        found["blosc2 lz4, bitshuffle"] = dict(hdf5plugin.Blosc2("lz4", 5, hdf5plugin.Blosc2.BITSHUFFLE))
        found["blosc2 zstd 1, bitshuffle"] = dict(hdf5plugin.Blosc2("zstd", 1, hdf5plugin.Blosc2.BITSHUFFLE))
    return found


def write(path: Path, data: dict[str, NDArray[Any]], options: dict[str, Any]) -> float:
    """Write everything in pieces, flushed after each; return the processor time [s]."""
    n = len(next(iter(data.values())))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for name, array in data.items():
            rows = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // array[0].nbytes))
            tail = array.shape[1:]
            file.create_dataset(
                name, (0, *tail), array.dtype, maxshape=(None, *tail), chunks=(rows, *tail), **options
            )
        file.swmr_mode = True
        began = time.process_time()
        for start in range(0, n, _PIECE):
            stop = min(start + _PIECE, n)
            for name, array in data.items():
                file[name].resize(stop, axis=0)
                file[name][start:stop] = array[start:stop]
            file.flush()
        return time.process_time() - began


def measure(data: dict[str, NDArray[Any]]) -> list[str]:
    """Return the table as lines.

    data : (n, ...) by name
    """
    n = len(next(iter(data.values())))
    size = sum(array.nbytes for array in data.values())
    lines = [
        f"{n} records of {size / n:.0f} bytes: {', '.join(data)}",
        "",
        "| compression | size | cores for 4 x 2 kHz | MB/s to disk |",
        "| --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory(prefix="baldr-compression-") as directory:
        target = Path(directory) / "x.h5"
        for name, options in candidates().items():
            used = float(np.median([write(target, data, options) for _ in range(_ROUNDS)]))
            part, per_s = target.stat().st_size / size, RATE_HZ / n
            lines.append(
                f"| {name} | {100 * part:.0f} % | {used * per_s:.2f} | {part * size * per_s / 1e6:.0f} |"
            )
    return lines


def main() -> int:
    """Measure and print, fields and raw images for themselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    with TelemetryFile(parser.parse_args().file) as file:
        parts = [file.records(0, _MOST), file.images(0, _MOST)]
    for data in parts:
        sys.stdout.write("\n".join(measure(data)) + "\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
