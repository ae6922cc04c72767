"""Long commands of a beam: one at a time, in a thread of their own, with progress and cancellation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from baldr_tango.errors import BaldrError, StateError

JobResult: TypeAlias = dict[str, Any]
JobTask: TypeAlias = "Callable[[JobControl], JobResult]"

IDLE: Final = "idle"
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"


class JobCancelledError(StateError):
    """Raised inside a job that somebody has cancelled, so that it puts back what it has changed."""


@dataclass(frozen=True)
class JobStatus:
    """What the newest job is doing, or how it has ended."""

    name: str = ""
    """Command that started it; empty before the first."""
    state: str = IDLE
    """idle, running, done, failed or cancelled."""
    fraction: float = 0.0
    """0 to 1."""
    step: str = ""
    time_left_s: float = 0.0
    """Estimated from what is done so far; 0 while that says nothing."""
    result: JobResult | None = None
    """Reply of the command, once it is done."""
    error: str = ""


class JobControl:
    """What a job sees of its own running."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def progress(self, fraction: float, step: str) -> None:
        """Say how far it is (0 to 1) and what comes now; raises `JobCancelledError` like `check`."""
        self.check()
        self._job.tell(fraction, step)

    def check(self) -> None:
        """Raise `JobCancelledError` once the job is to end."""
        if self._job.cancelled.is_set():
            raise JobCancelledError(f"{self._job.status.name}: cancelled")

    def pause(self, seconds: float) -> None:
        """Wait, but not after the job is to end: then raise `JobCancelledError`."""
        self._job.cancelled.wait(seconds)
        self.check()


class Job:
    """One run of a long command; made by `Jobs.start`."""

    def __init__(self, name: str, task: JobTask, log: logging.Logger) -> None:
        self.status: JobStatus = JobStatus(name, RUNNING)
        self.cancelled = threading.Event()
        self.ended = threading.Event()
        self._task = task
        self._log = log
        self._began = time.monotonic()
        self._error: BaldrError | None = None

    def tell(self, fraction: float, step: str) -> None:
        """Note the progress."""
        elapsed = time.monotonic() - self._began
        left = elapsed * (1.0 - fraction) / fraction if fraction > 0.0 else 0.0
        self.status = replace(self.status, fraction=min(fraction, 1.0), step=step, time_left_s=max(left, 0.0))

    def run(self) -> None:
        """Work until it is done; a failure is told to who waits, and logged. Never raises."""
        name = self.status.name
        try:
            result = self._task(JobControl(self))
        except JobCancelledError as error:
            self._end(CANCELLED, error)
            self._log.warning("%s", error)
        except BaldrError as error:
            self._end(FAILED, error)
            self._log.warning("%s: %s", name, error)
        except Exception as error:
            self._end(FAILED, BaldrError(f"{name}: internal error, {type(error).__name__}: {error}"))
            self._log.exception("%s failed", name)
        else:
            self.status = replace(
                self.status, state=DONE, fraction=1.0, step="done", time_left_s=0.0, result=result
            )
            self._log.info("%s: done after %.1f s", name, time.monotonic() - self._began)
        finally:
            self.ended.set()

    def _end(self, state: str, error: BaldrError) -> None:
        self._error = error
        self.status = replace(self.status, state=state, time_left_s=0.0, error=str(error))

    def wait(self, timeout_s: float | None = None) -> JobResult:
        """Wait for the end; return the result or raise the job's own error.

        Raises
        ------
        StateError : it has not ended in time.
        """
        if not self.ended.wait(timeout_s):
            raise StateError(f"{self.status.name}: still running")
        if self._error is not None:
            raise self._error
        return dict(self.status.result or {})


class Jobs:
    """The jobs of a beam.

    A job works beside other commands: it changes what it needs by itself and puts it back whatever happens.
    """

    def __init__(self, log: logging.Logger, name: str) -> None:
        self._log = log
        self._name = name
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> JobStatus:
        """What the newest job is doing, or how it has ended; never waits."""
        job = self._job
        return job.status if job is not None else JobStatus()

    def start(self, name: str, task: JobTask) -> Job:
        """Start a job; returns at once.

        Raises
        ------
        StateError : another one is running.
        """
        with self._lock:
            running = self._job
            if running is not None and not running.ended.is_set():
                raise StateError(
                    f"{name}: {running.status.name} is still running"
                    f" ({100.0 * running.status.fraction:.0f} %); job_cancel ends it"
                )
            job = Job(name, task, self._log)
            thread = threading.Thread(target=job.run, name=f"job-{self._name}", daemon=True)
            self._job, self._thread = job, thread
            thread.start()
        return job

    def cancel(self, timeout_s: float) -> JobStatus:
        """End the running job, which puts back what it has changed; return how it ended.

        Raises
        ------
        StateError : no job is running, or it has not ended in time (it still will).
        """
        job = self._job
        if job is None or job.ended.is_set():
            raise StateError("no job is running")
        job.cancelled.set()
        if not job.ended.wait(timeout_s):
            raise StateError(f"{job.status.name}: told to end, but still running after {timeout_s:g} s")
        return job.status

    def close(self, timeout_s: float) -> bool:
        """End whatever is running; True when it has ended in time."""
        job, thread = self._job, self._thread
        if job is None or thread is None:
            return True
        job.cancelled.set()
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        return job.ended.is_set()
