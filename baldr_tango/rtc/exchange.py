"""Giving the loop other arrays while it runs: a telemetry ring of another capacity, other matrices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc.arrays import LoopArrays, ring_arrays
from baldr_tango.telemetry.ring import TelemetryRing


class Exchange:
    """The loop's arrays, some of which can be exchanged.

    The compiled loop works on the same arrays from the moment it is entered until it is left. So new ones are
    offered, and taken when the loop is next outside: for this purpose, for another one, or because it does
    not run.

    Parameters
    ----------
    arrays : what the loop begins with
    """

    def __init__(self, arrays: LoopArrays) -> None:
        self.arrays = arrays
        """The arrays in force."""
        self._changed = threading.Condition()
        self._offered: Callable[[LoopArrays], LoopArrays] | None = None
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

    def replace(
        self,
        change: Callable[[LoopArrays], LoopArrays],
        ask_to_leave: Callable[[], None],
        timeout_s: float,
    ) -> None:
        """Exchange arrays for others of the same sizes of frame, modes and DM map.

        Parameters
        ----------
        change : makes the new arrays from the old ones while the loop is outside; quick, and never fails
        ask_to_leave : has the loop come out for a moment
        timeout_s : longest wait for it

        Raises
        ------
        StateError : the loop did not come out in time; nothing has changed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._offered is None, timeout_s):
                raise StateError("another exchange of the loop's arrays is going on")
            self._offered = change
            if not self._is_in_use:
                self._accept()
                return
        ask_to_leave()
        with self._changed:
            if not self._changed.wait_for(lambda: self._offered is not change, timeout_s):
                self._offered = None
                self._changed.notify_all()
                raise StateError(f"the real-time loop did not react within {timeout_s:g} s")

    def replace_ring(
        self, capacity: int, ask_to_leave: Callable[[], None], timeout_s: float
    ) -> TelemetryRing:
        """Exchange the telemetry ring for one of `capacity` records; return it.

        Records keep their numbers, the newest are kept when the new ring is smaller.

        Raises
        ------
        ConfigError : the capacity is too small for a ring.
        StateError : as `replace`; the ring stays.
        """
        new = self.arrays.ring.copied(capacity)

        def change(arrays: LoopArrays) -> LoopArrays:
            new.follow(arrays.ring)  # the records that were written since it was copied
            history = arrays.state.counters[d.HISTORY : d.HISTORY + 1]
            history[0] = min(history[0], new.write_index - new.oldest)  # no mean over records that are gone
            return replace(arrays, ring=new, ring_arrays=ring_arrays(new))

        self.replace(change, ask_to_leave, timeout_s)
        return new

    def _accept(self) -> None:
        """Put what is offered in force."""
        if self._offered is not None:
            self.arrays = self._offered(self.arrays)
            self._offered = None
            self._changed.notify_all()
