"""How kernels are compiled, and where the compiled code is kept.

``fastmath=True`` would promise "no NaN" and turn an ``isfinite`` guard into ``True``; the subset
below keeps the guards and still lets sums vectorise.

numba looks only at the file of the outermost function to decide whether its cache is stale, and the
real-time loop is spread over several files. The cache therefore lives in a directory named after a
digest of all kernel sources: an edit or an upgrade can never run yesterday's machine code.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import numba
from numba.core import config as numba_config

JIT_DISABLED: Final = bool(numba_config.DISABLE_JIT)  # type: ignore[attr-defined]
"""True when ``NUMBA_DISABLE_JIT`` asks for plain Python."""


def _cache_directory() -> Path:
    base = (
        os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    )
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return Path(base) / "baldr_tango" / digest.hexdigest()[:16]


if not JIT_DISABLED:
    numba_config.CACHE_DIR = str(_cache_directory())  # type: ignore[attr-defined]

_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}
_njit: Any = numba.njit  # its stubs do not know the option _nrt

kernel: Any = _njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
"""Compile a function for the real-time path: no GIL, cached on disk, guards intact.

``_nrt=False`` leaves out numba's reference counts. They cost the loop more than all its arithmetic: two
thousand calls per frame for the arrays of its argument groups. In return nothing may be allocated, which
the compiler now checks; the arrays belong to the Python caller.
"""

allocating_kernel: Any = _njit(nogil=True, cache=True, fastmath=_FAST)
"""As `kernel`, for a function that allocates its work space before it enters its loop."""

exact_kernel: Any = _njit(nogil=True, cache=True, _nrt=False, fastmath=False)
"""Compile a function whose floating-point order must stay as written.

Said explicitly: without it numba hands down the flags of the first caller, and keeps them in the cache.
"""

part_of_kernel: Any = _njit(inline="always")
"""A part of a kernel that takes whole groups of arrays.

Groups have hundreds of members for the compiler. Handing them from function to function costs more than
the work itself: microseconds per frame, minutes of compilation. Such parts are pasted into their caller.
"""
