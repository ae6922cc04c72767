"""Giving the loop a telemetry ring of another capacity while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from baldr_tango.errors import StateError
from baldr_tango.rtc.arrays import LoopArrays, ring_arrays
from baldr_tango.telemetry.ring import TelemetryRing


class RingExchange:
    """The loop's arrays, of which the telemetry ring can be exchanged.

    The compiled loop fills one ring from the moment it is entered until it is left. So a new ring is offered,
    filled with the old records meanwhile, and taken when the loop is next outside: for this purpose, for
    another one, or because it does not run.

    Parameters
    ----------
    arrays : what the loop begins with
    """

    def __init__(self, arrays: LoopArrays) -> None:
        self.arrays = arrays
        """The arrays in force."""
        self._changed = threading.Condition()
        self._offered: TelemetryRing | None = None
        self._is_in_use = False

    def take(self) -> LoopArrays:
        """Return the arrays that the loop is about to work on; called by the real-time thread."""
        with self._changed:
            self._accept()
            self._is_in_use = True
            return self.arrays

    def release(self) -> None:
        """Note that the loop has been left; called by the real-time thread."""
        with self._changed:
            self._is_in_use = False
            self._accept()

    def replace(self, capacity: int, ask_to_leave: Callable[[], None], timeout_s: float) -> TelemetryRing:
        """Exchange the ring for one of `capacity` records; return it.

        Records keep their numbers, the newest are kept when the new ring is smaller.

        Parameters
        ----------
        ask_to_leave : has the loop come out for a moment
        timeout_s : longest wait for it

        Raises
        ------
        ConfigError : the capacity is too small for a ring.
        StateError : the loop did not come out in time, or another exchange is going on; the ring stays.
        """
        new = self.arrays.ring.copied(capacity)
        with self._changed:
            if self._offered is not None:
                raise StateError("another telemetry ring is being installed")
            self._offered = new
            if not self._is_in_use:
                self._accept()
                return new
        ask_to_leave()
        with self._changed:
            if not self._changed.wait_for(lambda: self._offered is None, timeout_s):
                self._offered = None
                raise StateError(f"the real-time loop did not take the telemetry ring within {timeout_s:g} s")
        return new

    def _accept(self) -> None:
        """Put the offered ring in force, with the records that were written since it was copied."""
        new, old = self._offered, self.arrays.ring
        if new is None:
            return
        new.follow(old)
        self.arrays = replace(self.arrays, ring=new, ring_arrays=ring_arrays(new))
        self._offered = None
        self._changed.notify_all()
