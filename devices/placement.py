"""Where the loops run when the virtual camera shares their machine, and where all the rest does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import ConfigError

VARIABLE: Final = "BALDR_CPUS"
"""Environment variable: CPUs of the loops and of the virtual instrument, in place of ``realtime.cpus``."""


def shared_cpu(config: RuntimeConfig, allowed: Iterable[int], is_permitted: bool) -> tuple[int, ...]:
    """CPUs for the loops of a machine that also simulates their camera; empty: leave it to the scheduler.

    A host that takes one CPU of a small virtual machine away for milliseconds stops a loop there, while the
    camera on the other one goes on: frames are lost that no real-time priority could have saved. On one
    CPU both stand still together, and the loops go first by their priority..

    Parameters
    ----------
    allowed : CPUs that this process may use.
    is_permitted : real-time priorities are; without them a loop would share the CPU with everybody.

    Returns
    -------
    what the runtime file says, if it says something; nothing if loops poll; else the last CPU, where fewer
    interrupts arrive than on the first, of a machine with too few CPUs to give one to each loop, the camera
    and everything else.
    """
    if config.realtime.cpus:
        return config.realtime.cpus
    cpus = sorted(allowed)
    # A loop that polls its camera would never let it run.
    may_share = config.realtime.priority > 0 and config.realtime.waiting == "semaphore"
    is_small = 1 < len(cpus) < len(config.beams) + 2
    return (cpus[-1],) if is_small and is_permitted and may_share else ()


def server_cpus(config: RuntimeConfig, allowed: Iterable[int], loop_cpus: Iterable[int]) -> tuple[int, ...]:
    """CPUs of the device server beside its loops; empty: leave it to the scheduler.

    Python runs one thread at a time. On several CPUs, handing the interpreter from one to the next costs
    more than most requests: two dozen busy clients get a fifth of the replies that one CPU gives them.

    Parameters
    ----------
    allowed : CPUs that this process may use.
    loop_cpus : those of its loops; empty: any.

    Returns
    -------
    what the runtime file says, if it says something; else one CPU without loops, if there is one, and not
    the first, where most interrupts arrive, if there is another.
    """
    if config.instrument.server_cpus:
        return config.instrument.server_cpus
    cpus, taken = sorted(allowed), set(loop_cpus)
    without_loops = [cpu for cpu in cpus if cpu not in taken] if len(cpus) > 1 else []
    return tuple(without_loops[1:2] or without_loops[:1])


def refusal_of_priority(priority: int) -> str:
    """Try to get a real-time priority in a thread that ends at once; return why it failed, or nothing."""
    said: list[str] = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError as error:
            said.append(error.strerror or str(error))

    if priority > 0:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    return said[0] if said else ""


def cpus_from_environment() -> tuple[int, ...]:
    """CPUs that `VARIABLE` names, separated by commas; empty when it is not set.

    Raises
    ------
    ConfigError : it is not a list of CPU numbers.
    """
    text = os.environ.get(VARIABLE, "").strip()
    words = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"{VARIABLE}: found {text!r}, expected CPU numbers with commas, such as 2,3")
    return tuple(int(word) for word in words)
