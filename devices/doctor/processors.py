"""The processors: how many, for whom, how fast, and who is below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from devices.doctor.finding import Finding, advice, boot_options, chosen, cpu_numbers, ok, problem, text_of

SLOW_EXIT_US: Final = 30
"""Sleep states that take longer to leave [us] are worth a word."""

_CPU: Final = Path("sys/devices/system/cpu")
_GOOD_CLOCKS: Final = ("tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page")


def hypervisor(root: Path) -> str:
    """Name of the hypervisor that this machine runs on; empty on bare metal."""
    for file in ("sys/class/dmi/id/sys_vendor", "sys/hypervisor/type"):
        vendor = text_of(root / file) or ""
        if any(word in vendor.lower() for word in ("qemu", "vmware", "xen", "innotek", "kvm", "amazon ec2")):
            return vendor
    info = text_of(root / "proc/cpuinfo") or ""
    flags = next((line for line in info.splitlines() if line.startswith(("flags", "Features"))), "")
    return "a hypervisor" if "hypervisor" in flags.split() else ""


def virtual(root: Path) -> Finding:
    """Say whether the machine is virtual."""
    name = "hypervisor"
    found = hypervisor(root)
    if not found:
        return ok(name, "none: bare metal")
    return advice(
        name,
        f"this machine is virtual ({found}): its host may stop it for milliseconds",
        "real hardware for observations; else processors of the host for this machine alone (pinning)",
    )


def count(root: Path, usable: Sequence[int], wanted: Sequence[int], beams: int) -> Finding:
    """Judge the number of CPUs.

    Parameters
    ----------
    usable : CPUs that this process may use.
    wanted : ``realtime.cpus``.
    """
    name = "CPUs"
    text = f"{len(usable)} usable, {beams} beams"
    absent = sorted(set(wanted) - set(usable))
    if absent:
        return problem(
            name,
            f"{text}; realtime.cpus names {', '.join(map(str, absent))}, which this process may not use",
            f"realtime.cpus in the runtime file: choose among {', '.join(map(str, usable))}",
        )
    if len(usable) < beams + 1:
        return advice(
            name, f"{text}: loops share CPUs", f"{beams + 1} CPUs, one per beam and one for the rest"
        )
    return ok(name, text)


def isolation(root: Path, usable: Sequence[int], wanted: Sequence[int], beams: int) -> Finding:
    """Say whether the CPUs of the loops are kept for them; parameters as for `count`."""
    name = "isolated CPUs"
    options = boot_options(root)
    isolated = cpu_numbers(text_of(root / _CPU / "isolated") or options.get("isolcpus", ""))
    ticks = cpu_numbers(text_of(root / _CPU / "nohz_full") or options.get("nohz_full", ""))
    callbacks = cpu_numbers(options.get("rcu_nocbs", "")) | ticks
    loops = set(wanted) or isolated
    last = list(usable)[-min(beams, max(len(usable) - 1, 1)) :]  # the first CPU has interrupts to serve
    shown = ",".join(map(str, sorted(loops) or last))
    fix = (
        f"/etc/default/grub, GRUB_CMDLINE_LINUX: isolcpus={shown} nohz_full={shown} rcu_nocbs={shown}; then"
        " update-grub, a new start, and these as realtime.cpus"
    )
    if not loops:
        return advice(name, "none: other programs may run on the CPUs of the loops", fix)
    missing = [
        option
        for option, has in (("isolcpus", isolated), ("nohz_full", ticks), ("rcu_nocbs", callbacks))
        if loops - has
    ]
    if missing:
        return advice(name, f"CPUs {shown} of the loops are not all in {', '.join(missing)}", fix)
    if not wanted:
        return advice(
            name,
            f"CPUs {shown} are isolated, but realtime.cpus does not name them: nobody uses them",
            f"realtime.cpus = [{shown}] in the runtime file",
        )
    return ok(name, f"CPUs {shown} are for the loops alone")


def governor(root: Path) -> Finding:
    """Judge the frequency governors."""
    name = "frequency"
    files = sorted((root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    found = sorted({text_of(file) or "" for file in files})
    if not found:
        return ok(name, "not for this machine to set" + (", its host does" if hypervisor(root) else ""))
    if found == ["performance"]:
        return ok(name, "governor performance")
    return advice(name, f"governor {', '.join(found)}", "cpupower frequency-set -g performance")


def sleep_states(root: Path) -> Finding:
    """Judge the sleep states of idle CPUs."""
    name = "sleep states"
    slow: dict[str, int] = {}
    states = list((root / _CPU).glob("cpu[0-9]*/cpuidle/state[0-9]*"))
    for state in states:
        latency = text_of(state / "latency") or ""
        if latency.isdigit() and int(latency) > SLOW_EXIT_US and text_of(state / "disable") != "1":
            slow[text_of(state / "name") or state.name] = int(latency)
    if slow:
        listed = ", ".join(f"{state} {latency} us" for state, latency in sorted(slow.items()))
        return advice(
            name, f"CPUs take long to wake up from {listed}", f"cpupower idle-set -D {SLOW_EXIT_US}"
        )
    if not states:
        host = ", its host does" if hypervisor(root) else ""
        return ok(name, f"none that this machine could set{host}")
    return ok(name, f"none that takes longer than {SLOW_EXIT_US} us to leave")


def siblings(root: Path) -> Finding:
    """Say whether CPUs share a core."""
    name = "SMT"
    if text_of(root / _CPU / "smt/active") == "1":
        return advice(
            name,
            "on: two CPUs share a core, a neighbour slows a loop down",
            "echo off > /sys/devices/system/cpu/smt/control, or boot option nosmt",
        )
    return ok(name, "off")


def clock(root: Path, resolution_s: float) -> Finding:
    """Judge clock source and timer resolution [s]."""
    name = "clock"
    base = root / "sys/devices/system/clocksource/clocksource0"
    source = text_of(base / "current_clocksource") or "unknown"
    if resolution_s > 1e-6:
        return problem(
            name,
            f"timers resolve {1e6 * resolution_s:g} us only: no high-resolution timers",
            "a kernel with CONFIG_HIGH_RES_TIMERS, without boot option highres=off",
        )
    if source in _GOOD_CLOCKS:
        return ok(name, f"{source}, timers resolve {1e9 * resolution_s:g} ns")
    available = text_of(base / "available_clocksource") or ""
    fix = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    if "tsc" not in available.split():
        fix = "boot option tsc=reliable, if the firmware lets the TSC run evenly"
    return advice(name, f"{source}: each look at the clock takes a microsecond or more", fix)


def preemption(root: Path) -> Finding:
    """Judge the preemption model of the kernel."""
    name = "preemption"
    version = text_of(root / "proc/version") or ""
    if text_of(root / "sys/kernel/realtime") == "1" or "PREEMPT_RT" in version:
        return ok(name, "real-time kernel (PREEMPT_RT)")
    mode = boot_options(root).get("preempt") or chosen(text_of(root / "sys/kernel/debug/sched/preempt") or "")
    if mode == "full" or ("PREEMPT" in version and "PREEMPT_DYNAMIC" not in version):
        return ok(name, "full")
    if "PREEMPT_DYNAMIC" in version:
        if mode:
            return advice(name, f"{mode}", "boot option preempt=full")
        return advice(name, "can be chosen at boot, and was not", "boot option preempt=full")
    return advice(
        name, "none: system calls of others delay a loop", "a kernel with PREEMPT_RT, or with PREEMPT"
    )
