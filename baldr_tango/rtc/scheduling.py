"""Real-time scheduling of a thread; everything degrades with a clear warning when not permitted."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from baldr_tango.configuration.settings import RealtimeSettings

NICENESS: Final = -10
"""Nice level of a server's threads that are not real-time."""

FOR_MANY: Final = -12
"""Nice level of a thread that alone answers many clients; others have a thread each."""

_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_MAX: Final = -4

_warned: set[str] = set()

_usable: set[int] = set()
"""CPUs of the process before `gather_on`."""

_gathered: set[int] = set()
"""CPUs to which `gather_on` keeps everything that is not real-time."""


def _warn_once(log: logging.Logger, text: str) -> None:
    """The same refusal concerns every beam and every re-opening; once per process is enough."""
    if text not in _warned:
        _warned.add(text)
        log.warning("%s", text)


@functools.cache
def _lock_memory() -> int:
    """Lock the process once: each call walks all its memory while page faults of running loops wait.

    For the same reason freed memory is kept: returning a large block to the system takes milliseconds
    when it is locked, and every wait for a frame stands still meanwhile.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0:
        return 0
    return ctypes.get_errno()


def lock_memory(log: logging.Logger) -> bool:
    """Keep every page of the process that has been touched in memory; False when not permitted."""
    number = _lock_memory()
    if number == 0:
        return True
    reason = os.strerror(number)
    _warn_once(
        log,
        f"memory is not locked ({reason}): page faults may delay frames;"
        " raise the memlock limit of the user (ulimit -l unlimited)",
    )
    return False


def go_before_others(log: logging.Logger, niceness: int = NICENESS) -> bool:
    """Give the calling thread, and those it will start, more of a busy CPU; False when not permitted.

    For all threads that are not real-time: on a computer that compiles or plots, replies to commanders and
    GUIs would otherwise take a second, and clients that wait for 300 ms give up for ever.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, min(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError as error:
        _warn_once(
            log,
            f"no raised nice level ({error.strerror}): replies may be late on a busy computer; permit a"
            f" nice limit of {FOR_MANY}, or CAP_SYS_NICE",
        )
        return False
    return True


def gather_on(cpus: Iterable[int], log: logging.Logger) -> bool:
    """Keep the calling thread, and those it will start, on these CPUs; False when that is refused.

    Only one of a process's Python threads runs at a time. Where each wakes on another CPU, handing the
    interpreter over costs more than most requests do. Real-time threads go where they are told to go.
    """
    usable, chosen = os.sched_getaffinity(0), set(cpus)
    try:
        os.sched_setaffinity(0, chosen)
    except OSError as error:
        _warn_once(log, f"threads stay on CPUs {sorted(usable)}: {sorted(chosen)} refused ({error})")
        return False
    _usable.update(usable)
    _gathered.update(chosen)
    return True


def usable_cpus() -> set[int]:
    """CPUs that this process may use; a thread that was gathered has fewer."""
    return set(_usable) or os.sched_getaffinity(0)


def _cpus_of_loop(settings: RealtimeSettings) -> set[int]:
    """CPUs of a real-time thread: what it was told; a thread that polls leaves the others theirs."""
    if settings.cpus:
        return set(settings.cpus)
    usable = usable_cpus()
    return (usable - _gathered or usable) if settings.waiting != "semaphore" else usable


@contextmanager
def real_time(settings: RealtimeSettings, log: logging.Logger) -> Iterator[None]:
    """Give the calling thread its CPUs and its priority, and take them back afterwards."""
    old_cpus = os.sched_getaffinity(0)
    if settings.lock_memory:
        lock_memory(log)
    cpus = _cpus_of_loop(settings)
    if cpus != old_cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            _warn_once(
                log,
                f"the real-time thread stays on CPUs {sorted(old_cpus)}: {sorted(cpus)} refused ({error})",
            )
    if settings.priority > 0:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(settings.priority))
        except OSError as error:
            _warn_once(
                log,
                f"normal scheduling instead of SCHED_FIFO {settings.priority} ({error.strerror}):"
                " expect jitter under load; allow it with an rtprio limit or CAP_SYS_NICE",
            )
    try:
        yield
    finally:
        if settings.priority > 0 and os.sched_getscheduler(0) == os.SCHED_FIFO:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if cpus != old_cpus:
            os.sched_setaffinity(0, old_cpus)
