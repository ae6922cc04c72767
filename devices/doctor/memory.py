"""Memory: large pages, swap, moves between nodes."""

from __future__ import annotations

from pathlib import Path

from devices.doctor.finding import Finding, advice, chosen, ok, text_of


def huge_pages(root: Path) -> Finding:
    """Judge transparent huge pages, which the kernel puts together while a process waits."""
    name = "transparent huge pages"
    mode = chosen(text_of(root / "sys/kernel/mm/transparent_hugepage/enabled") or "never")
    if mode == "always":
        return advice(
            name,
            "always: the kernel may stop a program to put pages together",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    return ok(name, mode)


def swap(root: Path) -> Finding:
    """Judge swap space."""
    name = "swap"
    lines = (text_of(root / "proc/swaps") or "").splitlines()[1:]
    if not lines:
        return ok(name, "none")
    places = ", ".join(line.split()[0] for line in lines)
    return advice(
        name, f"{places}: memory that is not locked may be on the disk", "swapoff -a, and /etc/fstab"
    )


def numa(root: Path) -> Finding:
    """Judge the moving of pages between nodes."""
    name = "NUMA balancing"
    if (text_of(root / "proc/sys/kernel/numa_balancing") or "0") == "0":
        return ok(name, "off")
    return advice(name, "on: pages are taken away to see who uses them", "sysctl -w kernel.numa_balancing=0")
