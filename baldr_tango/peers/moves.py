"""Moves of motors through the MDS: followed by their position, stopped on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeAlias

from baldr_tango.errors import BackendError
from baldr_tango.peers.operation import Operation, Progress

if TYPE_CHECKING:
    from baldr_tango.peers.mds import MdsClient

Positions: TypeAlias = dict[str, float]
"""Position of each axis [um for the phase-mask stages]."""


class Move:
    """One move of one or more axes.

    The MDS acknowledges some moves when they begin and others when they have ended, answering nobody
    meanwhile. So the acknowledgement says only that the move was accepted; it has ended when the axes stand
    still, at their target where that is known. The result is where they stand.

    ``cancel`` of the operation sends ``stop <axis>`` for each axis at once. An MDS that is busy with the
    move itself reads that after the move; the error of ``result`` tells where the axes stand then.

    Parameters
    ----------
    mds : client; it must stay open until the operation has ended.
    command : text that begins the move.
    targets : axes that move, and where to (None: not known).
    timeout_s : longest duration of the move [s]; after it the operation fails, nothing is stopped.
    poll_s : time between two looks at the positions [s].
    still_s : time of standing still after which a move counts as ended [s].
    stall_s : time of standing still elsewhere than at the target after which it has failed [s].
    tolerance : distance from the target that is good enough, in the unit of the axis.
    on_progress, on_done : see `Operation`.
    """

    def __init__(
        self,
        mds: MdsClient,
        command: str,
        targets: Mapping[str, float | None],
        *,
        timeout_s: float = 60.0,
        poll_s: float = 0.1,
        still_s: float = 0.5,
        stall_s: float = 3.0,
        tolerance: float = 2.0,
        on_progress: Callable[[Progress], object] | None = None,
        on_done: Callable[[Operation[Positions]], object] | None = None,
    ) -> None:
        self._mds = mds
        self._command = command
        self._targets = dict(targets)
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._still_s = still_s
        self._stall_s = stall_s
        self._tolerance = tolerance
        self._on_progress = on_progress
        self._on_done = on_done
        self._is_relative = False
        self._order: Future[str] | None = None
        self._stops: list[tuple[str, Future[str]]] = []

    def start(self, *, relative: bool = False) -> Operation[Positions]:
        """Begin; with `relative`, the targets are distances from where the axes stand."""
        self._is_relative = relative
        return Operation(
            self._command,
            self._run,
            stop=self._stop,
            after_cancel=self._say_where,
            on_progress=self._on_progress,
            on_done=self._on_done,
        )

    def _run(self, operation: Operation[Positions]) -> Positions:
        deadline = time.monotonic() + self._timeout_s
        begin = self._read(operation, deadline)
        targets = {axis: self._target(axis, begin[axis]) for axis in begin}
        operation.report(0.0, _text(begin))
        self._order = order = self._mds.submit(self._command, self._timeout_s)
        previous, still_since = begin, time.monotonic()
        while True:
            operation.pause(self._poll_s)
            present = self._read(operation, deadline)
            now = time.monotonic()
            if any(abs(present[axis] - previous[axis]) > self._tolerance / 10 for axis in present):
                still_since = now
            previous = present
            operation.report(_fraction(begin, present, targets), _text(present))
            if not order.done():
                still_since = now
                continue
            self._mds.accepted(self._command, order.result())
            missed = self._missed(present, targets)
            if now - still_since >= (self._stall_s if missed else self._still_s):
                if missed:
                    raise BackendError(f"{self._command}: {missed}")
                return present
            if now >= deadline:
                raise BackendError(
                    f"{self._command}: still moving after {self._timeout_s:g} s, {_text(present)}"
                )

    def _target(self, axis: str, begin: float) -> float | None:
        target = self._targets[axis]
        return begin + target if target is not None and self._is_relative else target

    def _read(self, operation: Operation[Positions], deadline: float) -> Positions:
        """Ask for each position; as patient as the move, because its server may be busy with it."""
        positions = {}
        for axis in self._targets:
            left_s = max(self._mds.timeout_s, deadline - time.monotonic())
            reply = operation.reply_to(self._mds.submit(f"read {axis}", left_s))
            positions[axis] = self._mds.position(axis, reply)
        return positions

    def _missed(self, positions: Positions, targets: Mapping[str, float | None]) -> str:
        """Say which axis is not at its target, if any."""
        for axis, target in targets.items():
            if target is not None and abs(positions[axis] - target) > self._tolerance:
                return f"{axis} stands at {positions[axis]:g}, not at {target:g}"
        return ""

    def _stop(self) -> None:
        if self._order is not None:
            self._order.cancel()
        self._stops = [(axis, self._mds.submit(f"stop {axis}")) for axis in self._targets]

    def _say_where(self) -> str:
        for axis, reply in self._stops:
            self._mds.accepted(f"stop {axis}", reply.result())
        reads = {axis: self._mds.submit(f"read {axis}") for axis in self._targets}
        where = {axis: self._mds.position(axis, reply.result()) for axis, reply in reads.items()}
        return f"stopped at {_text(where)}"


def _fraction(begin: Positions, present: Positions, targets: Mapping[str, float | None]) -> float:
    """Part of the way that the slowest axis has behind it; 0 when no target is known."""
    ways = {axis: target - begin[axis] for axis, target in targets.items() if target is not None}
    parts = [1 - abs(begin[axis] + way - present[axis]) / abs(way) for axis, way in ways.items() if way]
    return min(parts, default=1.0 if ways else 0.0)


def _text(positions: Positions) -> str:
    return ", ".join(f"{axis} {position:.1f}" for axis, position in positions.items())
