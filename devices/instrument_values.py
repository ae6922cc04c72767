"""What the instrument publishes: values of its beams as lists in beam order, and counts.

Everything comes from the table of published values. A number of a beam that does not answer is NaN and
a text is ``UNKNOWN``; therefore every number is a double here, whatever its type in the beam.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tango import DevState

from baldr_tango.interface import VALUES, Value, status_names
from baldr_tango.names import LoopState
from devices.cli.beams import Report

MOST_BEAMS: Final = 16
UNKNOWN: Final = "UNKNOWN"

LISTED: Final = (
    *status_names(),
    "fault_reason",
    "frames",
    "lost_frames",
    "frame_rate",
    "latency_p50",
    "latency_p99",
    "flux",
    "snr",
    "residual_rms",
    "strehl",
    "telemetry_on",
    "job_state",
    "job_fraction",
)
"""Values of a beam of which there is a list: the status keys, then what an operator watches."""


def _listed(value: Value) -> Value:
    is_text = value.kind is str
    return Value(
        value.name,
        str if is_text else float,
        f"{value.doc}; one entry per beam, {UNKNOWN if is_text else 'NaN'} for one that does not answer",
        value.unit,
        label=value.label,
        format=value.format if is_text or value.kind is float else "%1.0f",
        shape="spectrum",
        max_dim=(MOST_BEAMS, 0),
    )


_BY_NAME: Final = {value.name: value for value in VALUES}

INSTRUMENT_VALUES: Final[tuple[Value, ...]] = (
    Value(
        "beams",
        int,
        "beam numbers, in the order of all lists",
        label="Beams",
        shape="spectrum",
        max_dim=(MOST_BEAMS, 0),
    ),
    Value(
        "states",
        str,
        f"Tango state of each beam, {UNKNOWN} for one that does not answer",
        label="States",
        shape="spectrum",
        max_dim=(MOST_BEAMS, 0),
    ),
    Value("n_answering", int, "beams that answer", label="Answering", minimum=0, archive_change=1),
    Value(
        "n_closed", int, "beams with at least one closed loop", label="Closed", minimum=0, archive_change=1
    ),
    Value("n_fault", int, "beams in FAULT", label="In fault", minimum=0, archive_change=1),
    *(_listed(_BY_NAME[name]) for name in LISTED),
)
"""Attributes of the device of the whole instrument."""


def collect(reports: Sequence[Report]) -> dict[str, Any]:
    """Return every value of `INSTRUMENT_VALUES` from one report per beam, in beam order."""
    present = [report.values if report.is_reachable else {} for report in reports]
    return {
        "beams": [report.beam for report in reports],
        "states": [str(report.state) for report in reports],
        "n_answering": sum(report.is_reachable for report in reports),
        "n_closed": sum(_is_closed(values) for values in present),
        "n_fault": sum(bool(report.state == DevState.FAULT) for report in reports),
        **{name: [_entry(_BY_NAME[name], values) for values in present] for name in LISTED},
    }


def _is_closed(values: Mapping[str, Any]) -> bool:
    return any(values.get(name) == LoopState.CLOSED for name in ("TT_state", "HO_state"))


def _entry(value: Value, values: Mapping[str, Any]) -> str | float:
    found = values.get(value.name)
    if value.kind is str:
        return UNKNOWN if found is None else str(found)
    return math.nan if found is None else float(found)
