"""Telemetry as a FITS file: the legacy table and images, and what the legacy had not behind them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import StateError
from baldr_tango.telemetry import legacy
from baldr_tango.telemetry.fields import FIELD_BY_NAME
from baldr_tango.telemetry.legacy import LegacyColumn
from baldr_tango.telemetry.recording import Description
from baldr_tango.telemetry.ring import TelemetryRing

_PIECE: Final = 64  # table rows converted at a time
_CODES: Final = {"i8": "K", "i4": "J", "u2": "J", "i1": "J", "f4": "E", "f8": "D"}
_TYPES: Final = {"K": ">i8", "J": ">i4", "E": ">f4", "D": ">f8"}
_CARD_LENGTH: Final = 80
_CARD_OVERHEAD: Final = 13  # keyword, equals sign, slash
_NUMBER_WIDTH: Final = 20
_KEYWORDS: Final = {
    "beam": ("BEAM", "beam number"),
    "mask": ("MASK", "phase mask"),
    "mode": ("MODE", "observing mode"),
    "frame_rate_hz": ("FPS", "[Hz] camera frame rate"),
    "camera_gain": ("GAIN", "camera gain"),
    "boxcar": ("BOXCAR", "frames in the mean of the signal"),
    "controller_type_lo": ("CTRL_LO", "low-order controller"),
    "controller_type_ho": ("CTRL_HO", "high-order controller"),
    "nm_per_dm_unit": ("NMPERDM", "[nm] path difference of one DM unit"),
    "wavelength_nm": ("WAVELEN", "[nm] wavelength of the Strehl ratio"),
    "config_file": ("CONFFILE", "calibration file"),
    "config_sha256": ("CONFSHA", "its SHA-256"),
    "runtime_file": ("RUNFILE", "runtime configuration file"),
    "runtime_sha256": ("RUNSHA", "its SHA-256"),
    "software": ("CREATOR", "software"),
    "host": ("HOST", "computer"),
    "saved_utc": ("DATE", "UTC at which the telemetry was saved"),
    "first_utc": ("DATE-BEG", "UTC of the first frame"),
    "last_utc": ("DATE-END", "UTC of the last frame"),
    "frames": ("NFRAMES", "frames in the tables"),
    "missed_frames": ("MISSED", "camera frames missing between them"),
    "utc_ns": ("UTC_NS", "[ns] UTC since 1970 ..."),
    "monotonic_ns": ("MONO_NS", "[ns] ... when the clock of TIMESTAMPS said this"),
}


def is_available() -> bool:
    """Tell whether FITS files can be written: astropy is an optional extra. Quick: astropy is not loaded."""
    return importlib.util.find_spec("astropy") is not None


def check_available() -> None:
    """Raise `StateError` when FITS files cannot be written."""
    if not is_available():
        raise StateError(
            "FITS files need astropy: install baldr-tango[fits], or choose the format json or hdf5"
        )


def astropy_fits() -> Any:
    """Return astropy's FITS module; loading it takes most of a second.

    Raises
    ------
    StateError : astropy is not installed.
    """
    check_available()
    from astropy.io import fits

    return fits


def write_fits(path: Path, ring: TelemetryRing, description: Description) -> None:
    """Write all records of a ring that nobody fills any more.

    The HDUs are the legacy ones: an empty primary, whose header describes the recording, the table
    ``TELEMETRY`` and the images ``I0_DM_REF``, ``N0_DM_REF``, ``DARK_REF``. Behind them come the table
    ``TELEMETRY_EXTRA`` with the other fields and one image per further array of the description.

    Parameters
    ----------
    path : an empty file.

    Raises
    ------
    StateError : astropy is not installed.
    OSError : the file cannot be written.
    """
    fits = astropy_fits()
    with path.open("wb") as file:
        fits.PrimaryHDU(header=_header(fits, description)).writeto(file)
    _append_table(fits, path, "TELEMETRY", legacy.COLUMNS, ring, counter=True)
    extra = [
        LegacyColumn(name, name, _CODES[FIELD_BY_NAME[name].dtype], FIELD_BY_NAME[name].unit)
        for name in legacy.extra_fields()
    ]
    arrays = {name: value for name, value in description.items() if isinstance(value, np.ndarray)}
    references = {name: arrays.pop(key) for name, key in legacy.REFERENCES.items() if key in arrays}
    _append_images(fits, path, references)
    _append_table(fits, path, "TELEMETRY_EXTRA", extra, ring)
    _append_images(fits, path, {name.upper(): array for name, array in arrays.items()})


def _header(fits: Any, description: Description) -> Any:
    header = fits.Header()
    header["INSTRUME"] = ("BALDR", "instrument")
    for name, value in description.items():
        if isinstance(value, np.ndarray):
            if value.ndim == 1 and name.endswith(("_lo", "_ho")) and value.size:
                _put(header, name.upper(), *_summary(name, value))
        elif name in _KEYWORDS:
            _put(header, _KEYWORDS[name][0], value, _KEYWORDS[name][1])
        else:
            header.add_comment(f"{name} = {_allowed(value)}")
    return header


def _summary(name: str, values: NDArray[Any]) -> tuple[float, str]:
    """One number and a comment for the gains of all modes."""
    if np.all(values == values[0]):
        return float(values[0]), f"of all {values.size} modes"
    return float(values.mean()), f"mean of {values.size} modes, see extension {name.upper()}"


def _put(header: Any, keyword: str, value: Any, comment: str) -> None:
    """Set a keyword, with its comment if the card has room for both."""
    value = _allowed(value)
    length = len(value.replace("'", "''")) + 2 if isinstance(value, str) else _NUMBER_WIDTH
    has_room = _CARD_OVERHEAD + length + len(comment) <= _CARD_LENGTH
    header[keyword] = (value, comment if has_room else "")


def _allowed(value: Any) -> bool | int | float | str:
    """Return what FITS allows: printable ASCII, finite numbers."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    text = str(value).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in text)


def _append_table(
    fits: Any,
    path: Path,
    name: str,
    columns: Sequence[LegacyColumn],
    ring: TelemetryRing,
    *,
    counter: bool = False,
) -> None:
    """Append a table with one row per record, a piece at a time."""
    start, stop = ring.oldest, ring.write_index
    layout: list[tuple[str, str, tuple[int, ...]]] = [("COUNTER", "J", ())] if counter else []
    units = [""] if counter else []
    for column in columns:
        layout.append((column.key.upper(), column.code, ring.fields[column.field].shape[1:]))
        units.append(column.unit)
    forms = [f"{int(np.prod(shape, dtype=int))}{code}" for _, code, shape in layout]
    header = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=title, format=form, unit=unit or None)
            for (title, _, _), form, unit in zip(layout, forms, units, strict=True)
        ],
        nrows=0,
        name=name,
    ).header
    header["NAXIS2"] = stop - start
    for number, form in enumerate(forms, 1):
        header[f"TFORM{number}"] = form  # astropy leaves out a repeat count of one, the legacy did not
    dtype = np.dtype([(title, _TYPES[code], shape) for title, code, shape in layout])
    table = fits.StreamingHDU(str(path), header)
    try:
        buffer = np.zeros(_PIECE, dtype)  # one for all: fresh memory costs other threads time, too
        for first in range(start, stop, _PIECE):
            last = min(first + _PIECE, stop)
            piece = buffer[: last - first]
            if counter:
                piece["COUNTER"] = np.arange(first - start, last - start)
            row = 0
            for part in ring.slices(first, last):
                place = slice(row, row + part.stop - part.start)
                for column in columns:
                    piece[column.key.upper()][place] = column.values(ring.fields[column.field][part])
                row = place.stop
            table.write(piece.view(np.uint8))
    finally:
        table.close()


def _append_images(fits: Any, path: Path, images: dict[str, NDArray[Any]]) -> None:
    if not images:
        return
    with fits.open(path, mode="append", memmap=False) as units:
        for name, values in images.items():
            unit = fits.ImageHDU(np.asarray(values, dtype=np.float64), name=name)
            unit.header["VLEN"] = (int(np.size(values)), "vector length")
            units.append(unit)
