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
    """Return the table, which fits into 80 columns.

    Parameters
    ----------
    truth : what the virtual instrument knows of each beam, in place of the loop's own estimates.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("beam", "state", "closed\nloops"):
        table.add_column(name, no_wrap=True)
    for name in ("Hz", "lost", "latency us\np50 p99"):
        table.add_column(name, justify="right", no_wrap=True)
    if truth is None:
        names = ("residual nm\n(estimate)", "Strehl\n(estimate)")
    else:
        names = ("nm rms\nopen>closed", "Strehl\nopen>closed")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", no_wrap=True)
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
    return f"beam {report.beam} {report.state!s:8}" + "  ".join(_cells(report, truth))


def _row(report: Report, truth: Mapping[int, TruthMeans | None] | None) -> list[str]:
    values = report.values
    colour = COLOURS.get(str(report.state), "white")
    cells = [str(report.beam), f"[{colour}]{report.state!s}[/]", _loops(values)]
    cells += [number(values.get("frame_rate"), ".1f"), number(values.get("lost_frames"), "d")]
    cells += [_latency(values)]
    if truth is None:
        cells += [number(values.get("residual_rms"), ".1f"), number(values.get("strehl"), ".3f")]
    else:
        cells += _truth(truth.get(report.beam))
    return [*cells, _recording(values)]


def _cells(report: Report, truth: Mapping[int, TruthMeans | None] | None) -> list[str]:
    values = report.values
    cells = [
        f"closed {_loops(values)}",
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


def _loops(values: Mapping[str, Any]) -> str:
    if values.get("TT_state") is None:
        return "-"
    closed = [short for name, short in (("TT_state", "TT"), ("HO_state", "HO")) if values.get(name)]
    return "+".join(closed) or "none"


def _latency(values: Mapping[str, Any]) -> str:
    return f"{number(values.get('latency_p50'), '.0f')} {number(values.get('latency_p99'), '.0f')}"


def _truth(means: TruthMeans | None) -> list[str]:
    if means is None:
        return ["-", "-"]
    return [
        f"{means.open_loop_rms_nm:.0f}>{means.opd_rms_nm:.0f}",
        f"{means.open_loop_strehl:.3f}>{means.strehl:.3f}",
    ]


def _recording(values: Mapping[str, Any]) -> str:
    value = values.get("telemetry_on")
    return "-" if value is None else ("on" if value else "off")
