"""Child processes that end with their parent and leave a log file behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from baldr_tango.errors import BackendError

_DIE_WITH_PARENT: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""PR_SET_PDEATHSIG survives exec; setting it in a fresh interpreter avoids running code after fork."""

POLL_S: Final = 0.02


class ChildProcess:
    """One program started by us: it dies with us, and writes to a log file of its own.

    Parameters
    ----------
    name : what people call it.
    command : program and arguments.
    log_file : takes standard output and error; an earlier one is overwritten.
    environment : variables added to ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_file: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("wb") as log:
            # A session of its own: Ctrl-C reaches us alone, and we stop the others in order.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise `BackendError` with the end of the log when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise BackendError(
                f"{self.name} ended with status {code}; end of {self.log_file}:\n{self.tail()}"
            )

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        text = self.log_file.read_text("utf-8", "replace").rstrip().splitlines()
        return "\n".join(f"  {line}" for line in text[-lines:]) or "  (empty)"

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Ask the process to end; kill it after `timeout_s`. Returns True when asking was enough."""
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this Python installation."""
    return [sys.executable, "-m", module, *arguments]


def end_at_once() -> NoReturn:
    """End this process with status 0, everything else being done, while a thread of it is in the compiler.

    The compiler cannot be interrupted, and crashes when libraries and interpreter are taken down under it.
    """
    os._exit(0)


class Deadline:
    """A point in time by which something must have happened.

    Parameters
    ----------
    seconds : from now.
    what : completes the sentence "... within 5 s".
    """

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._end = time.monotonic() + seconds

    def pause(self, child: ChildProcess | None = None, period_s: float = POLL_S) -> None:
        """Wait a little; raise `BackendError` when `child` has ended or the time is over."""
        if child is not None:
            child.check()
        if time.monotonic() > self._end:
            log = f"; end of {child.log_file}:\n{child.tail()}" if child is not None else ""
            raise BackendError(f"{self._what} within {self._seconds:g} s{log}")
        time.sleep(period_s)
