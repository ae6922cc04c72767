"""Calibration files: find, load and write the legacy format ``[beamN.<mask>.ctrl_model]``."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from baldr_tango.configuration.calibration_checks import parse_table
from baldr_tango.configuration.calibration_table import (
    CONTROLLER_TYPES,
    Calibration,
    describe_calibration_keys,
    entries,
)
from baldr_tango.configuration.document import absolute, read_document
from baldr_tango.configuration.schema import Found, fault
from baldr_tango.configuration.toml_text import table_text
from baldr_tango.errors import BackendError, ConfigError

__all__ = [
    "CONTROLLER_TYPES",
    "Calibration",
    "describe_calibration_keys",
    "find_calibration_file",
    "load_calibration",
    "write_calibration",
]


def find_calibration_file(directory: str | Path, beam: int, mode: str) -> Path:
    """Return the newest calibration of one beam and observing mode below `directory`.

    Among all files ``baldr_config_<beam>_<mode>_*.toml``, sub-directories included, the one with the
    greatest name is taken: their names carry the date. Raises `ConfigError` when there is none.
    """
    pattern = f"baldr_config_{beam}_{mode}_*.toml"
    found = [path for path in absolute(directory).rglob(pattern) if path.is_file()]
    if not found:
        raise ConfigError(f"{directory}: found no file {pattern}, expected at least one")
    return max(found, key=lambda path: (path.name, str(path)))


def load_calibration(path: str | Path, beam: int, mask: str, *, mode: str = "bright") -> Calibration:
    """Load the calibration of one beam and phase mask.

    Parameters
    ----------
    path : a calibration file, or a directory for `find_calibration_file`.
    mode : observing mode, to choose the file in a directory.

    Raises
    ------
    ConfigError
        For a missing table or key, a wrong shape or a non-finite value; it names the file, the key,
        what was found and what was expected.
    """
    file = absolute(path)
    if file.is_dir():
        file = find_calibration_file(file, beam, mode)
    document, digest = read_document(file)
    beams = [name for name in document if name.startswith("beam") and isinstance(document[name], dict)]
    name = f"beam{beam}"
    if name not in beams:
        raise fault(file, f"[{name}]", Found(f"{', '.join(beams) or 'no beam'}"), f"table [{name}]")
    masks = [word for word, part in document[name].items() if isinstance(part, dict) and "ctrl_model" in part]
    if mask not in masks:
        where = f"[{name}.{mask}.ctrl_model]"
        raise fault(file, where, Found(f"masks {', '.join(masks) or 'none'}"), f"table {where}")
    content = document[name][mask]["ctrl_model"]
    if not isinstance(content, dict):
        raise fault(file, f"[{name}.{mask}.ctrl_model]", content, "a table")
    warnings = []
    if others := [other for other in beams if other != name]:
        warnings.append(f"{file}: [{name}]: the file also has {', '.join(others)}, which is not read")
    return parse_table(file, beam, mask, content, sha256=digest, warnings=tuple(warnings))


def write_calibration(
    path: str | Path,
    calibration: Calibration | Mapping[str, Any],
    beam: int,
    mask: str,
    *,
    comment: str = "",
) -> Path:
    """Write a calibration in the legacy format, which the legacy reader accepts too.

    Other beams and masks of a file that exists are kept. The file appears whole or not at all:
    it is written beside its place and then renamed.

    Parameters
    ----------
    path : file to write, TOML; missing directories are made.
    calibration : `Calibration`, or a mapping with the keys of `describe_calibration_keys`.
    comment : lines for the head of the file.

    Raises
    ------
    ConfigError
        When the content would not load again, or the file that exists cannot be read.
    BackendError
        When the file cannot be written.
    """
    file = absolute(path)
    if file.suffix.lower() == ".json":
        raise ConfigError(f"{file}: found suffix .json, expected .toml: calibrations are written as TOML")
    values = _as_mapping(calibration)
    checked = parse_table(file, beam, mask, values)
    document = read_document(file)[0] if file.exists() else {}
    own = _sub_table(file, _sub_table(file, document, f"beam{beam}"), mask)
    own["ctrl_model"] = _as_mapping(checked)
    head = f"Baldr calibration; last written: table [{checked.table}].\n{comment}".strip()
    text = "".join(f"# {line}\n" for line in head.splitlines()) + table_text(document)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise BackendError(f"{file}: cannot be written: {error.strerror}") from error
    return file


def _sub_table(file: Path, table: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a table inside `table`, made if there is none."""
    found = table.setdefault(name, {})
    if not isinstance(found, dict):
        raise fault(file, name, found, "a table")
    return found


def _as_mapping(calibration: Calibration | Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of the table; a key without value is left out, a mask is whole numbers."""
    if not isinstance(calibration, Calibration):
        return dict(calibration)
    values = {name: getattr(calibration, name) for name in entries()}
    return {
        name: value.astype(np.int64) if entries()[name].kind == "mask" else value
        for name, value in values.items()
        if value is not None
    }
