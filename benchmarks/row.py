"""A row of the table: what was measured, its goal, the figure, and what it was made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

NOT_MEASURED: Final = math.nan
"""Figure of a row that this machine cannot measure; `Row.reason` says why."""


@dataclass(frozen=True)
class Row:
    """One figure beside its goal. Smaller is better: the goal is met when ``figure <= goal``.

    Parameters
    ----------
    name : what was measured, the same in every run.
    goal : largest figure that is good.
    figure : what was found; `NOT_MEASURED` when it could not be.
    unit : of both; "x" for a ratio.
    parts : the measurements behind the figure, with their units in their names: ``{"compute us": 2.1}``.
    method : how it was measured, one sentence.
    reason : why the goal is missed, or why there is no figure. It is shown only then.
    """

    name: str
    goal: float
    figure: float
    unit: str
    parts: dict[str, float] = field(default_factory=dict)
    method: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One of ``met``, ``missed``, ``not measured``."""
        if math.isnan(self.figure):
            return "not measured"
        return "met" if self.figure <= self.goal else "missed"

    def as_dict(self) -> dict[str, Any]:
        """Return the row for a JSON file, its verdict included."""
        return {
            **asdict(self),
            "figure": None if math.isnan(self.figure) else self.figure,
            "verdict": self.verdict,
        }


def row_from(document: dict[str, Any]) -> Row:
    """Return the row that `Row.as_dict` wrote."""
    values = {key: value for key, value in document.items() if key in Row.__dataclass_fields__}
    if values["figure"] is None:
        values["figure"] = NOT_MEASURED
    return Row(**values)


def middle(rows: Iterable[Row]) -> Row:
    """Return one row with the medians of the same row of several runs; runs without a figure are left out."""
    found = list(rows)
    good = [row for row in found if not math.isnan(row.figure)]
    if not good:
        return found[-1]
    parts = {
        name: statistics.median(row.parts[name] for row in good if name in row.parts)
        for name in good[-1].parts
    }
    figure = statistics.median(row.figure for row in good)
    reason = next((row.reason for row in reversed(good) if row.reason), "")
    return Row(good[-1].name, good[-1].goal, figure, good[-1].unit, parts, good[-1].method, reason)
