"""POSIX named semaphores of a stream, through the C library.

Waits are cut into slices because a stream can be re-created under a waiter: the server of the stream then
runs `sem_init` on the semaphore, which forgets who waits, and a wait without bound never returns.

The same `sem_init` leaves lasting damage behind (seen with glibc 2.36). glibc counts the waiters next to the
value; a waiter that `sem_init` forgot still signs off when it gives up, which makes the count wrap to
2^32 - 1. The next waiter makes it 0, and a post that finds 0 waiters wakes nobody: from then on *every* wait
on this semaphore sleeps until its time-out, even with a post to take, and opening it again does not help.
`repair` puts the count right; opening a stream does it for all its semaphores.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams.layout import SEMAPHORE_CAP

WAIT_SLICE_NS: Final = 50_000_000
"""Longest uninterrupted sleep inside `Semaphore.wait` [ns]."""

SEMAPHORE_MODE: Final = 0o644
"""File mode of a new semaphore, as the library sets it."""

_CLOCK_MONOTONIC: Final = 1

# 64-bit glibc: one word of 64 bits, the value in its lower, the waiters in its upper half.
_WAITERS_ARE_READABLE: Final = (
    platform.libc_ver()[0] == "glibc" and sys.maxsize > 2**32 and sys.byteorder == "little"
)
_WAITERS_OFFSET: Final = 4


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sem_open.restype = ctypes.c_void_p
_libc.sem_unlink.argtypes = [ctypes.c_char_p]
_libc.sem_init.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
_libc.sem_getvalue.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)]
_libc.sem_clockwait.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Timespec)]
for _function in (_libc.sem_post, _libc.sem_trywait, _libc.sem_close):
    _function.argtypes = [ctypes.c_void_p]


class Semaphore:
    """One named semaphore.

    Methods may be called from several threads; `close` waits for those inside (at most one slice). Compiled
    code that uses `address` is unknown to `close` and must have left first.
    """

    def __init__(self, name: str, address: int) -> None:
        """Wrap an open semaphore; use `Semaphore.open`."""
        self.name = name
        self.address = address
        """Address of the `sem_t`, for compiled code; 0 after `close`."""
        self._condition = threading.Condition()
        self._users = 0

    @classmethod
    def open(cls, name: str, create: bool = False, reset: bool = False) -> Semaphore:
        """Open a semaphore by its POSIX name, such as "/.dev.shm.baldr1_sem01".

        Parameters
        ----------
        create : make a missing one, with value 0.
        reset : set an existing one to 0 with `sem_init`, as the library does when it re-creates a stream.

        Raises
        ------
        BackendError : missing, or not allowed.
        """
        encoded = os.fsencode(name)
        address = _libc.sem_open(ctypes.c_char_p(encoded), 0)
        if address is None and create and ctypes.get_errno() == errno.ENOENT:
            address = _libc.sem_open(
                ctypes.c_char_p(encoded), os.O_CREAT, ctypes.c_uint(SEMAPHORE_MODE), ctypes.c_uint(0)
            )
        if address is None:
            raise BackendError(f"semaphore {name}: cannot be opened: {os.strerror(ctypes.get_errno())}")
        semaphore = cls(name, address)
        if reset:
            semaphore.reset()
        return semaphore

    @staticmethod
    def unlink(name: str) -> bool:
        """Remove a semaphore's name; False when there was none. Those who have it open keep it."""
        if _libc.sem_unlink(os.fsencode(name)) == 0:
            return True
        if ctypes.get_errno() == errno.ENOENT:
            return False
        raise BackendError(f"semaphore {name}: cannot be removed: {os.strerror(ctypes.get_errno())}")

    def wait(self, timeout_s: float) -> bool:
        """Take one post, waiting for it at most `timeout_s` on CLOCK_MONOTONIC; False when none came.

        Signals do not shorten the wait; their Python handlers run within one slice.

        Raises
        ------
        RequestError : `timeout_s` is not finite.
        BackendError : the semaphore was closed meanwhile.
        """
        if not math.isfinite(timeout_s):
            raise RequestError(f"semaphore {self.name}: time-out {timeout_s} s, expected a finite number")
        end_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            with self._used() as address:
                until_ns = min(end_ns, time.monotonic_ns() + WAIT_SLICE_NS)
                # A sleeper that `sem_init` forgot times out even though there is a post to take.
                if self._wait_until(address, until_ns) or self._take(address):
                    return True
                self._repair(address)
            if time.monotonic_ns() >= end_ns:
                return False

    def try_wait(self) -> bool:
        """Take one post if there is one."""
        with self._used() as address:
            return self._take(address)

    def post(self, cap: int = SEMAPHORE_CAP) -> bool:
        """Add one post; False when the value has reached `cap` already."""
        with self._used() as address:
            if self._value(address) >= cap:
                return False
            if _libc.sem_post(address) != 0:
                raise self._failure("post")
            return True

    def value(self) -> int:
        """Count the posts that nobody has taken yet."""
        with self._used() as address:
            return self._value(address)

    def drain(self) -> int:
        """Take all posts without waiting; return how many there were."""
        taken = 0
        with self._used() as address:
            # The bound keeps a poster that is faster than us from holding us here for ever.
            pending = self._value(address)
            while taken < pending and self._take(address):
                taken += 1
        return taken

    def reset(self) -> None:
        """Set the value to 0 with `sem_init`. Who waits in that moment is forgotten (see the module)."""
        with self._used() as address:
            if _libc.sem_init(address, 1, 0) != 0:
                raise self._failure("reset")

    def has_lost_waiters(self) -> bool:
        """Say whether a post would wake nobody because of an earlier `sem_init` (see the module).

        Visible only while nobody waits; always False where the C library is not glibc on a 64-bit machine.
        """
        with self._used() as address:
            return self._has_lost_waiters(address)

    def repair(self) -> bool:
        """Put a wrapped count of waiters right, keeping the value; True if it was wrong.

        Meant for the one consumer of the semaphore, while it is not waiting.
        """
        with self._used() as address:
            return self._repair(address)

    def close(self) -> None:
        """Give the semaphore back; a second call does nothing."""
        with self._condition:
            address, self.address = self.address, 0
            # A signal handler may close what its own thread waits on: that one cannot leave first. The
            # mapping is then kept until the process ends, since taking it away would crash the waiter.
            left = self._condition.wait_for(lambda: self._users == 0, timeout=20e-9 * WAIT_SLICE_NS)
            if address and left:
                _libc.sem_close(address)

    @contextmanager
    def _used(self) -> Iterator[int]:
        """Keep the memory of the semaphore mapped while a call uses it."""
        with self._condition:
            if not self.address:
                raise BackendError(f"semaphore {self.name}: is closed")
            address = self.address
            self._users += 1
        try:
            yield address
        finally:
            with self._condition:
                self._users -= 1
                self._condition.notify_all()

    def _wait_until(self, address: int, until_ns: int) -> bool:
        deadline = _Timespec(*divmod(max(until_ns, 0), 1_000_000_000))
        if _libc.sem_clockwait(address, _CLOCK_MONOTONIC, ctypes.byref(deadline)) == 0:
            return True
        if ctypes.get_errno() in (errno.ETIMEDOUT, errno.EINTR):
            return False
        raise self._failure("wait")

    def _take(self, address: int) -> bool:
        while _libc.sem_trywait(address) != 0:
            if ctypes.get_errno() == errno.EAGAIN:
                return False
            if ctypes.get_errno() != errno.EINTR:
                raise self._failure("wait")
        return True

    def _value(self, address: int) -> int:
        value = ctypes.c_int()
        if _libc.sem_getvalue(address, ctypes.byref(value)) != 0:
            raise self._failure("value")
        return value.value

    @staticmethod
    def _has_lost_waiters(address: int) -> bool:
        if not _WAITERS_ARE_READABLE:
            return False
        return ctypes.c_uint32.from_address(address + _WAITERS_OFFSET).value >= 2**31

    def _repair(self, address: int) -> bool:
        if not self._has_lost_waiters(address):
            return False
        if _libc.sem_init(address, 1, self._value(address)) != 0:
            raise self._failure("repair")
        return True

    def _failure(self, action: str) -> BackendError:
        return BackendError(f"semaphore {self.name}: {action} failed: {os.strerror(ctypes.get_errno())}")
