"""How kernels are compiled.

``fastmath=True`` would promise "no NaN" and turn an ``isfinite`` guard into ``True``; the subset
below keeps the guards and still lets sums vectorise.
"""

from __future__ import annotations

from typing import Any, Final

import numba

JIT_DISABLED: Final = bool(numba.config.DISABLE_JIT)
"""True when ``NUMBA_DISABLE_JIT`` asks for plain Python."""

kernel: Any = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
"""Compile a function for the real-time path: no GIL, cached on disk, guards intact."""

exact_kernel: Any = numba.njit(nogil=True, cache=True)
"""Compile a function whose floating-point order must stay as written."""
