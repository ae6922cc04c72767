"""What a measurement of the machine has seen, and how its records are collected."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.rtc.stalls import StallReport
from baldr_tango.telemetry.ring import TelemetryRing

_FIELDS: Final = ("frame", "time_ns", "latency_ns", "flags")


@dataclass(frozen=True)
class Measurement:
    """What one measurement has seen; n frames, m sleeps."""

    frame_rate_hz: float
    seconds: float
    posted: int
    """Frames posted after the warm-up."""
    lost: int
    """Of these, frames that the loop found overwritten."""
    posted_ns: NDArray[np.int64]
    """(n,) when each frame was posted, CLOCK_MONOTONIC [ns]."""
    wake_ns: NDArray[np.int64]
    """(n,) from its post until the loop was awake [ns]."""
    compute_ns: NDArray[np.int64]
    """(n,) from there until the command was written [ns]."""
    computed: NDArray[np.bool_]
    """(n,) False for frames that only begin a burst of reads."""
    sleep_due_ns: NDArray[np.int64]
    """(m,) when sleeps to absolute times were to end [ns]."""
    sleep_late_ns: NDArray[np.int64]
    """(m,) how late they ended [ns]."""
    stalls: StallReport
    tripped: bool
    scheduling: str
    """Scheduling that the loop's thread had, for people."""
    waiting: str
    """How it waited for frames, see `waiting`."""
    has_priority: bool
    """The thread had the priority that is configured."""
    page_faults: int
    context_switches: int
    """Times that the loop's thread was pushed off its CPU."""


@dataclass
class ThreadReport:
    """What the loop's thread tells about itself."""

    scheduling: str = ""
    waiting: str = ""
    has_priority: bool = True
    page_faults: int = 0
    context_switches: int = 0


@dataclass
class Harvest:
    """Records of the private ring, collected before they are overwritten."""

    ring: TelemetryRing
    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    seen: int = 0

    def collect(self) -> None:
        """Take what is new."""
        first, records = self.ring.read(self.seen, self.ring.write_index, _FIELDS)
        self.parts.append(records)
        self.seen = first + records["frame"].size

    def column(self, name: str) -> NDArray[Any]:
        """All values of a field."""
        return np.concatenate([part[name] for part in self.parts])
