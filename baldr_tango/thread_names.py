"""Names of threads as the operating system shows them."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

LONGEST: Final = 15
"""Characters of a name that the kernel keeps."""


def show_thread_name() -> None:
    """Tell the kernel the name of the calling thread, for ``top -H``, ``ps`` and ``perf``; cut to `LONGEST`.

    Python does it by itself from 3.14 on.
    """
    with suppress(OSError):
        name = threading.current_thread().name.encode("ascii", "replace")[:LONGEST]
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_bytes(name)
