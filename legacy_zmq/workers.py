"""Threads that work out slow answers; started when needed, ended together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from baldr_tango.thread_names import show_thread_name

_DONE: Final = None


class Workers:
    """At most `most` threads taking tasks from one queue; with ``most=1`` tasks run in order.

    Unlike those of `concurrent.futures` the threads are daemons: a command that hangs cannot keep
    the process from ending. A task must not raise.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def submit(self, task: Callable[[], None]) -> None:
        """Queue a task, on a new thread if none is idle; called from one thread only.

        Raises `RuntimeError` when the system gives no thread at all.
        """
        self._tasks.put(task)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(
                target=self._run, name=f"{self._name} worker {len(self._threads) + 1}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                # Without any thread the task would never be done; otherwise it waits for one.
                if not self._threads:
                    self._tasks.get_nowait()
                    raise
            else:
                self._threads.append(thread)

    def stop(self, timeout_s: float) -> list[str]:
        """End the threads after their present task; return the names of those still busy.

        Tasks that have not begun are dropped.
        """
        while not self._tasks.empty():
            try:
                self._tasks.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._tasks.put(_DONE)
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run(self) -> None:
        show_thread_name()
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                self._idle.release()
                task = self._tasks.get()
            if task is None:
                return
            task()
