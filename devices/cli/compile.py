"""``baldr compile``: compile the loop now, so that the next start need not."""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import version

from baldr_tango.kernel_cache import cache_directory, has_kernel


def is_compiled() -> bool:
    """Tell whether the loop was compiled already; quick, since nothing of the compiler is imported."""
    return has_kernel(cache_directory(version("numba")), "loop.run")


def run(options: argparse.Namespace) -> int:
    """Compile the loop, unless it was; the exit status is 0."""
    from baldr_tango.rtc.compilation import compile_ahead
    from baldr_tango.rtc.fitness import compile_pacing

    began = time.monotonic()
    compile_ahead()
    compile_pacing()
    sys.stdout.write(f"loop ready after {time.monotonic() - began:.1f} s\n")
    return 0
