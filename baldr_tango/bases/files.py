"""The instrument's basis file: FITS, one image extension ``BASIS:<key>`` per basis.

An extension holds float32 numbers with NAXIS1 = mode, NAXIS2 = row (y), NAXIS3 = column (x); in numpy,
element [x, y, k] of shape (12, 12, modes). A reader that takes the two last FITS axes for columns and rows in
this order gets every shape transposed, with tip and tilt exchanged; here row stays row.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.bases.basis import Basis
from baldr_tango.errors import BackendError, ConfigError
from baldr_tango.names import ACTUATOR_INDEX, GRID_SIDE, N_ACTUATORS, N_GRID

FloatArray = NDArray[np.float64]

PREFIX: Final = "BASIS:"


def load_bases(path: str | Path) -> dict[str, Basis]:
    """Read every basis of a FITS file, by lower-case name.

    A two-dimensional extension, 144 or 140 values times modes, is taken too.

    Raises
    ------
    ConfigError : the file cannot be read, holds no basis, or one of the wrong shape or with numbers that
        are not finite.
    BackendError : astropy is not installed.
    """
    fits = _fits()
    try:
        with fits.open(path, memmap=False) as file:
            found = {
                hdu.name[len(PREFIX) :].lower(): (np.asarray(hdu.data), hdu.header.get("NMODES"))
                for hdu in file
                if hdu.name.upper().startswith(PREFIX) and hdu.data is not None
            }
    except (OSError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable FITS file: {error}") from error
    if not found:
        raise ConfigError(f"{path}: no extension {PREFIX}<name>")
    return {name: _basis(path, name, data, count) for name, (data, count) in found.items()}


def write_bases(path: str | Path, bases: Iterable[Basis]) -> Path:
    """Write bases in the instrument's format, whole or not at all; an existing file is replaced.

    Raises
    ------
    BackendError : the file cannot be written, or astropy is not installed.
    """
    fits = _fits()
    target, chosen = Path(path), list(bases)
    primary = fits.PrimaryHDU()
    header = {
        "CREATOR": "baldr-tango",
        "DATE": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "NX": GRID_SIDE,
        "NY": GRID_SIDE,
        "DMGEOM": "12x12_missing_corners",
        "ORDERING": "row-major",
        "NMODES": max((basis.n_modes for basis in chosen), default=0),
        "NOPISTON": True,
    }
    primary.header.update(header)
    primary.header["COMMENT"] = "numpy element [x, y, k]: column, row, mode"
    units = [primary, *(_extension(fits, basis) for basis in chosen)]
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise BackendError(f"{target}: cannot be written: {error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            fits.HDUList(units).writeto(file, checksum=True)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise BackendError(f"{target}: cannot be written: {error}") from error
    return target


def _fits() -> Any:
    try:
        return importlib.import_module("astropy.io.fits")
    except ImportError:
        raise BackendError("FITS files need astropy: pip install 'baldr-tango[fits]'") from None


def _extension(fits: Any, basis: Basis) -> Any:
    maps = basis.modes.reshape(-1, GRID_SIDE, GRID_SIDE).astype(np.float32)
    unit = fits.ImageHDU(data=np.ascontiguousarray(maps.transpose(2, 1, 0)), name=f"{PREFIX}{basis.name}")
    unit.header.update(
        {"BASENAME": basis.name, "NMODES": basis.n_modes, "BUNIT": "arb.u.", "ORDERING": "row-major"}
    )
    unit.header["NOPISTON"] = True
    return unit


def _basis(path: str | Path, name: str, data: NDArray[Any], count: int | None) -> Basis:
    where = f"{path}: {PREFIX}{name}"
    # FITS is big-endian: convert once, here.
    numbers = np.asarray(data, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{where}: has numbers that are not finite")
    if numbers.ndim == 3:
        maps = _cube(numbers, count)
    elif numbers.ndim == 2:
        maps = _flat(numbers, count)
    else:
        maps = None
    if maps is None or not maps.shape[0]:
        modes = "" if count is None else f" and NMODES = {count}"
        raise ConfigError(
            f"{where}: found shape {numbers.shape}{modes}, expected ({GRID_SIDE}, {GRID_SIDE}, modes)"
            f" = [x, y, k], or (modes, {N_GRID})"
        )
    return Basis(name, maps, f"read from {path}")


def _cube(numbers: FloatArray, count: int | None) -> FloatArray | None:
    """Row-major maps of a cube; the mode axis is the last one, or the first in cubes of images [k, y, x]."""
    grid = (GRID_SIDE, GRID_SIDE)
    if numbers.shape[:2] == grid and count in (None, numbers.shape[2]):
        return numbers.transpose(2, 1, 0).reshape(-1, N_GRID)
    if numbers.shape[1:] == grid and count in (None, numbers.shape[0]):
        return numbers.reshape(-1, N_GRID)
    return None


def _flat(numbers: FloatArray, count: int | None) -> FloatArray | None:
    """Maps of a matrix of flat modes, either way round; 140 values are those of the actuators."""
    for rows in (numbers, numbers.T):
        if count not in (None, rows.shape[0]):
            continue
        if rows.shape[1] == N_GRID:
            return rows
        if rows.shape[1] == N_ACTUATORS:
            maps = np.zeros((rows.shape[0], N_GRID))
            maps[:, ACTUATOR_INDEX] = rows
            return maps
    return None
