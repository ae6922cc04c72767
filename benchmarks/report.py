"""The table as text, and the committed report: ``benchmarks/results/report.md`` and ``report.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.row import Row, row_from

RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Entry:
    """A row with the circumstances of its measurement."""

    group: str
    row: Row
    runs: int
    date: str
    machine: dict[str, str]


def number(value: float, unit: str = "") -> str:
    """Write a figure with three significant digits."""
    if math.isnan(value):
        return "-"
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip() if unit != "x" else f"{text}x"


def table(rows: Iterable[Row]) -> list[str]:
    """Lines of a Markdown table, one per row."""
    lines = [
        "| what | goal | figure | verdict | made of |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        notes = ", ".join(f"{name} {number(value)}" for name, value in row.parts.items())
        if row.verdict != "met" and row.reason:
            notes = f"{notes}. {row.reason}" if notes else row.reason
        goal, figure = f"<= {number(row.goal, row.unit)}", number(row.figure, row.unit)
        lines.append(f"| {row.name} | {goal} | {figure} | {row.verdict} | {notes} |")
    return lines


def markdown(entries: list[Entry]) -> str:
    """Render the report, one table per machine."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --write`; medians over the runs. Smaller is",
    ]
    lines += ["better; what each row measures is told below its table.", ""]
    machines: list[dict[str, str]] = []
    for entry in entries:
        if entry.machine not in machines:
            machines.append(entry.machine)
    for machine in machines:
        here = [entry for entry in entries if entry.machine == machine]
        lines += [f"- {name}: {value}" for name, value in machine.items()]
        lines += ["", *table(entry.row for entry in here), ""]
        for entry in here:
            runs = f"{entry.runs} runs" if entry.runs > 1 else "one run"
            lines.append(f"- {entry.row.name} (`{entry.group}`, {runs}, {entry.date}): {entry.row.method}")
        lines.append("")
    return "\n".join(lines)


def as_json(entries: list[Entry]) -> str:
    """Return the report as a JSON text."""
    document = [
        {
            "group": entry.group,
            "runs": entry.runs,
            "date": entry.date,
            "machine": entry.machine,
            **entry.row.as_dict(),
        }
        for entry in entries
    ]
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def load(file: Path) -> list[Entry]:
    """Read the report that is there; an empty list without one."""
    if not file.is_file():
        return []
    documents: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [Entry(doc["group"], row_from(doc), doc["runs"], doc["date"], doc["machine"]) for doc in documents]


def write(entries: list[Entry], order: list[str], directory: Path = RESULTS) -> list[Path]:
    """Put measured rows into the report; groups that were not measured now keep theirs.

    Parameters
    ----------
    order : names of all groups, in the order of the report; rows of other groups are dropped.

    Returns
    -------
    files : the files written.
    """
    directory.mkdir(exist_ok=True)
    measured = {entry.group for entry in entries}
    kept = [entry for entry in load(directory / "report.json") if entry.group not in measured]
    together = [entry for entry in kept + entries if entry.group in order]
    together.sort(key=lambda entry: order.index(entry.group))
    files = [directory / "report.json", directory / "report.md"]
    files[0].write_text(as_json(together), encoding="utf-8")
    files[1].write_text(markdown(together), encoding="utf-8")
    return files
