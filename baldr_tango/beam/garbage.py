"""Python's garbage collector, kept from stopping the interpreter for long.

A full collection walks every container of the process, some hundred thousand in a server with numba and
Tango, and nothing that needs the interpreter goes on meanwhile: no reply, no telemetry. (The loop does.) So
what is there after a configuration is collected once and then set aside, where later ones do not look.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from typing import Any, Final

THRESHOLDS: Final = (2000, 10, 50)
"""New containers before a collection of the youngest, and collections before one of the next generation."""


class Collector:
    """The collector of this process; it is left alone until `take_over`."""

    def __init__(self) -> None:
        self.collections = 0
        """Collections since things were set aside last."""
        self.longest_ms = 0.0
        """Longest of them [ms]."""
        self._lock = threading.Lock()
        self._is_ours = False
        self._is_settling = False
        self._before: tuple[int, int, int] = gc.get_threshold()
        self._began = 0.0

    def take_over(self) -> None:
        """Set the thresholds, watch the collections; to be called once, by a server that owns its process."""
        with self._lock:
            if not self._is_ours:
                self._is_ours = True
                self._before = gc.get_threshold()
                gc.set_threshold(*THRESHOLDS)
                gc.callbacks.append(self._note)

    def give_back(self) -> None:
        """Leave the collector as it was before `take_over`."""
        with self._lock:
            if self._is_ours:
                self._is_ours = False
                gc.callbacks.remove(self._note)
                gc.set_threshold(*self._before)
                gc.unfreeze()

    def settle(self, log: logging.Logger) -> None:
        """Collect what is garbage, a configuration that was replaced included, and set the rest aside.

        To be called when a beam has become ready; nothing happens in a process that was not taken over.
        """
        with self._lock:
            if not self._is_ours:
                return
            self._is_settling = True
            try:
                began = time.perf_counter()
                gc.unfreeze()  # a loop that was set aside may be garbage by now
                found = gc.collect()
                gc.freeze()
                took_ms = 1e3 * (time.perf_counter() - began)
            finally:
                self._is_settling = False
            self.collections, self.longest_ms = 0, 0.0
        log.info("%d objects set aside, %d freed, in %.0f ms", gc.get_freeze_count(), found, took_ms)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        """Time a collection; called by the interpreter, which does not collect meanwhile."""
        if self._is_settling:
            return
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.collections += 1
            self.longest_ms = max(self.longest_ms, 1e3 * (time.perf_counter() - self._began))


collector: Final = Collector()
"""The one of this process."""
