"""Memory for the Python frames of threads that come and go, kept instead of mapped anew.

A thread that enters Python from a C++ library without a thread state of its own gets one for that call, and
from Python 3.11 on with it 16 KiB for its frames, mapped from the system and unmapped at the end. A Tango
request enters three or four times. Each of those mappings stops the page faults of all other threads, and
its end interrupts all other CPUs of the process. The functions here stand before Python's own: they hand
out pieces of that size from memory that stays, and leave every other request to Python's own functions.

They exist compiled only.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from baldr_tango.kernels.jit import c_function

PIECE_BYTES: Final = 16384
"""What Python asks for, for the first frames of a thread."""

PIECES: Final = 64
"""Pieces kept: a bit of one word tells which are free. Further ones come from the system, as before."""

FREE: Final = 0
"""Bits of the pieces that are free; the first word, which is changed by atomic operations only."""

BASE: Final = 1
"""Address of the first piece."""

OLD_CONTEXT: Final = 2
OLD_ALLOCATE: Final = 3
OLD_FREE: Final = 4
"""Addresses of the functions that stood here before, and what they are given."""

WORDS: Final = 5

_I64 = ir.IntType(64)
_STATE = types.CPointer(types.int64)


@intrinsic
def _take_piece(typingctx: Any, state: Any) -> Any:
    """Clear the lowest bit that is set in the first word; its number, 64 when none is."""

    def codegen(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, zero = ir.Constant(_I64, 1), ir.Constant(_I64, 0)
        first = builder.load_atomic(args[0], ordering="acquire", align=8)
        seen = cgutils.alloca_once_value(builder, first)
        attempt = builder.append_basic_block("attempt")
        done = builder.append_basic_block("done")
        builder.branch(attempt)
        builder.position_at_end(attempt)
        before = builder.load(seen)
        after = builder.and_(before, builder.sub(before, one))
        exchanged = builder.cmpxchg(args[0], before, after, "acq_rel", "acquire")
        builder.store(builder.extract_value(exchanged, 0), seen)
        has_none = builder.icmp_signed("==", before, zero)
        builder.cbranch(builder.or_(builder.extract_value(exchanged, 1), has_none), done, attempt)
        builder.position_at_end(done)
        return builder.cttz(before, ir.Constant(ir.IntType(1), 0))

    return types.int64(_STATE), codegen


@intrinsic
def _give_piece(typingctx: Any, state: Any, piece: Any) -> Any:
    """Set a bit of the first word."""

    def codegen(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.atomic_rmw("or", args[0], builder.shl(ir.Constant(_I64, 1), args[1]), "acq_rel")
        return target.get_dummy_value()

    return types.void(_STATE, types.int64), codegen


@intrinsic
def _old_allocate(typingctx: Any, function: Any, context: Any, size: Any) -> Any:
    def codegen(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_I64, [_I64, _I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def _old_free(typingctx: Any, function: Any, context: Any, address: Any, size: Any) -> Any:
    def codegen(target: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, _I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return target.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@c_function(types.int64(_STATE, types.int64))
def allocate(state, size):
    """Return the address of a free piece, or what Python's own function returns."""
    if size == PIECE_BYTES:
        piece = _take_piece(state)
        if piece < PIECES:
            return state[BASE] + piece * PIECE_BYTES
    return _old_allocate(state[OLD_ALLOCATE], state[OLD_CONTEXT], size)


@c_function(types.void(_STATE, types.int64, types.int64))
def free(state, address, size):
    """Keep a piece for the next thread; hand everything else to Python's own function."""
    offset = address - state[BASE]
    if offset >= 0 and offset < PIECES * PIECE_BYTES:
        _give_piece(state, offset // PIECE_BYTES)
    else:
        _old_free(state[OLD_FREE], state[OLD_CONTEXT], address, size)
