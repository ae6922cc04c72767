"""Names of threads, as the kernel has them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from baldr_tango.thread_names import LONGEST, show_thread_name


@pytest.mark.parametrize("name", ["rtc-1", "telemetry-beam4", "housekeeping-beam-with-a-long-name", "größe"])
def test_the_kernel_knows_the_name_of_the_thread(name):
    found = []

    def run():
        show_thread_name()
        found.append(Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().rstrip("\n"))

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    assert found == [name.encode("ascii", "replace")[:LONGEST].decode()]
