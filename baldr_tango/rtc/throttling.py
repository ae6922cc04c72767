"""How much CPU time the kernel keeps from real-time threads that never sleep, as a spinning loop does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RUNTIME: Final = Path("proc/sys/kernel/sched_rt_runtime_us")
_PERIOD: Final = Path("proc/sys/kernel/sched_rt_period_us")
_PERIOD_DEFAULT_US: Final = 1_000_000

LIFT_THROTTLING: Final = "sysctl -w kernel.sched_rt_runtime_us=-1"
"""Command of an administrator that lets real-time threads have all of a CPU."""


@dataclass(frozen=True)
class Throttling:
    """Limit on the CPU time of real-time threads (sched(7), "Limiting the CPU usage")."""

    runtime_us: int
    """Time that they may have in each period [us]; -1: no limit."""
    period_us: int

    @property
    def pause_s(self) -> float:
        """Time without CPU in each period of a thread that never sleeps [s]; 0 without a limit."""
        if self.runtime_us < 0 or self.period_us <= 0:
            return 0.0
        return max(self.period_us - self.runtime_us, 0) * 1e-6

    @property
    def fraction(self) -> float:
        """`pause_s` as a fraction of the period."""
        return self.pause_s / (self.period_us * 1e-6) if self.pause_s else 0.0


def read_throttling(root: Path = Path("/")) -> Throttling:
    """Read the limit in force; a kernel that has none of its files has no limit.

    Kernels from 6.12 on give the same share to other threads by their "fair server", but only while such
    threads wait for that CPU.

    Parameters
    ----------
    root : directory in which ``proc`` is.
    """
    return Throttling(_number(root / _RUNTIME, -1), _number(root / _PERIOD, _PERIOD_DEFAULT_US))


def throttled_fraction(root: Path = Path("/")) -> float:
    """Fraction of the time without CPU of a real-time thread that never sleeps: 0.05 by default, 0 if lifted.

    Parameters
    ----------
    root : directory in which ``proc`` is.
    """
    return read_throttling(root).fraction


def _number(file: Path, otherwise: int) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return otherwise
