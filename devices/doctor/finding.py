"""One thing that was looked at, and how files of the kernel are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

OK: Final = "OK"
ADVICE: Final = "advice"
PROBLEM: Final = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it."""

    name: str
    level: str
    """`OK`, `ADVICE` or `PROBLEM`."""
    text: str
    fix: str = ""
    """Command to give, or file to change; empty when there is nothing to do."""


def ok(name: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(name, OK, text)


def advice(name: str, text: str, fix: str) -> Finding:
    """It works, and would work better."""
    return Finding(name, ADVICE, text, fix)


def problem(name: str, text: str, fix: str) -> Finding:
    """A loop should not be closed like that."""
    return Finding(name, PROBLEM, text, fix)


def text_of(file: Path) -> str | None:
    """Content of a small file without blanks around it; None when it cannot be read."""
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def boot_options(root: Path) -> dict[str, str]:
    """Options of the kernel's command line; those without a value have an empty one."""
    words = (text_of(root / "proc/cmdline") or "").split()
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def chosen(text: str) -> str:
    """Return the choice in brackets, as in ``always [madvise] never``; the text itself without brackets."""
    return text.split("[", 1)[1].split("]", 1)[0] if "[" in text else text


def cpu_numbers(text: str) -> set[int]:
    """Numbers of a list of CPUs like ``0-2,7``; words that are none, as ``managed_irq``, are left out."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found |= set(range(int(first), int(last or first) + 1))
    return found
