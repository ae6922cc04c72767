"""Journal of a running loop: its parameters and its memory, for a recording that can be replayed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.rtc.arrays import LoopArrays, state_members
from baldr_tango.rtc.slots import ParameterSlots
from baldr_tango.telemetry.fields import FrameFlag
from baldr_tango.telemetry.journal import ENTERED, PARAMETERS, STATE, Entry

LEAST_HISTORY: Final = 1000
"""Earlier signals that are kept for the running mean, more when it is longer than this."""

_REACT_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.0005


class LoopJournal:
    """What happens to a loop beside its frames; see `baldr_tango.telemetry.journal`.

    Parameters
    ----------
    arrays : what the loop works on
    slots : its parameters
    is_inside : tells whether the compiled loop is running
    on_close : called when the journal is ended
    """

    def __init__(
        self,
        arrays: LoopArrays,
        slots: ParameterSlots,
        is_inside: Callable[[], bool],
        on_close: Callable[[LoopJournal], None],
    ) -> None:
        self._arrays = arrays
        self._slots = slots
        self._is_inside = is_inside
        self._on_close = on_close
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._begun = slots.follow(self._changed)

    def take(self) -> list[Entry]:
        """Return what has come since the last call, oldest first."""
        with self._lock:
            entries, self._entries = self._entries, []
        return [self._with_history(entry) for entry in entries]

    def entered(self, version: int) -> None:
        """Note that the loop begins anew with a version; called by the real-time thread, outside."""
        memory = self._arrays.state.memory.copy()
        self._put(Entry(ENTERED, self._arrays.ring.write_index, version, self._members(memory)))

    def checkpoint(self) -> int | None:
        """Have the running loop copy its memory; a loop that does not run is noted when it begins.

        Returns
        -------
        record before which the copy was made; None: the loop does not run.

        Raises
        ------
        StateError : the loop did not react in time.
        """
        control, deadline = self._arrays.control, time.monotonic() + _REACT_TIMEOUT_S
        while self._is_inside() and load_acquire(control, d.ADOPTED) < self._begun:
            self._pause(deadline)
        asked = load_acquire(control, d.CHECKPOINT) + 1
        store_release(control, d.CHECKPOINT, asked)
        while load_acquire(control, d.CHECKPOINTED) != asked:
            if not self._is_inside():
                return None
            self._pause(deadline)
        copy = self._arrays.state.checkpoint.copy()
        record, version = int(copy[d.CHECKPOINT_RECORD]), int(copy[d.CHECKPOINT_VERSION])
        members = self._members(copy[: -d.CHECKPOINT_EXTRA])
        self._put(self._with_history(Entry(STATE, record, version, members)))
        return record

    def close(self) -> None:
        """End it; harmless when called twice."""
        self._slots.unfollow(self._changed)
        self._on_close(self)

    def _changed(self, version: int, arrays: dict[str, NDArray[Any]]) -> None:
        self._put(Entry(PARAMETERS, -1, version, arrays))

    def _put(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    @staticmethod
    def _pause(deadline: float) -> None:
        if time.monotonic() > deadline:
            raise StateError(f"the real-time loop did not react within {_REACT_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)

    def _members(self, memory: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {f"state.{name}": array for name, array in state_members(self._arrays.state, memory).items()}

    def _with_history(self, entry: Entry) -> Entry:
        """Add what the loop may look back at: earlier signals for the running mean, the frame before."""
        if entry.kind not in (STATE, ENTERED) or entry.arrays is None or "history.signal" in entry.arrays:
            return entry
        ring = self._arrays.ring
        longest = max(LEAST_HISTORY, self._slots.switch(d.BOXCAR))
        first = max(ring.oldest, entry.record - 2 * longest)  # reads that only begin a burst give no signal
        first, found = ring.read(first, entry.record, ("signal", "flags", "img"))
        wanted = int(min(entry.arrays["state.counters"][d.HISTORY], longest))
        usable = np.cumsum((found["flags"][::-1] & FrameFlag.SKIPPED) == 0)
        rows = max(min(int(np.searchsorted(usable, wanted)) + 1, usable.size), min(1, usable.size))
        history = {
            "history.signal": found["signal"][usable.size - rows :],
            "history.flags": found["flags"][usable.size - rows :],
            "history.img": found["img"][-1:],
        }
        return Entry(entry.kind, entry.record, entry.version, {**entry.arrays, **history})
