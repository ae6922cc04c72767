"""Loads and stores that another thread can rely on.

Inside compiled code a plain load from memory that another thread writes can be hoisted out of a
loop; these cannot. All of them work on int64 arrays; x86 and ARM guarantee that an aligned 8-byte
access is never torn.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from baldr_tango.kernels.jit import JIT_DISABLED, exact_kernel


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


@intrinsic
def _load(typingctx: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, ordering="acquire", align=8)

    return types.int64(array, types.intp), codegen


@intrinsic
def _store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], pointer, ordering="release", align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def _pause(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


if JIT_DISABLED:

    def load_acquire(array: Any, index: int) -> int:
        """Read ``array[index]`` as another thread last released it."""
        return int(array[index])

    def store_release(array: Any, index: int, value: int) -> None:
        """Write ``array[index]`` after everything written before."""
        array[index] = value

    def fence() -> None:
        """Order all memory accesses before and after."""

else:

    @exact_kernel
    def load_acquire(array, index):
        """Read ``array[index]`` as another thread last released it."""
        return _load(array, index)

    @exact_kernel
    def store_release(array, index, value):
        """Write ``array[index]`` after everything written before."""
        _store(array, index, value)

    @exact_kernel
    def fence():
        """Order all memory accesses before and after."""
        _pause()
