"""What a running ``baldr up`` tells other commands, in a file of the state directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from baldr_tango.errors import StateError


def run_directory(state: Path) -> Path:
    """Directory of the files of a running ``baldr up``."""
    return state / "run"


class RunFile:
    """Holds the state directory for one ``baldr up``, and tells others how to reach it.

    Raises `StateError` when another one has the directory.
    """

    def __init__(self, state: Path) -> None:
        directory = run_directory(state)
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "up.json"
        self._lock = (directory / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            known = read_run_file(state)
            who = f" (process {known['pid']})" if known else ""
            raise StateError(
                f"another 'baldr up'{who} uses {state}; choose another directory with --state, or --isolated"
            ) from None
        self.path.unlink(missing_ok=True)

    def write(self, **entries: Any) -> None:
        """Tell other commands about this run."""
        self.path.write_text(json.dumps({"pid": os.getpid(), **entries}, indent=2) + "\n")

    def __enter__(self) -> RunFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        self._lock.close()


def read_run_file(state: Path) -> dict[str, Any] | None:
    """Return what a running ``baldr up`` has written; None without one."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run_directory(state) / "up.json").read_text())
        if isinstance(found, dict) and Path(f"/proc/{found.get('pid')}").exists():
            return found
    return None
