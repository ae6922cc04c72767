"""What the device server does to Python itself, so that many clients do not hold each other up."""

from __future__ import annotations

import atexit
import ctypes
import mmap
import sys
from typing import Final

import numpy as np

from baldr_tango.kernels.jit import JIT_DISABLED

_ALL_FREE: Final = -1


class _Allocator(ctypes.Structure):
    """``PyObjectArenaAllocator`` of Python's C interface."""

    _fields_ = (
        ("context", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


class FrameMemory:
    """Keeps the memory for frames of threads that enter Python for a moment.

    How, and why, is told in `baldr_tango.kernels.frame_memory`. There is one of a process.
    """

    def __init__(self) -> None:
        self._state = np.zeros(0, dtype=np.int64)
        self._before = _Allocator()
        self._ours: _Allocator | None = None

    @property
    def is_installed(self) -> bool:
        """True while it is in place."""
        return self._ours is not None

    @property
    def free_pieces(self) -> int:
        """Number of pieces that nobody uses."""
        from baldr_tango.kernels.frame_memory import FREE

        return (int(self._state[FREE]) & (1 << 64) - 1).bit_count()

    def install(self) -> bool:
        """Put it in place until the process ends; False where Python has nothing to gain, or no way in."""
        if self.is_installed:
            return True
        if sys.version_info < (3, 11) or sys.implementation.name != "cpython" or JIT_DISABLED:
            return False
        from baldr_tango.kernels import frame_memory as memory

        base = _map_for_ever(memory.PIECES * memory.PIECE_BYTES)
        if not base:
            return False
        before = self._before
        ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(before))
        state = self._state = np.zeros(memory.WORDS, dtype=np.int64)
        state[memory.FREE] = _ALL_FREE
        state[memory.BASE] = base
        state[memory.OLD_CONTEXT] = before.context or 0
        state[memory.OLD_ALLOCATE] = before.allocate
        state[memory.OLD_FREE] = before.free
        self._ours = _Allocator(state.ctypes.data, memory.allocate.address, memory.free.address)
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(self._ours))
        # At the end of the process compiled functions go before the last thread states do.
        atexit.register(self.remove)
        return True

    def remove(self) -> None:
        """Put Python's own functions back; a piece in use is unmapped by these, being whole pages."""
        if self.is_installed:
            ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(self._before))
            self._ours = None
            atexit.unregister(self.remove)


def _map_for_ever(size: int) -> int:
    """Map memory that is never given back as a whole; return its address, 0 when there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(None, size, access, kind, -1, 0)
    return 0 if address is None or address == ctypes.c_void_p(-1).value else int(address)


frame_memory: Final = FrameMemory()
"""That of this process."""
