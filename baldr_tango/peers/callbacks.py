"""A thread for callbacks, so that a slow one holds up nothing but other callbacks."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger("baldr.peers")


class CallbackThread:
    """Calls what it is given, in order, in a thread that starts with the first call.

    A callback's exception is logged and changes nothing else.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called soon; returns at once."""
        with self._lock:
            self._calls.put(function)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._calls,), name=self._name, daemon=True
                )
                self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Make the calls that wait and end the thread; False when it has not ended in time."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None:
                return True
            self._calls.put(None)
            self._calls = queue.SimpleQueue()
        if thread is not threading.current_thread():
            thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self, calls: queue.SimpleQueue[Callable[[], object] | None]) -> None:
        while (function := calls.get()) is not None:
            try:
                function()
            except Exception:
                log.exception("%s: a callback failed", self._name)
