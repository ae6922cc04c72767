"""The few libc calls of the real-time path, callable from compiled code and from Python alike.

Streams are read and written with ``pread``/``pwrite`` and never through a mapping: a mapping kills
the process (SIGBUS) when another program truncates the file. Addresses are plain integers
(`address_of` of an array, ``Semaphore.address`` of a semaphore).
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from baldr_tango.kernels.jit import JIT_DISABLED, exact_kernel

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
_TIMER_ABSTIME: Final = 1
_NS: Final = 1_000_000_000

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_POINTER = ir.IntType(8).as_pointer()


def _call(builder: Any, name: str, result: Any, arguments: list[tuple[Any, Any]]) -> Any:
    signature = ir.FunctionType(result, [kind for kind, _ in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [value for _, value in arguments])


def _timespec(builder: Any) -> tuple[Any, Any]:
    """Reserve a timespec on the stack; return it as (two int64, void pointer)."""
    spec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
    return spec, builder.bitcast(spec, _POINTER)


def _fill_timespec(builder: Any, spec: Any, nanoseconds: Any) -> None:
    ns = ir.Constant(_I64, _NS)
    zero = ir.Constant(_I32, 0)
    builder.store(builder.sdiv(nanoseconds, ns), builder.gep(spec, [zero, zero]))
    builder.store(builder.srem(nanoseconds, ns), builder.gep(spec, [zero, ir.Constant(_I32, 1)]))


def _clock(number: int) -> Any:
    @intrinsic
    def clock(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            spec, pointer = _timespec(builder)
            _call(builder, "clock_gettime", _I32, [(_I32, ir.Constant(_I32, number)), (_POINTER, pointer)])
            zero = ir.Constant(_I32, 0)
            seconds = builder.load(builder.gep(spec, [zero, zero]))
            rest = builder.load(builder.gep(spec, [zero, ir.Constant(_I32, 1)]))
            return builder.add(builder.mul(seconds, ir.Constant(_I64, _NS)), rest)

        return types.int64(), codegen

    return clock


_monotonic = _clock(CLOCK_MONOTONIC)
_realtime = _clock(CLOCK_REALTIME)


@intrinsic
def _sleep_until(typingctx: Any, deadline: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        spec, pointer = _timespec(builder)
        _fill_timespec(builder, spec, args[0])
        null = ir.Constant(_POINTER, None)
        return _call(
            builder,
            "clock_nanosleep",
            _I32,
            [
                (_I32, ir.Constant(_I32, CLOCK_MONOTONIC)),
                (_I32, ir.Constant(_I32, _TIMER_ABSTIME)),
                (_POINTER, pointer),
                (_POINTER, null),
            ],
        )

    return types.int32(types.int64), codegen


@intrinsic
def _sem_wait_until(typingctx: Any, semaphore: Any, deadline: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        spec, pointer = _timespec(builder)
        _fill_timespec(builder, spec, args[1])
        return _call(
            builder,
            "sem_clockwait",
            _I32,
            [
                (_POINTER, builder.inttoptr(args[0], _POINTER)),
                (_I32, ir.Constant(_I32, CLOCK_MONOTONIC)),
                (_POINTER, pointer),
            ],
        )

    return types.int32(types.int64, types.int64), codegen


@intrinsic
def _sem_trywait(typingctx: Any, semaphore: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "sem_trywait", _I32, [(_POINTER, builder.inttoptr(args[0], _POINTER))])

    return types.int32(types.int64), codegen


@intrinsic
def _sem_post(typingctx: Any, semaphore: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "sem_post", _I32, [(_POINTER, builder.inttoptr(args[0], _POINTER))])

    return types.int32(types.int64), codegen


@intrinsic
def _sem_value(typingctx: Any, semaphore: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = cgutils.alloca_once_value(builder, ir.Constant(_I32, 0))
        _call(
            builder,
            "sem_getvalue",
            _I32,
            [
                (_POINTER, builder.inttoptr(args[0], _POINTER)),
                (_POINTER, builder.bitcast(value, _POINTER)),
            ],
        )
        return builder.load(value)

    return types.int32(types.int64), codegen


def _transfer(name: str) -> Any:
    @intrinsic
    def transfer(typingctx: Any, fd: Any, address: Any, nbytes: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _call(
                builder,
                name,
                _I64,
                [
                    (_I32, builder.trunc(args[0], _I32)),
                    (_POINTER, builder.inttoptr(args[1], _POINTER)),
                    (_I64, args[2]),
                    (_I64, args[3]),
                ],
            )

        return types.int64(types.int64, types.int64, types.int64, types.int64), codegen

    return transfer


_pread = _transfer("pread")
_pwrite = _transfer("pwrite")


@intrinsic
def _address(typingctx: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(view.data, _I64)

    return types.int64(array), codegen


if JIT_DISABLED:
    _libc = ctypes.CDLL(None, use_errno=True)
    for _name in ("sem_clockwait", "sem_trywait", "sem_post", "sem_getvalue"):
        getattr(_libc, _name).restype = ctypes.c_int

    class _Timespec(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))

    def monotonic_ns() -> int:
        """Return CLOCK_MONOTONIC [ns]."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def realtime_ns() -> int:
        """Return CLOCK_REALTIME, UTC since 1970 [ns]."""
        return time.time_ns()

    def sleep_until_ns(deadline: int) -> int:
        """Sleep until CLOCK_MONOTONIC reaches `deadline` [ns]; return 0, or an error number."""
        rest = deadline - monotonic_ns()
        if rest > 0:
            time.sleep(rest / _NS)
        return 0

    def sem_wait_until(semaphore: int, deadline: int) -> bool:
        """Wait for a semaphore until CLOCK_MONOTONIC reaches `deadline` [ns]; True when taken."""
        spec = _Timespec(deadline // _NS, deadline % _NS)
        return bool(
            _libc.sem_clockwait(ctypes.c_void_p(int(semaphore)), CLOCK_MONOTONIC, ctypes.byref(spec)) == 0
        )

    def sem_trywait(semaphore: int) -> bool:
        """Take one post of a semaphore if there is any."""
        return bool(_libc.sem_trywait(ctypes.c_void_p(int(semaphore))) == 0)

    def sem_value(semaphore: int) -> int:
        """Return the posts a semaphore holds."""
        value = ctypes.c_int(0)
        _libc.sem_getvalue(ctypes.c_void_p(int(semaphore)), ctypes.byref(value))
        return value.value

    def sem_post(semaphore: int) -> None:
        """Add one post to a semaphore."""
        _libc.sem_post(ctypes.c_void_p(int(semaphore)))

    def pread(fd: int, address: int, nbytes: int, offset: int) -> int:
        """Read from a file into memory; return the bytes read (short at the file's end, -1 on error)."""
        buffer = (ctypes.c_char * int(nbytes)).from_address(int(address))
        try:
            return os.preadv(int(fd), [buffer], int(offset))
        except OSError:
            return -1

    def pwrite(fd: int, address: int, nbytes: int, offset: int) -> int:
        """Write memory into a file; return the bytes written (-1 on error)."""
        buffer = (ctypes.c_char * int(nbytes)).from_address(int(address))
        try:
            return os.pwritev(int(fd), [buffer], int(offset))
        except OSError:
            return -1

    def address_of(array: np.ndarray[Any, Any]) -> int:
        """Return the address of an array's first element."""
        return int(array.ctypes.data)

else:

    @exact_kernel
    def monotonic_ns():
        """Return CLOCK_MONOTONIC [ns]."""
        return _monotonic()

    @exact_kernel
    def realtime_ns():
        """Return CLOCK_REALTIME, UTC since 1970 [ns]."""
        return _realtime()

    @exact_kernel
    def sleep_until_ns(deadline):
        """Sleep until CLOCK_MONOTONIC reaches `deadline` [ns]; return 0, or an error number."""
        return _sleep_until(deadline)

    @exact_kernel
    def sem_wait_until(semaphore, deadline):
        """Wait for a semaphore until CLOCK_MONOTONIC reaches `deadline` [ns]; True when taken."""
        return _sem_wait_until(semaphore, deadline) == 0

    @exact_kernel
    def sem_trywait(semaphore):
        """Take one post of a semaphore if there is any."""
        return _sem_trywait(semaphore) == 0

    @exact_kernel
    def sem_value(semaphore):
        """Return the posts a semaphore holds."""
        return _sem_value(semaphore)

    @exact_kernel
    def sem_post(semaphore):
        """Add one post to a semaphore."""
        _sem_post(semaphore)

    @exact_kernel
    def pread(fd, address, nbytes, offset):
        """Read from a file into memory; return the bytes read (short at the file's end, -1 on error)."""
        return _pread(fd, address, nbytes, offset)

    @exact_kernel
    def pwrite(fd, address, nbytes, offset):
        """Write memory into a file; return the bytes written (-1 on error)."""
        return _pwrite(fd, address, nbytes, offset)

    @exact_kernel
    def address_of(array):
        """Return the address of an array's first element."""
        return _address(array)


@exact_kernel
def sem_post_capped(semaphore, cap):
    """Post a semaphore unless it already holds `cap` posts (the streams' convention is 10)."""
    if sem_value(semaphore) < cap:
        sem_post(semaphore)
