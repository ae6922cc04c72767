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

kernel: Any = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
"""Compile a function for the real-time path: no GIL, cached on disk, guards intact."""

exact_kernel: Any = numba.njit(nogil=True, cache=True)
"""Compile a function whose floating-point order must stay as written."""
