"""Waiting that somebody else can end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any


class Patience:
    """Waits of one thread, for a future or for a time; `give_up` ends them and all later ones at once."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._has_given_up = False
        self._is_nudged = False

    @property
    def has_given_up(self) -> bool:
        """True after `give_up`."""
        return self._has_given_up

    def give_up(self) -> None:
        """End the present wait, and let no other begin."""
        with self._condition:
            self._has_given_up = True
            self._condition.notify_all()

    def nudge(self) -> None:
        """End the present pause, or the next one."""
        with self._condition:
            self._is_nudged = True
            self._condition.notify_all()

    def wait(self, future: Future[Any]) -> bool:
        """Wait until `future` is done, however it ended; False when given up before."""

        def wake(_: Future[Any]) -> None:
            with self._condition:
                self._condition.notify_all()

        future.add_done_callback(wake)
        with self._condition:
            self._condition.wait_for(lambda: future.done() or self._has_given_up)
            return not self._has_given_up

    def pause(self, seconds: float) -> bool:
        """Wait for a time, or until the next `nudge`; False when given up."""
        deadline = time.monotonic() + seconds
        with self._condition:
            self._condition.wait_for(
                lambda: self._has_given_up or self._is_nudged, max(0.0, deadline - time.monotonic())
            )
            self._is_nudged = False
            return not self._has_given_up
