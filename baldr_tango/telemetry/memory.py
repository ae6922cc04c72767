"""How much memory telemetry may take."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from baldr_tango.telemetry.files import MEGABYTE

_SHARE: Final = 0.5  # of the memory that is available
_MEMINFO: Final = Path("/proc/meminfo")


def allowed_bytes() -> int:
    """Memory that one more telemetry buffer may take: half of what is available [bytes].

    A buffer as large as the memory would drive the real-time loop's own pages out.
    """
    for line in _MEMINFO.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(int(rest.split()[0]) * 1024 * _SHARE)
    raise OSError(f"{_MEMINFO}: no MemAvailable")


def refusal(nbytes: int) -> str:
    """Say why a buffer of `nbytes` is too large; empty when it is not."""
    allowed = allowed_bytes()
    if nbytes <= allowed:
        return ""
    return (
        f"{nbytes / MEGABYTE:.0f} MB of memory needed,"
        f" {allowed / MEGABYTE:.0f} MB allowed (half of what is available)"
    )
