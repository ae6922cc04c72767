"""What the telemetry thread has done, as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counters:
    """What has been done since the start of the process."""

    file: str = ""
    """Path of the file that is or was last written, empty before the first."""
    frames_written: int = 0
    """Records written."""
    overruns: int = 0
    """Records lost because they were not written in time, or could not be."""
    chunks: int = 0
    """Chunks written."""
    bytes_written: int = 0
    """Data written [bytes]."""
    files_written: int = 0
    """Files begun."""
    error: str = ""
    """Why nothing is written; empty when all is well."""
