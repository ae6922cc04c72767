"""The status table of the beams, for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from devices.cli.beams import Report

if TYPE_CHECKING:
    from baldr_tango.simulator.truth import TruthMeans

COLOURS: Final = {
    "INIT": "yellow",
    "ON": "cyan",
    "STANDBY": "yellow",
    "RUNNING": "green",
    "ALARM": "dark_orange",
    "FAULT": "bold red",
    "OFF": "white",
    "UNKNOWN": "red",
}


def beam_table(reports: Sequence[Report], truth: Mapping[int, TruthMeans | None] | None = None) -> Table:
    """Return the table; `truth` adds what only the virtual instrument knows."""
    table = Table(title=None, pad_edge=False)
    for name in ("beam", "state", "tip/tilt", "high order"):
        table.add_column(name)
    for name in ("frames/s", "lost", "latency us\np50 / p99", "residual nm\nestimated", "Strehl\nestimated"):
        table.add_column(name, justify="right")
    if truth is not None:
        table.add_column("wavefront nm rms\nopen -> closed", justify="right")
        table.add_column("Strehl\nopen -> closed", justify="right")
    table.add_column("telemetry")
    for report in reports:
        table.add_row(*_row(report, truth))
    return table


def problems(reports: Sequence[Report]) -> list[str]:
    """Return the reasons of every state that an operator has to look at."""
    return [
        f"beam {report.beam}: {report.status.strip()}"
        for report in reports
        if str(report.state) in ("ALARM", "FAULT", "UNKNOWN", "INIT")
    ]


def plain_line(report: Report, truth: Mapping[int, TruthMeans | None] | None = None) -> str:
    """Return one beam as a line of text."""
    cells = (cell.replace("\n", " ") for cell in _cells(report, truth))
    return f"beam {report.beam} {report.state!s:8}" + "  ".join(cells)


def _row(report: Report, truth: Mapping[int, TruthMeans | None] | None) -> list[str]:
    values = report.values
    colour = COLOURS.get(str(report.state), "white")
    cells = [str(report.beam), f"[{colour}]{report.state!s}[/]", _loop(values, "TT_state")]
    cells += [_loop(values, "HO_state"), number(values.get("frame_rate"), ".1f")]
    cells += [number(values.get("lost_frames"), "d"), _latency(values)]
    cells += [number(values.get("residual_rms"), ".1f"), number(values.get("strehl"), ".3f")]
    if truth is not None:
        cells += list(_truth(truth.get(report.beam)))
    return [*cells, _recording(values)]


def _cells(report: Report, truth: Mapping[int, TruthMeans | None] | None) -> list[str]:
    values = report.values
    cells = [
        f"TT {_loop(values, 'TT_state')}",
        f"HO {_loop(values, 'HO_state')}",
        f"{number(values.get('frame_rate'), '.1f')} Hz",
        f"lost {number(values.get('lost_frames'), 'd')}",
        f"latency {_latency(values)} us",
    ]
    if truth is not None:
        wavefront, strehl = _truth(truth.get(report.beam))
        cells += [f"wavefront {wavefront} nm", f"Strehl {strehl}"]
    return cells


def number(value: Any, form: str) -> str:
    """Return a number as text; a dash for one that does not exist."""
    if value is None or not math.isfinite(value):
        return "-"
    return format(value, form)


def _loop(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "-" if value is None else ("closed" if value else "open")


def _latency(values: Mapping[str, Any]) -> str:
    return f"{number(values.get('latency_p50'), '.0f')} / {number(values.get('latency_p99'), '.0f')}"


def _truth(means: TruthMeans | None) -> tuple[str, str]:
    if means is None:
        return "-", "-"
    return (
        f"{means.open_loop_rms_nm:.0f} -> {means.opd_rms_nm:.0f}",
        f"{means.open_loop_strehl:.3f} -> {means.strehl:.3f}",
    )


def _recording(values: Mapping[str, Any]) -> str:
    value = values.get("telemetry_on")
    return "-" if value is None else ("recording" if value else "off")
