"""Streams without names, and frames for them: what a measurement works on instead of camera and mirror."""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.libc import address_of
from baldr_tango.kernels.simulation_streams import FIRST_CHANNEL, StreamTable
from baldr_tango.rtc.arrays import LoopArrays
from baldr_tango.rtc.compilation import buffers
from baldr_tango.rtc.loop import WAIT_NS

_NO_LIMIT: Final = 1e30
_LIGHT_ADU: Final = 60000.0
_SEMAPHORE_WORDS: Final = 4
_DM_SEMAPHORES: Final = 11
"""Those of a DM channel, its log semaphore included."""


class PrivateStreams:
    """Two files in memory, laid out like a camera stream and a DM channel; nobody else can open them."""

    def __init__(self) -> None:
        self._semaphore = np.zeros(_SEMAPHORE_WORDS, dtype=np.int64)  # a semaphore that nobody has posted
        self._trigger = np.zeros(_SEMAPHORE_WORDS, dtype=np.int64)
        self.semaphore: int = address_of(self._semaphore)
        """Address of the semaphore on which the loop waits for frames."""

        self._descriptors: list[int] = []

    def open(self, arrays: LoopArrays, frame: NDArray[np.int32]) -> tuple[d.Io, StreamTable]:
        """Give what the loop needs of its streams, and the camera stream as its writer sees it.

        Parameters
        ----------
        arrays : of the loop that will use them
        frame : (P,) that the camera stream holds to begin with
        """
        camera, mirror = os.memfd_create("self-test-camera"), os.memfd_create("self-test-mirror")
        self._descriptors += [camera, mirror]
        handles = np.zeros(d.N_HANDLES, dtype=np.int64)
        handles[d.CAMERA_FD], handles[d.DM_FD] = camera, mirror
        handles[d.CAMERA_SEMAPHORE] = self.semaphore
        handles[d.TRIGGER_SEMAPHORE] = address_of(self._trigger)
        handles[d.WAIT_NS] = WAIT_NS
        io = buffers(arrays, handles, np.full(_DM_SEMAPHORES, address_of(self._trigger), dtype=np.int64))
        io.raw[:] = frame
        os.pwrite(camera, io.frame_words.tobytes(), 0)
        return io, stream_table(camera)

    def close(self) -> None:
        """Close the files; they are gone with that. Only when nobody uses them any more."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def stream_table(camera: int) -> StreamTable:
    """The camera stream of one beam behind a descriptor, without semaphores."""
    return StreamTable(
        descriptors=np.full((1, FIRST_CHANNEL), camera, dtype=np.int64),
        triggers=np.zeros(1, dtype=np.int64),
        posts=np.zeros((1, 0), dtype=np.int64),
        cap=0,
        data_offset=d.HEADER_WORDS * 8,
        cnt0_offset=d.COUNTS_OFFSET,
        write_offset=d.WRITE_WORD * 8,
    )


def stream_scratch() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write flag and counts of a camera stream, for its writer."""
    return np.zeros(8, dtype=np.uint8), np.zeros((1, 2), dtype=np.int64)


def open_limits(parameters: d.Parameters, slot: int) -> None:
    """Close both loops of private parameters, with limits that nothing reaches: all is computed, always."""
    switches, limits = parameters.switches[slot], parameters.limits[slot]
    switches[[d.CLOSE_LO, d.CLOSE_HO]] = 1
    switches[d.PAUSE] = 0
    switches[[d.FROZEN_FRAMES, d.RUNAWAY_LEVEL]] = 0
    limits[[d.COMMAND_LIMIT, d.LO_LIMIT, d.HO_LIMIT, d.SATURATION, d.NEGATIVE]] = _NO_LIMIT


def made_up_frames(parameters: d.Parameters, slot: int) -> NDArray[np.int32]:
    """Make frames (m, P) with enough light, one burst of reads long; without bursts, four unlike ones."""
    reads = int(parameters.switches[slot, d.BURST])
    weights = parameters.flux_weights[slot]
    wanted = max(_LIGHT_ADU, 4.0 * float(parameters.limits[slot, d.FLUX_LIMIT]))
    light = max(wanted / max(float(weights.sum()), 1.0), 1.0)
    steps = np.arange(1, reads + 1) if reads > 1 else 1.0 + 0.01 * np.arange(4)
    return np.round(parameters.dark[slot] + light * steps[:, np.newaxis]).astype(np.int32)
