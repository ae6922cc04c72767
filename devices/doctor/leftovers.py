"""Streams and semaphores that nobody uses any more. They are listed, never removed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from baldr_tango.streams import inspect
from baldr_tango.streams.layout import FILE_SUFFIX, semaphore_name, shm_directory
from devices.doctor.finding import Finding, advice, ok

_SEMAPHORES: Final = Path("/dev/shm")
_MOST: Final = 6


def dead_streams(directory: str | Path | None, proc: Path = Path("/proc")) -> list[str]:
    """Names of the streams that only processes have posted which do not exist any more."""
    dead = []
    for name in inspect.list_streams(directory):
        described = inspect.describe_stream(name, directory)
        writers = {entry["write_pid"] for entry in described.get("semaphores", ()) if entry["write_pid"] > 0}
        if writers and not any((proc / str(pid)).exists() for pid in writers):
            dead.append(name)
    return dead


def orphaned_semaphores(directory: str | Path | None, semaphores: Path = _SEMAPHORES) -> list[str]:
    """Files of semaphores whose stream of this directory does not exist."""
    streams = shm_directory(directory)
    sample = semaphore_name("x", 0, directory).strip("/")
    prefix, _, _ = sample.rpartition("x_sem")
    found = []
    for file in sorted(semaphores.glob(f"sem.{prefix}*")):
        match = re.fullmatch(rf"sem\.{re.escape(prefix)}([^.]+)_sem(\d+|log)", file.name)
        if match and not (streams / f"{match.group(1)}{FILE_SUFFIX}").exists():
            found.append(str(file))
    return found


def leftovers(directory: str | Path | None) -> list[Finding]:
    """Judge what is left of processes that have ended."""
    streams = shm_directory(directory)
    dead = [str(streams / f"{name}{FILE_SUFFIX}") for name in dead_streams(directory)]
    return [
        _listed("streams", dead, "written by processes that have ended; a new server makes them anew"),
        _listed("semaphores", orphaned_semaphores(directory), "without a stream"),
    ]


def _listed(name: str, files: list[str], meaning: str) -> Finding:
    if not files:
        return ok(f"leftover {name}", "none")
    shown = " ".join(files[:_MOST]) + (" ..." if len(files) > _MOST else "")
    return advice(f"leftover {name}", f"{len(files)} {meaning}", f"when nobody uses them: rm {shown}")
