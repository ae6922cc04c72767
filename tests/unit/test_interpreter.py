"""Memory for the frames of threads that enter Python for a moment; each case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from baldr_tango.kernels.jit import JIT_DISABLED

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(JIT_DISABLED, reason="the allocator exists compiled only"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 keeps its frames elsewhere"),
]

PRELUDE = """
import ctypes, json, sys, threading
from devices.interpreter import frame_memory

def in_threads(number, work):
    '''Run it in as many threads at once; return what is left of the pieces while all of them wait.'''
    inside, leave = threading.Barrier(number + 1), threading.Event()
    def run():
        work()
        inside.wait()
        leave.wait()
    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    inside.wait()
    free = frame_memory.free_pieces
    leave.set()
    for thread in threads:
        thread.join()
    return free

def deep(levels):
    return 0 if levels == 0 else 1 + deep(levels - 1)
"""


def run_python(script: str) -> Any:
    """Run a script behind `PRELUDE`; return what it leaves as ``seen``."""
    text = f"{PRELUDE}\n{textwrap.dedent(script)}\njson.dump(seen, sys.stdout)\n"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_thread_takes_a_piece_and_gives_it_back() -> None:
    seen = run_python(
        """
        installed = frame_memory.install(), frame_memory.install()
        seen = [installed, in_threads(10, lambda: None), frame_memory.free_pieces]
        """
    )
    assert seen == [[True, True], 54, 64]


def test_more_threads_than_pieces_get_memory_as_before() -> None:
    seen = run_python(
        """
        frame_memory.install()
        results = []
        free = in_threads(100, lambda: results.append(deep(100)))
        seen = [free, frame_memory.free_pieces, set(results) == {100}]
        """
    )
    assert seen == [0, 64, True]


def test_deep_calls_and_large_objects_use_python_s_own_memory() -> None:
    seen = run_python(
        """
        frame_memory.install()
        results = []
        for _ in range(50):
            in_threads(4, lambda: results.append(deep(900)))
        kept = [[number] * 50 for number in range(50_000)]
        del kept
        seen = [len(results), set(results) == {900}, frame_memory.free_pieces]
        """
    )
    assert seen == [200, True, 64]


def test_threads_that_come_from_c_without_a_state_map_nothing() -> None:
    """As a request of a Tango client does: libc's thread calls a Python function."""
    seen = run_python(
        """
        libc = ctypes.CDLL(None)
        START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
        calls = []
        start = START(lambda argument: calls.append(frame_memory.free_pieces))

        def call():
            thread = ctypes.c_ulong()
            assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
            libc.pthread_join(thread, None)

        frame_memory.install()
        for _ in range(100):
            call()
        seen = [len(calls), set(calls) <= {62, 63}, frame_memory.free_pieces]
        """
    )
    assert seen == [100, True, 64]


def test_pieces_in_use_survive_the_removal_and_the_end() -> None:
    seen = run_python(
        """
        frame_memory.install()
        inside, leave = threading.Event(), threading.Event()
        results = []
        def run(thread_ends):
            inside.set()
            if thread_ends:
                leave.wait()
                results.append(deep(200))
            else:
                threading.Event().wait()
        ending = threading.Thread(target=run, args=(True,))
        ending.start()
        inside.wait()
        threading.Thread(target=run, args=(False,), daemon=True).start()
        frame_memory.remove()
        leave.set()
        ending.join()
        in_threads(20, lambda: results.append(deep(10)))
        seen = [sorted(set(results)), frame_memory.is_installed]
        """
    )
    assert seen == [[10, 200], False]
