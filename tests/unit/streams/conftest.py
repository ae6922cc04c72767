"""A shared-memory directory of its own for every test, and programs that run beside it."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SHM = Path("/dev/shm")
_number = itertools.count()


@pytest.fixture
def shm_dir() -> Iterator[Path]:
    """A directory below /dev/shm, removed afterwards with its semaphores."""
    if not os.access(SHM, os.W_OK):
        pytest.skip("/dev/shm is not writable")
    directory = SHM / f"baldr_test_{os.getpid()}_{next(_number)}"
    directory.mkdir(mode=0o700)
    yield directory
    shutil.rmtree(directory)
    for file in SHM.glob(f"sem..dev.shm.{directory.name}.*"):
        file.unlink(missing_ok=True)


@pytest.fixture
def shm_name() -> Iterator[str]:
    """A stream name for /dev/shm itself, for programs that know no other directory; removed afterwards."""
    if not os.access(SHM, os.W_OK):
        pytest.skip("/dev/shm is not writable")
    name = f"baldr_test_{os.getpid()}_{next(_number)}"
    yield name
    (SHM / f"{name}.im.shm").unlink(missing_ok=True)
    for file in SHM.glob(f"sem..dev.shm.{name}_sem*"):
        file.unlink(missing_ok=True)


Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def python_program() -> Iterator[Program]:
    """Start Python programs in processes of their own; the survivors are stopped afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", text, *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition, at most 10 s."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 10.0
        while not condition():
            assert time.monotonic() < end, "condition not met within 10 s"
            time.sleep(1e-3)

    return wait
