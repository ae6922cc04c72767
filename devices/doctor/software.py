"""The software: versions against what the product asks for, compiled kernels."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

from baldr_tango.kernel_cache import cache_directory, has_kernel
from devices.doctor.finding import Finding, advice, ok, problem

DISTRIBUTION: Final = "baldr-tango"
LOOP: Final = "loop.run"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.1.0rc1 is (2, 1, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def is_at_least(version: str, least: str) -> bool:
    """Compare two versions by their numbers; missing ones are 0."""
    have, need = numbers(version), numbers(least)
    size = max(len(have), len(need))
    return have + (0,) * (size - len(have)) >= need + (0,) * (size - len(need))


def requirements() -> list[str]:
    """What the installed product asks for, extras and other interpreters left out; empty if not installed."""
    try:
        wanted = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    return [line for line in wanted if ";" not in line]


def versions(wanted: Iterable[str], installed: Callable[[str], str] = metadata.version) -> Finding:
    """Compare what is installed with requirements like ``numba>=0.61``.

    Parameters
    ----------
    installed : gives the version of a package, or raises `PackageNotFoundError`.
    """
    name = "versions"
    shown, wrong = [f"Python {platform.python_version()}"], []
    for line in wanted:
        found = re.match(r"([A-Za-z0-9_.-]+?)\s*>=\s*([0-9.]+)", line)
        if found is None:
            continue
        package, least = found.groups()
        try:
            have = installed(package)
        except metadata.PackageNotFoundError:
            wrong.append(f"{package} missing, {least} needed")
            continue
        shown.append(f"{package} {have}")
        if not is_at_least(have, least):
            wrong.append(f"{package} {have}, {least} needed")
    if wrong:
        return problem(name, "; ".join(wrong), "pip install --upgrade baldr-tango")
    if len(shown) == 1:
        return advice(name, f"{shown[0]}; the product is not installed", "pip install baldr-tango")
    return ok(name, ", ".join(shown))


def kernels(directory: Path | None = None) -> Finding:
    """Say whether the loop has been compiled on this machine, for this user.

    Parameters
    ----------
    directory : of the compiled kernels; by default the one that a server would use.
    """
    name = "compiled kernels"
    place = directory or cache_directory(metadata.version("numba"))
    if has_kernel(place, LOOP):
        return ok(name, f"in {place}: a start is quick")
    return advice(name, f"none in {place}: the first start compiles for about a minute", "baldr compile")
