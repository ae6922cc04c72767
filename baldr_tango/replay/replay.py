"""A recording through the compiled loop once more, compared frame by frame."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.jit import HOST_CPU, KERNELS_DIGEST
from baldr_tango.replay.changes import Changes, Overrides
from baldr_tango.replay.engine import Engine
from baldr_tango.replay.output import Output
from baldr_tango.replay.recording import Arrays, Recording
from baldr_tango.replay.result import Difference, ReplayResult
from baldr_tango.telemetry.fields import FrameFlag

OPEN_LOOP_NOTE: Final = (
    "the recorded frames do not answer to the replayed commands: errors are those of the recorded loop;"
    " what differs is what the controllers make of them, not what the sensor would have seen"
)
"""What a replay with other gains can say, and what not."""

_BLOCK: Final = 256


def replay(path: Path | str, changes: Changes | None = None, output: Path | None = None) -> ReplayResult:
    """Feed a recording through the compiled loop and compare what it gives with what was recorded.

    Parameters
    ----------
    path : telemetry file with every raw image
    changes : other gains and limits; by default none, and every command must be the recorded one
    output : telemetry file to be written with the replayed records

    Raises
    ------
    BackendError : the file cannot be read, or the output not be written.
    RequestError : the file does not hold what a replay needs, or the output exists.
    ConfigError : the changes do not fit the recorded loop.
    """
    with ExitStack() as stack:
        recording = stack.enter_context(Recording(path))
        chosen = changes or Changes()
        start = next(entry for record, entry in sorted(recording.states.items()))
        base = recording.parameters(start.version)
        overrides = chosen.overrides(base)
        capacity = max(recording.capacity, overrides.switches.get(d.BOXCAR, 0) + 2)
        result = ReplayResult(Path(path), recording.rows, dict(chosen.values), recording.compared)
        result.notes += _notes(recording, chosen)
        engine = stack.enter_context(Engine(recording.sizes, capacity, overrides.applied(base)))
        written = None
        if output is not None:
            more = {"replayed_from": str(path), "replay_changes": json.dumps(result.changes)}
            written = stack.enter_context(Output(output, recording, engine.ring, more))
        _Run(recording, overrides, engine, result, written).all()
        if not result.replayed and result.first is None:
            raise RequestError(f"telemetry file {path}: cannot be replayed: no frame follows a known memory")
    return result


def _notes(recording: Recording, changes: Changes) -> list[str]:
    notes = [OPEN_LOOP_NOTE] if changes.values else []
    here = {"kernels": KERNELS_DIGEST, "processor": HOST_CPU}
    for name, found in recording.file.origin.items():
        if here.get(name, found) != found:
            notes.append(f"recorded with {name} {found}, replayed with {here[name]}: last bits may differ")
    return notes


class _Run:
    """One pass over a recording."""

    def __init__(
        self,
        recording: Recording,
        overrides: Overrides,
        engine: Engine,
        result: ReplayResult,
        output: Output | None,
    ) -> None:
        self.recording = recording
        self.overrides = overrides
        self.engine = engine
        self.result = result
        self.output = output
        self.before: int | None = None
        """Record that went through the loop last; None: the loop's memory is not that of the recording."""

    def all(self) -> None:
        """Replay every row that can be."""
        size = max(1, min(_BLOCK, self.engine.ring.capacity // 2))
        for start in range(0, self.recording.rows, size):
            if not self._block(start, min(start + size, self.recording.rows)):
                return

    def _block(self, start: int, stop: int) -> bool:
        """Replay some rows; False when the loop gave no record for one."""
        fields, images = self.recording.block(start, stop)
        done = start
        for row in range(start, stop):
            record = int(self.recording.records[row])
            if not self._is_continued(record):
                self._compare(fields, start, done, row)
                done = row
                if not self._begin(record):
                    self.result.pass_over(row)
                    done = row + 1
                    continue
            k = row - start
            if not self._frame(fields, images[k], k):
                self._compare(fields, start, done, row)
                if self.result.first is None:
                    self.result.first = Difference(row, int(fields["frame"][k]), "frame")
                self.result.notes.append(f"stopped at row {row}: the loop gave no record")
                return False
            self.before = record
        self._compare(fields, start, done, stop)
        return True

    def _is_continued(self, record: int) -> bool:
        return self.before == record - 1 and record not in self.recording.entered

    def _begin(self, record: int) -> bool:
        """Bring the loop to where it was before a record; False when that is not known."""
        entry = self.recording.states.get(record)
        self.before = None
        if entry is None:
            return False
        self.engine.begin(entry, self.overrides.applied(self.recording.parameters(entry.version)))
        return True

    def _frame(self, fields: Arrays, image: NDArray[np.int32], k: int) -> bool:
        version, flags = int(fields["version"][k]), int(fields["flags"][k])
        self.engine.set_mirror(not flags & FrameFlag.WRITE_FAILED)
        while self.engine.version < version:
            following = self.engine.version + 1
            self.engine.adopt(following, self.overrides.applied(self.recording.change(following)))
        is_missed_before = bool(flags & FrameFlag.MISSED_BEFORE)
        return self.engine.frame(image, int(fields["frame"][k]), is_missed_before)

    def _compare(self, fields: Arrays, start: int, first: int, stop: int) -> None:
        """Compare the rows ``first`` to ``stop`` (exclusive), all of them just replayed."""
        if stop <= first:
            return
        recorded = {name: array[first - start : stop - start] for name, array in fields.items()}
        ring, slots = self.engine.ring, self.recording.records[first:stop] % self.engine.ring.capacity
        self.result.add(first, recorded, {name: ring.fields[name][slots] for name in self.recording.compared})
        if self.output is not None:
            ring.fields["time_ns"][slots] = recorded["time_ns"]
            ring.fields["latency_ns"][slots] = 0
            self.output.append(int(self.recording.records[first]), int(self.recording.records[stop - 1]) + 1)
