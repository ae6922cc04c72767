"""Which runtime file a device server starts from."""

from __future__ import annotations

import os
from pathlib import Path

from baldr_tango.configuration.runtime import shipped_config


def runtime_file(named: str = "") -> Path:
    """Return the file that a property names, else BALDR_CONFIG of the environment, else the shipped one."""
    return Path(named or os.environ.get("BALDR_CONFIG") or shipped_config())
