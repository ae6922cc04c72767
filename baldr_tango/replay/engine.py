"""The compiled loop, fed with recorded frames one by one; its commands go nowhere."""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.libc import address_of, sem_post_capped
from baldr_tango.kernels.loop import run
from baldr_tango.replay import slots
from baldr_tango.replay.recording import Arrays, is_fresh
from baldr_tango.rtc.arrays import LoopArrays, build_state, ring_arrays, state_members
from baldr_tango.rtc.loop import buffers
from baldr_tango.telemetry.journal import Entry
from baldr_tango.telemetry.ring import TelemetryRing

_LEAST_RING = 2
_NO_FILE = -1


class Engine:
    """Runs the function that runs on the instrument, pass by pass.

    Its camera is a piece of memory, its mirror another one that nobody else can reach: no shared stream is
    opened, nothing on the machine is touched.

    Parameters
    ----------
    sizes : of the vector fields
    capacity : records of the ring, as many as the recorded loop had: the running mean looks back in it
    parameters : all arrays of one version
    """

    def __init__(self, sizes: dict[str, int], capacity: int, parameters: Arrays) -> None:
        self.ring = TelemetryRing(max(capacity, _LEAST_RING), sizes)
        self._arrays = LoopArrays(
            control=np.zeros(d.CONTROL_WORDS, dtype=np.int64),
            parameters=slots.build(parameters),
            state=build_state(*(sizes[key] for key in "PALHG")),
            ring=self.ring,
            ring_arrays=ring_arrays(self.ring),
            frame_shape=(1, sizes["P"]),
        )
        words = d.HEADER_WORDS + (sizes["P"] * 4 + 7) // 8
        self._camera_fd = os.memfd_create("replayed camera")
        self._mirror_fd = os.memfd_create("replayed mirror")
        os.ftruncate(self._camera_fd, words * 8)
        self._camera = np.frombuffer(mmap.mmap(self._camera_fd, words * 8), dtype=np.int64)
        self._pixels = self._camera.view(np.int32)[d.HEADER_WORDS * 2 :][: sizes["P"]]
        self._semaphores = np.zeros((2, 8), dtype=np.int64)  # unnamed POSIX semaphores of value 0
        handles = np.zeros(d.N_HANDLES, dtype=np.int64)
        handles[d.CAMERA_FD] = self._camera_fd
        handles[d.DM_FD] = self._mirror_fd
        handles[d.CAMERA_SEMAPHORE] = address_of(self._semaphores[0])
        handles[d.TRIGGER_SEMAPHORE] = address_of(self._semaphores[1])
        self._io = buffers(self._arrays, handles, np.zeros(0, dtype=np.int64))
        self._arrays.control[d.PASSES] = 1

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._camera_fd)
        os.close(self._mirror_fd)

    @property
    def version(self) -> int:
        """Version of the parameters that the loop works with."""
        return int(self._arrays.control[d.ADOPTED])

    def begin(self, entry: Entry, parameters: Arrays) -> None:
        """Put the loop where it was between two recorded frames.

        Parameters
        ----------
        parameters : all arrays of the entry's version.

        Raises
        ------
        RequestError : the memory of the loop was laid out otherwise.
        """
        found = dict(entry.arrays or {})
        for name, member in state_members(self._arrays.state, self._arrays.state.memory).items():
            value = found.get(f"state.{name}")
            is_short = name == "counters" and value is not None and value.size < member.size
            if value is None or (value.shape != member.shape and not is_short):
                raise RequestError(f"the recording has another memory of the loop: {name}")
            member[:] = 0
            member[: value.size] = value
        self._look_back(entry.record, found)
        control = self._arrays.control
        self._replace(slots.build(parameters))
        control[d.VERSION] = control[d.ADOPTED] = entry.version
        control[d.RESUMED] = 1
        if is_fresh(entry):
            control[d.RESUMED] = 0
            self._pass()
            control[d.RESUMED] = 1

    def adopt(self, version: int, changed: Arrays) -> None:
        """Have the loop take over the next version of its parameters, between two frames."""
        self._replace(slots.put(self._arrays.parameters, version, changed))
        self._arrays.control[d.VERSION] = version
        self._pass()

    def set_mirror(self, is_writable: bool) -> None:
        """Let commands from now on be written, or fail as they did when this was recorded."""
        self._io.handles[d.DM_FD] = self._mirror_fd if is_writable else _NO_FILE

    def frame(self, image: NDArray[np.int32], number: int, is_missed_before: bool) -> bool:
        """Have the loop process a frame, in the ring's next record; False when it recorded none.

        image : (P,) raw frame [ADU]; number : its frame number
        """
        before = self.ring.write_index
        self._pixels[:] = image
        self._camera[d.CNT0_WORD] = number
        # The number was found when the frame was recorded; what the camera counted is not asked again.
        self._arrays.state.counters[d.LAST_NUMBER] = max(number - 1 - is_missed_before, -1)
        sem_post_capped(int(self._io.handles[d.CAMERA_SEMAPHORE]), 1)
        self._pass()
        return self.ring.write_index == before + 1

    def _replace(self, parameters: d.Parameters) -> None:
        arrays = self._arrays
        if parameters is not arrays.parameters:
            self._arrays = replace(arrays, parameters=parameters)

    def _look_back(self, record: int, found: Arrays) -> None:
        """Put what the loop remembers by its ring there."""
        for name in ("signal", "flags", "img"):
            values = found.get(f"history.{name}", np.zeros(0))
            n = min(len(values), self.ring.capacity)
            if n:
                rows = np.arange(record - n, record) % self.ring.capacity
                self.ring.fields[name][rows] = values[len(values) - n :]
        self.ring.index[0] = record

    def _pass(self) -> None:
        a = self._arrays
        run(a.control, a.parameters, a.state, self._io, a.ring_arrays)
