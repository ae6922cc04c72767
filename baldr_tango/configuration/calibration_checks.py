"""Check the values of a calibration table and make a `Calibration` of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.calibration_table import (
    Calibration,
    Entry,
    entries,
    is_positive_number,
)
from baldr_tango.configuration.schema import Found, fault


def parse_table(
    file: Path,
    beam: int,
    mask: str,
    values: Mapping[str, Any],
    *,
    sha256: str = "",
    warnings: tuple[str, ...] = (),
) -> Calibration:
    """Make a `Calibration` of the content of one table; keys that are not declared are ignored.

    Arrays may be nested lists or numpy arrays. Raises `ConfigError` naming file, key, found and
    expected for a missing key, a wrong kind, a non-finite value, or a shape that does not fit the others.
    """
    table = f"beam{beam}.{mask}.ctrl_model"
    notes = list(warnings)
    read: dict[str, Any] = {}
    for name, declared in entries().items():
        where = f"{table}.{name}"
        if values.get(name) is None:
            if declared.required:
                raise fault(file, where, Found("no such key"), _words(declared))
        else:
            read[name] = _value(file, where, values[name], declared, notes)
    sizes = _sizes(file, table, read)
    for name, declared in entries().items():
        if name in read and declared.kind in ("matrix", "mask", "integers"):
            read[name] = _shaped(file, f"{table}.{name}", read[name], declared, sizes)
        elif name in read and declared.kind == "pixels":
            _check_pixels(file, f"{table}.{name}", read[name], sizes["P"])
    for name, letter in (("szm", "M"), ("szp", "A")):
        if read.get(name, 0) not in (0, sizes[letter]):
            raise fault(file, f"{table}.{name}", read[name], f"{sizes[letter]}, as the matrices say")
    shape = _frame_shape(file, table, read["crop_pixels"], sizes["P"], notes)
    return Calibration(
        file=file, beam=beam, mask=mask, sha256=sha256, frame_shape=shape, warnings=tuple(notes), **read
    )


def _words(declared: Entry) -> str:
    shape = f" of shape ({', '.join(declared.shape)})" if declared.shape else ""
    return {
        "text": "a string",
        "integer": "an integer",
        "number": "a number",
        "camera": "a table of camera settings",
        "pixels": "a list of flat pixel indices",
        "integers": "integers" + shape,
        "mask": "zeros and ones" + shape,
        "matrix": "numbers" + shape,
    }[declared.kind]


def _value(file: Path, where: str, value: Any, declared: Entry, notes: list[str]) -> Any:
    wrong = fault(file, where, value, _words(declared))
    if declared.kind == "text":
        if not isinstance(value, str):
            raise wrong
        if declared.choices and value not in declared.choices:
            raise fault(file, where, value, " or ".join(declared.choices))
        if len(value) < declared.at_least:
            raise fault(file, where, value, "a string that is not empty")
        return value
    if declared.kind == "integer":
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise wrong
        if value < declared.at_least:
            raise fault(file, where, value, f"at least {declared.at_least}")
        return int(value)
    if declared.kind == "number":
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise wrong
        if not math.isfinite(value):
            raise fault(file, where, value, "a finite number")
        return float(value)
    if declared.kind == "camera":
        return _camera(file, where, value, notes)
    return _array(file, where, value, declared)


def _array(file: Path, where: str, value: Any, declared: Entry) -> NDArray[Any]:
    """Convert nested lists to float64, or to int64 for indices."""
    expected = _words(declared)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise fault(file, where, value, expected)
    try:
        array = np.asarray(value)
    except ValueError:
        raise fault(file, where, Found("rows of different lengths"), expected) from None
    if array.dtype.kind not in "iufb":
        raise fault(file, where, Found("entries that are no numbers"), expected)
    numbers = array.astype(np.float64)
    if not np.isfinite(numbers).all():
        position = [int(i) for i in np.argwhere(~np.isfinite(numbers))[0]]
        found = Found(f"{numbers[tuple(position)]} at {position}")
        raise fault(file, where, found, "finite numbers")
    if declared.kind == "mask" and (wrong := numbers[(numbers != 0) & (numbers != 1)]).size:
        raise fault(file, where, float(wrong[0]), expected)
    if declared.kind in ("pixels", "integers"):
        if numbers.ndim != 1:
            raise fault(file, where, Found(f"shape {numbers.shape}"), expected)
        wrong = numbers[(numbers != np.rint(numbers)) | (np.abs(numbers) > 2**53)]
        if wrong.size:
            raise fault(file, where, float(wrong[0]), expected)
        if numbers.size < declared.at_least:
            raise fault(file, where, Found(f"{numbers.size} items"), f"at least {declared.at_least}")
        return numbers.astype(np.int64)
    return np.ascontiguousarray(numbers)


def _camera(file: Path, where: str, value: Any, notes: list[str]) -> dict[str, str]:
    """Take the camera settings as strings; a blank in a name becomes an underscore."""
    if not isinstance(value, Mapping):
        raise fault(file, where, value, "a table of camera settings")
    settings = {}
    for name, setting in value.items():
        if isinstance(setting, (list, Mapping)):
            raise fault(file, f"{where}.{name}", setting, "a string")
        plain = str(name).replace(" ", "_")
        if plain != name:
            notes.append(f"{file}: {where}.{name!r}: blank in the name, read as {plain}")
        settings[plain] = str(setting)
    for name in ("fps", "gain"):
        if not is_positive_number(value.get(name)):
            found = repr(value[name]) if name in value else "no such key"
            raise fault(file, f"{where}.{name}", Found(found), "a positive number, as a string")
    return settings


def _sizes(file: Path, table: str, read: Mapping[str, Any]) -> dict[str, int]:
    """Return the size that each letter of the shapes stands for."""
    for name in ("I2A", "I2M_HO"):
        if read[name].ndim != 2 or not read[name].size:
            raise fault(file, f"{table}.{name}", Found(f"shape {read[name].shape}"), "rows of numbers")
    signals, pixels = read["I2A"].shape
    low, high, grid = read["LO"], read["I2M_HO"].shape[0], read["sza"]
    return {
        "P": pixels,
        "A": signals,
        "L": low,
        "H": high,
        "G": grid,
        "M": low + high,
        "L+A": low + signals,
        "2": 2,
        "4": 4,
    }


def _shaped(
    file: Path, where: str, array: NDArray[Any], declared: Entry, sizes: Mapping[str, int]
) -> NDArray[Any]:
    """Check the shape; a flat list is a column, as the legacy reader has it."""
    expected = tuple(sizes[letter] for letter in declared.shape)
    if array.ndim == 1 and (array.size, 1) == expected:
        return array.reshape(expected)
    if array.shape != expected:
        letters = ", ".join(declared.shape)
        raise fault(file, where, Found(f"shape {array.shape}"), f"shape {expected} = ({letters})")
    return array


def _check_pixels(file: Path, where: str, pixels: NDArray[np.int64], n_pixels: int) -> None:
    outside = pixels[(pixels < 0) | (pixels >= n_pixels)]
    if outside.size:
        raise fault(file, where, int(outside[0]), f"indices from 0 to {n_pixels - 1}")


def _frame_shape(
    file: Path, table: str, crop: NDArray[np.int64], n_pixels: int, notes: list[str]
) -> tuple[int, int]:
    """Return rows and columns of a frame: those of crop_pixels if they fit, else a square."""
    rows, columns = int(crop[1] - crop[0]), int(crop[3] - crop[2])
    if rows > 0 and columns > 0 and rows * columns == n_pixels:
        return rows, columns
    side = math.isqrt(n_pixels)
    if side * side != n_pixels:
        found = Found(f"{rows} x {columns} pixels")
        raise fault(file, f"{table}.crop_pixels", found, f"{n_pixels} pixels, as I2A has columns")
    notes.append(
        f"{file}: {table}.crop_pixels: {rows} x {columns} pixels, but I2A has {n_pixels} columns:"
        f" frames taken as {side} x {side}"
    )
    return side, side
