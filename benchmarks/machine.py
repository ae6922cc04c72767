"""Name of the machine that a measurement was made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("numba", "llvmlite", "numpy", "pytango", "pyzmq", "h5py")


def _line_of(file: str, key: str) -> str:
    """Value of the first line ``key : value`` of a file of the kernel."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _hypervisor() -> str:
    """Name of the virtual machine; "" on bare metal or where nothing tells."""
    try:
        told = subprocess.run(["systemd-detect-virt", "--vm"], capture_output=True, text=True, timeout=5)
        name = told.stdout.strip()
        if name and name != "none":
            return name
    except (OSError, subprocess.TimeoutExpired):
        pass
    flags = _line_of("/proc/cpuinfo", "flags").split()
    return "virtual machine" if "hypervisor" in flags else ""


def _caches() -> str:
    """Sizes of the caches of the first processor, as the kernel reports them."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() if (index / name).is_file() else "?"
            for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


def _package(name: str) -> str:
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {name}"


def describe() -> dict[str, str]:
    """Return what a reader of the figures has to know about this machine, by name."""
    cores = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}"
    memory = _line_of("/proc/meminfo", "MemTotal")
    model = _line_of("/proc/cpuinfo", "model name") or platform.machine()
    return {
        "processor": f"{model}, {cores} cores" + (f", {_caches()}" if _caches() else ""),
        "hypervisor": _hypervisor() or "none seen",
        "memory": memory,
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *map(_package, _PACKAGES)]),
    }
