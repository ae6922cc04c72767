"""How kernels are compiled, and where the compiled code is kept.

``fastmath=True`` would promise "no NaN" and turn an ``isfinite`` guard into ``True``; the subset
below keeps the guards and still lets sums vectorise.

numba looks only at the file of the outermost function to decide whether its cache is stale, and the
real-time loop is spread over several files. The cache therefore lives in a directory named after a
digest of all kernel sources: an edit or an upgrade can never run yesterday's machine code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import numba
from llvmlite.binding import get_host_cpu_name
from numba.core import config as numba_config
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

from baldr_tango import kernel_cache

_log: Final = logging.getLogger("baldr.kernels")

JIT_DISABLED: Final = bool(numba_config.DISABLE_JIT)  # type: ignore[attr-defined]
"""True when ``NUMBA_DISABLE_JIT`` asks for plain Python."""

_DIRECTORY: Final = kernel_cache.cache_directory(numba.__version__)

KERNELS_DIGEST: Final = _DIRECTORY.name
"""What the compiled code is made from, in a few characters."""

HOST_CPU: Final[str] = get_host_cpu_name()
"""Processor that it is made for: others may round differently."""


def _claim() -> bool:
    """Tell whether compiled code can be kept on disk; say why not."""
    if JIT_DISABLED:
        return False
    try:
        kernel_cache.claim(_DIRECTORY)
    except OSError as error:
        _log.warning("compiled kernels are not kept, each start compiles them for half a minute: %s", error)
        return False
    numba_config.CACHE_DIR = str(_DIRECTORY)  # type: ignore[attr-defined]
    return True


_IS_KEPT: Final = _claim()


class _Cache(FunctionCache):
    """numba's cache, written by one process at a time; what cannot be written is done without."""

    _has_warned = False

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code of one signature on disk."""
        try:
            with kernel_cache.saving(_DIRECTORY):
                super().save_overload(sig, data)
        except OSError as error:
            if not _Cache._has_warned:
                _Cache._has_warned = True
                _log.warning("compiled kernels cannot be kept on disk: %s", error)


def _compiler(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function and keeps the code on disk."""
    compiled: Any = numba.njit(**options)

    def decorate(function: Any) -> Any:
        dispatcher = compiled(function)
        if _IS_KEPT:
            # As Dispatcher.enable_caching does, with our class.
            dispatcher._cache = _Cache(function)
        return dispatcher

    return decorate


_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}

kernel: Any = _compiler(nogil=True, _nrt=False, fastmath=_FAST, error_model="numpy")
"""Compile a function for the real-time path: no GIL, cached on disk, guards intact.

``_nrt=False`` leaves out numba's reference counts. They cost the loop more than all its arithmetic: two
thousand calls per frame for the arrays of its argument groups. In return nothing may be allocated, which
the compiler now checks; the arrays belong to the Python caller. ``error_model="numpy"``: a division by zero
gives infinity or NaN, as in numpy, where Python's rule would put a test and an exception into every loop
that divides, which then cannot be vectorised.
"""

allocating_kernel: Any = _compiler(nogil=True, fastmath=_FAST, error_model="numpy")
"""As `kernel`, for a function that allocates its work space before it enters its loop."""

exact_kernel: Any = _compiler(nogil=True, _nrt=False, fastmath=False, error_model="numpy")
"""Compile a function whose floating-point order must stay as written.

Said explicitly: without it numba hands down the flags of the first caller, and keeps them in the cache.
"""

part_of_kernel: Any = numba.njit(inline="always")
"""A part of a kernel that takes whole groups of arrays.

Groups have hundreds of members for the compiler. Handing them from function to function costs more than
the work itself: microseconds per frame, minutes of compilation. Such parts are pasted into their caller.
"""


def c_function(signature: Any) -> Callable[[Any], Any]:
    """Return a decorator: a function that C calls by its address, with arguments of the given types."""

    def decorate(function: Any) -> Any:
        kind = signature.args, signature.return_type
        compiled: Any = CFunc(function, kind, locals={}, options={"error_model": "numpy", "_nrt": False})
        if _IS_KEPT:
            # As CFunc.enable_caching does, with our class.
            compiled._cache = _Cache(function)
        compiled.compile()
        return compiled

    return decorate
