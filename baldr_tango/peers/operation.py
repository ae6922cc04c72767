"""Something that takes long on a peer: followed, cancelled and waited for from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from baldr_tango.errors import BackendError
from baldr_tango.peers.patience import Patience

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("baldr.peers")


class CancelledOperationError(BackendError):
    """The operation was cancelled; the message says what state it left."""


@dataclass(frozen=True)
class Progress:
    """How far an operation has come."""

    fraction: float = 0.0
    """0 to 1."""
    message: str = ""


class Operation(Generic[T]):
    """A long task on a peer, in a thread of its own that starts at once.

    The task is a function of the operation. It asks the peer through `reply_to`, waits with `pause` and
    tells how far it is with `report`; the first two raise `CancelledOperationError` as soon as somebody has
    called `cancel`, even while the peer owes a reply.

    Parameters
    ----------
    name : for people, and for the thread.
    task : does the work; its result or its error is that of the operation.
    stop : called once by `cancel`, in the thread that cancels: hands in what stops the hardware, without
        waiting for a reply.
    after_cancel : called by the operation's thread after that; returns a text for the error.
    on_progress, on_done : called in the operation's thread with each report, and with the operation at
        its end; an exception in them is logged and changes nothing.
    """

    def __init__(
        self,
        name: str,
        task: Callable[[Operation[T]], T],
        *,
        stop: Callable[[], object] | None = None,
        after_cancel: Callable[[], str] | None = None,
        on_progress: Callable[[Progress], object] | None = None,
        on_done: Callable[[Operation[T]], object] | None = None,
    ) -> None:
        self.name = name
        self._task = task
        self._stop = stop
        self._after_cancel = after_cancel
        self._on_progress = on_progress
        self._on_done = on_done
        self._patience = Patience()
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._has_stopped = threading.Event()
        self._future: Future[T] = Future()
        self._future.set_running_or_notify_cancel()
        self._progress = Progress()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return self._progress

    @property
    def is_done(self) -> bool:
        """True when it has ended, in whatever way."""
        return self._future.done()

    @property
    def is_cancelled(self) -> bool:
        """True when `cancel` came before the end."""
        return self._is_cancelled

    def cancel(self) -> bool:
        """Stop it; returns at once. False when it had ended before, and nothing is stopped."""
        with self._lock:
            if self.is_done or self._is_cancelled:
                return self._is_cancelled
            self._is_cancelled = True
        try:
            if self._stop is not None:
                self._stop()
        finally:
            self._has_stopped.set()
            self._patience.give_up()
        return True

    def result(self, timeout_s: float | None = None) -> T:
        """Wait for the end and return the result, or raise the operation's error.

        Raises
        ------
        CancelledOperationError : it was cancelled.
        TimeoutError : it has not ended within `timeout_s` seconds; it goes on.
        """
        if not wait([self._future], timeout_s).done:
            raise TimeoutError(f"{self.name}: not done within {timeout_s:g} s; it goes on")
        return self._future.result()

    # For the task

    def report(self, fraction: float, message: str = "") -> None:
        """Tell how far it is; `fraction` is cut to 0 to 1."""
        self._progress = Progress(min(1.0, max(0.0, fraction)), message)
        if self._on_progress is not None:
            try:
                self._on_progress(self._progress)
            except Exception:
                log.exception("%s: the callback for its progress failed", self.name)

    def reply_to(self, future: Future[R]) -> R:
        """Wait for a reply and return it, or raise its error."""
        if not self._patience.wait(future):
            future.cancel()
            raise CancelledOperationError(f"{self.name}: cancelled")
        return future.result()

    def pause(self, seconds: float) -> None:
        """Wait for a time."""
        if not self._patience.pause(seconds):
            raise CancelledOperationError(f"{self.name}: cancelled")

    def _run(self) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = self._task(self)
        except BaseException as raised:
            error = raised
        with self._lock:
            # A task that reaches its end while it is being cancelled has been stopped all the same.
            is_cancelled = self._is_cancelled
            if not is_cancelled:
                self._settle(result, error)
        if is_cancelled:
            self._has_stopped.wait()
            self._settle(None, CancelledOperationError(f"{self.name}: {self._describe_cancelled()}"))
        if self._on_done is not None:
            try:
                self._on_done(self)
            except Exception:
                log.exception("%s: the callback for its end failed", self.name)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self._progress = Progress(1.0, self._progress.message)
            self._future.set_result(result)
        else:
            self._future.set_exception(error)

    def _describe_cancelled(self) -> str:
        try:
            text = self._after_cancel() if self._after_cancel is not None else ""
        except Exception as error:
            return f"cancelled; {error}"
        return f"cancelled; {text}" if text else "cancelled"
