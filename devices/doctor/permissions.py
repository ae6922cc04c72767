"""What this user may do: real-time priority, locked memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from baldr_tango.rtc.throttling import LIFT_THROTTLING, read_throttling
from devices.doctor.finding import Finding, advice, ok, problem, text_of

LIMITS_FILE: Final = "/etc/security/limits.d/baldr.conf"
_CAP_IPC_LOCK: Final = 14
_CAP_SYS_NICE: Final = 23
_LOG_IN: Final = "then log in again (systemd: {0} in the unit; container: {1})"


def limit(root: Path, name: str) -> float:
    """Soft limit of this process by its name in ``/proc/self/limits``; infinity without one.

    Raises
    ------
    KeyError : the kernel does not tell it.
    """
    found = re.search(rf"^{re.escape(name)}\s+(\S+)", text_of(root / "proc/self/limits") or "", re.MULTILINE)
    if found is None:
        raise KeyError(name)
    return float("inf") if found.group(1) == "unlimited" else float(found.group(1))


def has_capability(root: Path, number: int) -> bool:
    """Tell whether this process has a capability, see capabilities(7)."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", text_of(root / "proc/self/status") or "", re.MULTILINE)
    return bool(found and int(found.group(1), 16) >> number & 1)


def priority(root: Path, wanted: int, refusal: str) -> Finding:
    """Judge the permission for real-time priority.

    Parameters
    ----------
    wanted : priority that is configured; 0: normal scheduling.
    refusal : why an attempt to get it failed; empty when it worked.
    """
    name = "real-time priority"
    if wanted <= 0:
        return advice(
            name,
            "realtime.priority is 0: normal scheduling",
            "set realtime.priority = 50 in the runtime file",
        )
    if not refusal:
        return ok(name, f"SCHED_FIFO {wanted} is permitted")
    try:
        allowed = limit(root, "Max realtime priority")
    except KeyError:
        allowed = 0.0
    if allowed >= wanted or has_capability(root, _CAP_SYS_NICE):
        return problem(
            name,
            f"SCHED_FIFO {wanted} refused ({refusal}) although the limit is {allowed:g}",
            "a control group or a seccomp profile refuses it: cpu.rt_runtime_us, --cap-add SYS_NICE",
        )
    return problem(
        name,
        f"SCHED_FIFO {wanted} refused ({refusal}); the rtprio limit is {allowed:g}",
        f"{LIMITS_FILE}: 'baldr - rtprio 80', "
        + _LOG_IN.format("LimitRTPRIO=80", "--cap-add SYS_NICE --ulimit rtprio=80"),
    )


def locked_memory(root: Path, is_wanted: bool) -> Finding:
    """Judge the permission to lock memory."""
    name = "locked memory"
    if not is_wanted:
        return advice(
            name, "realtime.lock_memory is false", "set realtime.lock_memory = true in the runtime file"
        )
    try:
        allowed = limit(root, "Max locked memory")
    except KeyError:
        allowed = 0.0
    if allowed == float("inf") or has_capability(root, _CAP_IPC_LOCK):
        return ok(name, "no limit")
    return problem(
        name,
        f"the memlock limit is {allowed / 1024:.0f} kB: page faults may delay frames",
        f"{LIMITS_FILE}: 'baldr - memlock unlimited', "
        + _LOG_IN.format("LimitMEMLOCK=infinity", "--ulimit memlock=-1"),
    )


def throttling(root: Path, spins: bool) -> Finding:
    """Judge the kernel's limit on real-time threads; it matters to loops that never sleep."""
    name = "real-time throttling"
    found = read_throttling(root)
    if not found.pause_s:
        return ok(name, "real-time threads may have all of a CPU")
    text = f"threads that never sleep lose {1e3 * found.pause_s:g} ms in each {1e-3 * found.period_us:g} ms"
    if not spins:
        return ok(name, f"{text}; loops that wait on the semaphore sleep")
    return problem(name, f"{text}, and realtime.waiting spins", LIFT_THROTTLING)
