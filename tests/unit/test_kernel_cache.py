"""The directories of compiled kernels: used by several processes at once, removed when old and free."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from baldr_tango import kernel_cache
from baldr_tango.kernel_cache import cache_directory, claim, has_kernel, remove_old, saving
from tests.harness import wait_for

DAY_S = 86400.0
TIMEOUT_S = 120.0

ASK = """
import numpy
from baldr_tango.kernels.atomics import load_acquire
print({then}load_acquire(numpy.arange(9), 7))
"""
"""Import a small kernel, do something, compile and run it."""


@pytest.fixture(autouse=True)
def _end_claims() -> Iterator[None]:
    """Let go of what a test claims."""
    before = len(kernel_cache._claims)
    yield
    while len(kernel_cache._claims) > before:
        os.close(kernel_cache._claims.pop())


def _used(base: Path, name: str, days_ago: float) -> Path:
    """Make a directory of kernels that was last used some days ago."""
    directory = base / name
    (directory / "kernels_abc").mkdir(parents=True)
    (directory / "kernels_abc" / "loop.run-286.py311.1.nbc").write_bytes(b"code")
    (directory / "in_use").touch()
    then = time.time() - days_ago * DAY_S
    os.utime(directory / "in_use", (then, then))
    return directory


def _name(number: int) -> str:
    return f"{number:016x}"


def test_what_was_not_used_for_a_month_goes_and_the_rest_stays(tmp_path: Path) -> None:
    own = _used(tmp_path, _name(0), 99.0)
    younger, older = _used(tmp_path, _name(1), 29.0), _used(tmp_path, _name(2), 31.0)
    foreign = tmp_path / "notes"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    assert remove_old(own) == [older]
    assert sorted(tmp_path.iterdir()) == sorted([own, younger, foreign])


def test_of_many_the_newest_stay_and_all_that_are_fresh(tmp_path: Path) -> None:
    own = _used(tmp_path, _name(0), 0.0)
    fresh = [_used(tmp_path, _name(1 + n), 0.01 * n) for n in range(12)]
    aged = [_used(tmp_path, _name(100 + n), 2.0 + n) for n in range(3)]
    assert sorted(remove_old(own)) == aged
    assert all(directory.is_dir() for directory in [own, *fresh])


def test_few_aged_ones_stay(tmp_path: Path) -> None:
    own = _used(tmp_path, _name(0), 0.0)
    aged = [_used(tmp_path, _name(100 + n), 2.0 + n) for n in range(12)]
    assert sorted(remove_old(own)) == aged[kernel_cache.KEEP_NEWEST - 1 :]


def test_a_directory_without_claims_counts_from_its_own_time(tmp_path: Path) -> None:
    own, other, new = (tmp_path / _name(n) for n in range(3))
    for directory in (own, other, new):
        directory.mkdir()
    os.utime(other, (0, 0))
    assert remove_old(own) == [other]


def test_what_an_interrupted_removal_left_goes_too(tmp_path: Path) -> None:
    own = _used(tmp_path, _name(0), 0.0)
    (tmp_path / ".old-0000000000000001-4711").mkdir()
    remove_old(own)
    assert list(tmp_path.iterdir()) == [own]


def test_a_new_directory_makes_room_and_a_known_one_only_renews_its_claim(tmp_path: Path) -> None:
    old, other_old = _used(tmp_path, _name(1), 40.0), _used(tmp_path, _name(2), 50.0)
    claim(old)
    assert time.time() - (old / "in_use").stat().st_mtime < DAY_S
    assert other_old.is_dir()
    claim(tmp_path / _name(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == [_name(1), _name(3)]


def test_what_another_process_uses_stays_however_old_until_that_process_ends(tmp_path: Path) -> None:
    own, used = _used(tmp_path, _name(0), 0.0), tmp_path / _name(1)
    code = (
        "import sys; from pathlib import Path; from baldr_tango.kernel_cache import claim;"
        "claim(Path(sys.argv[1])); print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(used)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        os.utime(used / "in_use", (0, 0))
        assert remove_old(own) == []
        assert used.is_dir()
        process.communicate(timeout=TIMEOUT_S)
    assert remove_old(own) == [used]


def test_whoever_claims_while_another_removes_gets_a_new_directory(tmp_path: Path) -> None:
    directory = _used(tmp_path, _name(1), 99.0)
    claimant = threading.Thread(target=claim, args=[directory])
    with (directory / "in_use").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        inode = os.fstat(file.fileno()).st_ino
        claimant.start()
        # The kernel lists those who wait for a lock with an arrow.
        wait_for(
            lambda: re.search(rf"-> FLOCK.*:{inode} ", Path("/proc/locks").read_text()) is not None,
            TIMEOUT_S,
            "the claim to wait",
        )
        directory.rename(tmp_path / ".old")
    claimant.join(TIMEOUT_S)
    assert os.path.samestat(os.fstat(kernel_cache._claims[-1]), (directory / "in_use").stat())
    assert not has_kernel(directory, "loop.run")


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    with saving(tmp_path), (tmp_path / "saving").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (tmp_path / "saving").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_name_depends_on_the_compiler_and_the_place_on_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    one, other = cache_directory("1.0"), cache_directory("1.1")
    assert one.parent == other.parent == tmp_path / "baldr_tango"
    assert one.name != other.name
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("1.0") == tmp_path / "xdg" / "baldr_tango" / one.name


def _python(code: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != "NUMBA_DISABLE_JIT"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )


def test_kernels_are_kept_where_the_version_of_the_compiler_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    directory = cache_directory(importlib.metadata.version("numba"))
    assert not has_kernel(directory, "atomics.load_acquire")
    done = _python(ASK.format(then=""), tmp_path)
    assert (done.stdout, done.stderr) == ("7\n", "")
    assert has_kernel(directory, "atomics.load_acquire")
    assert not has_kernel(directory, "loop.run")


def test_without_a_place_to_keep_them_kernels_work_and_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = _python(ASK.format(then=""), file)
    assert done.stdout == "7\n"
    assert done.stderr.count("compiled kernels are not kept") == 1
    assert str(file) in done.stderr


def test_when_the_place_is_lost_kernels_work_and_it_is_said_once(tmp_path: Path) -> None:
    lose = f"__import__('shutil').rmtree({str(tmp_path / 'baldr_tango')!r}) or "
    done = _python(ASK.format(then=lose), tmp_path)
    assert done.stdout == "7\n"
    assert done.stderr.count("compiled kernels cannot be kept on disk") == 1


C_FUNCTION = """
from numba import types
from baldr_tango.kernels import jit
(jit._DIRECTORY / "saving").mkdir()
def twice(number):
    return 2 * number
print(jit.c_function(types.int64(types.int64))(twice).ctypes(21))
"""


def test_functions_that_c_calls_work_where_nothing_can_be_kept(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # only what comes from a file is kept
    script.write_text(C_FUNCTION)
    done = _python(f"exec(compile(open({str(script)!r}).read(), {str(script)!r}, 'exec'))", tmp_path)
    assert done.stdout == "42\n"
    assert done.stderr.count("compiled kernels cannot be kept on disk") == 1
