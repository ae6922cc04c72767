"""Read a TOML or JSON file once: its content and the SHA-256 of the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from baldr_tango.configuration.toml_reading import parse_toml
from baldr_tango.errors import ConfigError


def read_document(file: Path) -> tuple[dict[str, Any], str]:
    """Return the content of `file` and its SHA-256; a name in ``.json`` is JSON, any other TOML.

    Raises `ConfigError` when the file cannot be read or is not what its suffix says.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
        if file.suffix.lower() == ".json":
            document = json.loads(text, object_pairs_hook=_without_repetition)
        else:
            document = parse_toml(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if file.suffix.lower() == ".json" else "TOML"
        raise ConfigError(f"{file}: not valid {kind}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: found {type(document).__name__} at the top, expected a JSON object")
    return document, hashlib.sha256(data).hexdigest()


def absolute(path: Path | str) -> Path:
    """Return `path` absolute, without ``~`` and ``..``; symbolic links stay."""
    return Path(os.path.abspath(expand_home(path)))  # noqa: PTH100 - Path.resolve follows links


def expand_home(path: Path | str) -> Path:
    """Return `path` with ``~`` or ``~user`` replaced by that home directory."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return document
