"""Moving the mirror through the loop itself, and taking the frames that show it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.beam.frames import SETTLE_FRAMES
from baldr_tango.beam.jobs import JobControl
from baldr_tango.errors import BackendError, BaldrError, RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import LoopState, RtcState
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]

ADOPT_TIMEOUT_S: Final = 0.5
"""Longest wait for the loop to take over an offset [s]."""

SILENT_S: Final = 2.0
"""Time without a new frame after which the camera counts as stopped [s]."""

_POLL_S: Final = 0.001


class Prober:
    """Applies shapes through the loop's own parameters and collects frames taken after each; a context.

    The loop writes the shapes with its own command, so nothing fights for the DM channel. Leaving the context
    puts offsets and set points back, whatever has happened.

    Parameters
    ----------
    job : asked at every step whether to go on

    Raises
    ------
    StateError : the loop does not run, or a signal is being injected.
    """

    def __init__(self, beam: Beam, job: JobControl) -> None:
        self._beam = beam
        self._job = job
        loop = beam.loop
        if loop is None or beam.state().rtc != RtcState.RUNNING:
            raise StateError("the real-time loop is not running")
        if loop.slots.switch(d.INJECT):
            raise StateError("a signal is being injected; switch it off first")
        self.loop: RealTimeLoop = loop
        before = loop.slots.snapshot("offset_lo", "offset_ho", "set_point_ho")
        self._offset = before["offset_ho"].astype(np.float64)
        self._other_offset = before["offset_lo"].astype(np.float64)
        self._set_point = before["set_point_ho"].astype(np.float64)
        self._states = self._servo_states()
        self._next = 0
        self._is_moved = False
        self.frames_used = 0
        """Frames collected so far."""

    def __enter__(self) -> Prober:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_moved or self._beam.loop is not self.loop:
            return
        try:
            self.loop.slots.change(
                offset_ho=self._offset, set_point_ho=self._set_point, timeout_s=ADOPT_TIMEOUT_S
            )
        except BaldrError as failure:
            self._beam.log.error("offsets and set points were not put back: %s", failure)
            if error is None:
                raise

    @property
    def states(self) -> tuple[LoopState, LoopState]:
        """Servo states, tip/tilt and high order, at the start; a change of them ends the measurement."""
        return self._states

    def move(self, shape: ArrayLike, *, on_top: bool = True) -> None:
        """Put a shape on the mirror; seen only while the high-order loop is open.

        Parameters
        ----------
        shape : (G,) map [DM units]
        on_top : of the offsets that were there; otherwise in their place

        Raises
        ------
        RequestError : the shape exceeds what the loop lets pass; nothing moves.
        StateError : the loop did not take it over in time.
        """
        offset = np.asarray(shape, dtype=np.float64) + (self._offset if on_top else 0.0)
        self.check_range(offset)
        self._change(offset_ho=offset)

    def aim(self, set_point: ArrayLike) -> None:
        """Have the closed high-order loop steer to a set point (H,) [DM units]; errors as `move`."""
        self._change(set_point_ho=set_point)

    def check_range(self, offset: FloatArray) -> None:
        """Raise `RequestError` when an offset map (G,), with that of tip/tilt, would trip the loop."""
        largest = float(np.abs(offset + self._other_offset).max())
        limit = float(self.loop.slots.current("limits")[d.COMMAND_LIMIT])
        if not largest < limit:
            raise RequestError(f"the shape reaches {largest:.3g} DM units, allowed is less than {limit:g}")

    def _change(self, **values: Any) -> None:
        self._job.check()
        self._check_unchanged()
        self._is_moved = True
        version = self.loop.slots.change(timeout_s=ADOPT_TIMEOUT_S, **values)
        if not self.loop.wait_adopted(version, ADOPT_TIMEOUT_S):
            raise StateError(f"the real-time loop did not react within {ADOPT_TIMEOUT_S:g} s")
        # The frame being processed at this moment carries the shape out; it does not show it yet.
        self._next = self.loop.arrays.ring.write_index + 1 + SETTLE_FRAMES

    def skip(self, frames: int) -> None:
        """Let further frames pass before the next are collected."""
        self._next += frames

    def frames(self, count: int, names: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield `count` usable frames taken after the last change, as they come: some fields, some frames.

        Raises
        ------
        BackendError : no frames come, or they were overwritten before they could be copied.
        StateError : the loop was stopped, paused or closed, or the configuration replaced, meanwhile.
        """
        left, since = count, time.monotonic()
        seen = self.loop.arrays.ring.write_index
        while left > 0:
            ring = self.loop.arrays.ring
            written = ring.write_index
            if written > self._next:
                first, records = ring.read(self._next, written, {*names, "flags"})
                if first != self._next:
                    raise BackendError("frames were overwritten before they were copied")
                self._next = written
                used = np.flatnonzero(records["flags"] & d.FLAG_SKIPPED == 0)[:left]
                left -= used.size
                self.frames_used += int(used.size)
                if used.size:
                    self._check_unchanged()
                    yield {name: records[name][used] for name in names}
                continue
            now = time.monotonic()
            if written != seen:
                seen, since = written, now
            elif now - since > SILENT_S:
                self._check_unchanged()
                raise BackendError(f"no frame for {SILENT_S:g} s")
            self._job.pause(_POLL_S)
            self._check_unchanged()

    def samples(self, count: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return `count` frames as `frames` gives them, together: (count, ...) by field."""
        pieces = list(self.frames(count, names))
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}

    def means(self, count: int, names: Sequence[str]) -> dict[str, FloatArray]:
        """Return the mean of `count` frames by field."""
        totals: dict[str, Any] = dict.fromkeys(names, 0.0)
        for piece in self.frames(count, names):
            for name in names:
                totals[name] = totals[name] + piece[name].sum(axis=0, dtype=np.float64)
        return {name: np.asarray(total / count) for name, total in totals.items()}

    def _servo_states(self) -> tuple[LoopState, LoopState]:
        loops = int(self.loop.arrays.state.counters[d.LOOPS])
        return LoopState(loops & 1), LoopState(loops >> 1 & 1)

    def _check_unchanged(self) -> None:
        if self._beam.loop is not self.loop:
            raise StateError("another configuration was loaded meanwhile")
        if self._servo_states() != self._states:
            raise StateError("a loop was opened or closed meanwhile")
        rtc = self._beam.state().rtc
        if rtc != RtcState.RUNNING:
            raise StateError(f"the real-time loop is {rtc.name.lower()}")
