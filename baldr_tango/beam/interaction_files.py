"""Interaction matrices as files: the legacy FITS image and what it had not, HDF5, npz."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from baldr_tango.beam.interaction import InteractionMatrix
from baldr_tango.errors import BackendError, RequestError
from baldr_tango.telemetry.fits_file import astropy_fits, check_available, is_available

SUFFIXES: Final = (".fits", ".h5", ".hdf5", ".npz")
_ARRAYS: Final = ("shapes", "signals", "pixels", "noise")
_EXTENSIONS: Final = {"shapes": "SHAPES", "signals": "IM_SIGNAL", "noise": "NOISE"}
_KEYS: Final = {
    "beam": ("BEAM", "beam number"),
    "mask": ("MASK", "phase mask"),
    "basis": ("BASIS", "basis of the pokes"),
    "poke": ("POKE", "[DM units] distance of the two signs"),
    "frames_used": ("NFRAMES", "frames averaged in all"),
    "frame_rate_hz": ("FPS", "[Hz] camera frame rate"),
    "gain": ("GAIN", "camera gain"),
    "utc": ("DATE", "UTC of the measurement"),
}


def free_path(directory: Path, stem: str, suffix: str) -> Path:
    """Return a path for a new file of today: ``<stem>_<UTC><suffix>``, numbered when it is taken."""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    path, number = directory / f"{stem}_{now}{suffix}", 1
    while path.exists():
        number += 1
        path = directory / f"{stem}_{now}_{number}{suffix}"
    return path


def chosen_path(text: str, directory: Path, stem: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return where a result goes: the file asked for, or a dated one in that directory or in `directory`.

    Raises
    ------
    RequestError : the path is relative or exists already, or its ending means no format.
    StateError : it is to be FITS and astropy is not installed.
    """
    default = ".fits" if is_available() or ".h5" not in suffixes else ".h5"
    if not text.strip():
        path = free_path(directory, stem, default)
    else:
        path = Path(text).expanduser()
        if not path.is_absolute() or "\0" in text:
            raise RequestError(f"path {text!r}: expected an absolute path")
        if path.is_dir() or not path.suffix:
            path = free_path(path, stem, default)
    if path.suffix.lower() not in suffixes:
        raise RequestError(f"{path}: expected a name that ends in {', '.join(suffixes)}")
    if path.exists():
        raise RequestError(f"{path}: exists already; nothing is overwritten")
    if path.suffix.lower() == ".fits":
        check_available()
    return path


def write_whole(path: Path, write: Any) -> None:
    """Call ``write(temporary)`` and rename the result: the file appears whole or not at all.

    Raises
    ------
    BackendError : it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{threading.get_ident()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise BackendError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_interaction_matrix(path: Path, matrix: InteractionMatrix) -> Path:
    """Write a measured matrix; the ending of the name chooses the format.

    FITS: the primary image, EXTNAME ``IM``, is the legacy one: float64, numpy shape (P, M), change of the raw
    frame [ADU per DM unit]. Images ``IM_SIGNAL`` (M, A), ``NOISE`` and ``SHAPES`` follow.

    Raises
    ------
    RequestError : the ending means no format.
    BackendError : it cannot be written.
    """
    writers = {".fits": _write_fits, ".h5": _write_hdf5, ".hdf5": _write_hdf5, ".npz": _write_npz}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise RequestError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    write_whole(path, lambda temporary: writer(temporary, matrix))
    return path


def _write_fits(path: Path, matrix: InteractionMatrix) -> None:
    fits = astropy_fits()
    primary = fits.PrimaryHDU(matrix.pixels)
    primary.header["EXTNAME"] = "IM"
    primary.header["BUNIT"] = ("ADU", "per DM unit")
    for name, (key, comment) in _KEYS.items():
        primary.header[key] = (getattr(matrix, name), comment)
    units = [primary]
    for name, extension in _EXTENSIONS.items():
        array = getattr(matrix, name)
        if array is not None:
            units.append(fits.ImageHDU(array, name=extension))
    fits.HDUList(units).writeto(path)


def _write_hdf5(path: Path, matrix: InteractionMatrix) -> None:
    with h5py.File(path, "x") as file:
        for name, value in asdict(matrix).items():
            if isinstance(value, np.ndarray):
                file[name] = value
            elif value is not None:
                file.attrs[name] = value


def _write_npz(path: Path, matrix: InteractionMatrix) -> None:
    np.savez(path, **{name: value for name, value in asdict(matrix).items() if value is not None})


def read_interaction_matrix(path: Path) -> InteractionMatrix:
    """Read a file of `write_interaction_matrix`.

    Raises
    ------
    RequestError : it is no such file.
    """
    readers = {".fits": _read_fits, ".h5": _read_hdf5, ".hdf5": _read_hdf5, ".npz": _read_npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise RequestError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")
    try:
        content = reader(path)
    except (OSError, KeyError, ValueError) as error:
        raise RequestError(f"{path}: not an interaction matrix of this product: {error}") from error
    return InteractionMatrix(**{"noise": None, **content})


def _read_fits(path: Path) -> dict[str, Any]:
    with astropy_fits().open(path, memmap=False) as units:
        content: dict[str, Any] = {name: units[0].header[key] for name, (key, _) in _KEYS.items()}
        content["pixels"] = units[0].data.astype(np.float64)
        for name, extension in _EXTENSIONS.items():
            if extension in units:
                content[name] = units[extension].data.astype(np.float64)
    return content


def _read_hdf5(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        arrays = {name: file[name][()] for name in _ARRAYS if name in file}
        return {**arrays, **{name: _plain(file.attrs[name]) for name in _KEYS}}


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS if name in file}
        return {**arrays, **{name: file[name].item() for name in _KEYS}}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
