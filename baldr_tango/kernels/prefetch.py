"""Bringing memory into the cache before it is needed, without waiting for it."""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from baldr_tango.kernels.jit import JIT_DISABLED, kernel
from baldr_tango.kernels.libc import address_of

_LINE: Final = 64
_FOR_READING: Final = 0
"""Taken for writing, a line would go to the first cache and push out what the next frame needs there."""
_SECOND_CACHE: Final = 2
_DATA: Final = 1

_I32 = ir.IntType(32)
_POINTER = ir.IntType(8).as_pointer()


@intrinsic
def _prefetch(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        declared = ir.FunctionType(ir.VoidType(), [_POINTER, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, declared, "llvm.prefetch")
        how = [ir.Constant(_I32, word) for word in (_FOR_READING, _SECOND_CACHE, _DATA)]
        builder.call(function, [builder.inttoptr(args[0], _POINTER), *how])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


if JIT_DISABLED:

    def prefetch_row(array: Any, row: int) -> None:
        """Ask for a row of an array that is about to be written; array : (rows, n), contiguous."""

else:

    @kernel
    def prefetch_row(array, row):
        """Ask for a row of an array that is about to be written; array : (rows, n), contiguous."""
        nbytes = array.strides[0]
        address = address_of(array) + row * nbytes
        for offset in range(0, nbytes, _LINE):
            _prefetch(address + offset)
        _prefetch(address + nbytes - 1)
