"""Markdown as the manual's generator writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])")
"""What Markdown would take for HTML."""


def join(*parts: str) -> str:
    """Return paragraphs, tables and headings as one text."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def code(*names: str) -> str:
    """Return names in code type, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell may hold any text without line breaks of its own."""
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    plain = " ".join(text.split()).replace("|", "\\|")
    # Inside code nothing but the bar means anything.
    parts = [part if i % 2 else _TAG.sub("&lt;", part) for i, part in enumerate(plain.split("`"))]
    return "`".join(parts)
