"""What a measurement of the machine means: percentiles, and whether a loop can be closed."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.rtc.measurement import Measurement
from baldr_tango.rtc.stalls import Stall
from baldr_tango.rtc.throttling import LIFT_THROTTLING, Throttling

RESPONSE_SHARE: Final = 0.5
"""Share of the period within which a command must follow its frame, in 99.9 % of the frames. The other half
is for what comes after it (figures of merit, recording), for other beams on this CPU and for early frames."""

SLEEP_SHARE: Final = 0.25
"""Share of the period by which a sleep to an absolute time may be late, in 99.9 % of the cases."""

PER_MILLE: Final = {"p50": 500, "p99": 990, "p99_9": 999, "max": 1000}


def percentiles_us(times_ns: NDArray[np.int64]) -> dict[str, float]:
    """Percentiles of times (n,) [us]; 0 without any. Each is one of the times, none is interpolated."""
    if times_ns.size == 0:
        return dict.fromkeys(PER_MILLE, 0.0)
    times = np.sort(times_ns)
    ranks = {name: -(-share * times.size // 1000) for name, share in PER_MILLE.items()}
    return {name: round(float(times[rank - 1]) * 1e-3, 2) for name, rank in ranks.items()}


def report(measured: Measurement, throttling: Throttling) -> dict[str, Any]:
    """Put a measurement into words and numbers that JSON can carry; times are in us unless they say so.

    ``fit`` is the verdict, ``product_fit`` the one without the times at which the machine itself stood still.
    """
    stalls = measured.stalls
    wake, compute = measured.wake_ns, measured.compute_ns
    stalled = np.zeros(wake.shape, dtype=bool)
    sleep_stalled = np.zeros(measured.sleep_late_ns.shape, dtype=bool)
    if stalls.is_certain:
        stalled = stalls.touches(measured.posted_ns, measured.posted_ns + wake + compute)
        sleep_stalled = stalls.touches(measured.sleep_due_ns, measured.sleep_due_ns + measured.sleep_late_ns)
    own = measured.computed & ~stalled
    own_response = percentiles_us((wake + compute)[own])
    own_sleep = percentiles_us(measured.sleep_late_ns[~sleep_stalled])
    period_us = 1e6 / measured.frame_rate_hz
    reasons = _own_reasons(measured, period_us, own_response, own_sleep)
    machine = _machine_reasons(measured, period_us, throttling)
    return {
        "fit": not reasons and not machine,
        "product_fit": not reasons,
        "verdict": _verdict(measured, reasons, machine),
        "reasons": [*reasons, *machine],
        "notes": _notes(measured, throttling),
        "frame_rate_hz": measured.frame_rate_hz,
        "period_us": round(period_us, 2),
        "seconds": measured.seconds,
        "frames": measured.posted,
        "lost_frames": measured.lost,
        "wake_up_us": percentiles_us(wake),
        "compute_us": percentiles_us(compute[measured.computed]),
        "response_us": percentiles_us((wake + compute)[measured.computed]),
        "sleep_us": percentiles_us(measured.sleep_late_ns),
        "outside_stalls": {"response_us": own_response, "sleep_us": own_sleep},
        "stalls": {
            "certain": stalls.is_certain,
            "number": len(stalls.stalls),
            "longest_ms": round(stalls.longest_ms, 3),
            "per_cpu": {str(cpu): sum(s.cpu == cpu for s in stalls.stalls) for cpu in stalls.cpus},
            "steal_ms": round(1e3 * stalls.steal_s, 1),
            "frames": int(stalled.sum()),
        },
        "scheduling": measured.scheduling,
        "waiting": measured.waiting,
        "page_faults": measured.page_faults,
        "context_switches": measured.context_switches,
    }


def _own_reasons(
    measured: Measurement, period_us: float, response: dict[str, float], sleep: dict[str, float]
) -> list[str]:
    """What speaks against closing a loop although the machine ran."""
    reasons = []
    if measured.tripped or not measured.computed.any():
        reasons.append("no command was computed from the made-up frames: look at calibration and gains")
    if response["p99_9"] > RESPONSE_SHARE * period_us:
        reasons.append(
            f"wake-up and compute take {response['p99_9']:.0f} us in the slowest thousandth of the frames,"
            f" allowed are {RESPONSE_SHARE * period_us:.0f} us, half of the period"
        )
    if sleep["p99_9"] > SLEEP_SHARE * period_us:
        reasons.append(
            f"a thread that sleeps to a time is {sleep['p99_9']:.0f} us late in the worst thousandth,"
            f" allowed are {SLEEP_SHARE * period_us:.0f} us, a quarter of the period"
        )
    if measured.lost and not _long_stalls(measured, period_us):
        reasons.append(f"{measured.lost} of {measured.posted} frames were lost")
    return reasons


def _machine_reasons(measured: Measurement, period_us: float, throttling: Throttling) -> list[str]:
    """What the machine did by itself, whatever runs on it."""
    stalls, long = measured.stalls, _long_stalls(measured, period_us)
    if not long:
        return []
    text = (
        f"the machine itself stood still: {len(long)} times within {stalls.seconds:.1f} s for longer than a"
        f" period, up to {stalls.longest_ms:.1f} ms; frames are lost then, whatever this program does"
    )
    if measured.lost:
        text += f" ({measured.lost} of {measured.posted} here)"
    if throttling.pause_s and stalls.longest_ms >= 0.8e3 * throttling.pause_s:
        text += f"; if a real-time thread spins, it may be the kernel's limit on them: {LIFT_THROTTLING}"
    return [text]


def _long_stalls(measured: Measurement, period_us: float) -> list[Stall]:
    """Stalls that lose frames, if it is certain that the machine was the reason."""
    stalls = measured.stalls
    return [s for s in stalls.stalls if stalls.is_certain and s.length_ns > period_us * 1e3]


def _verdict(measured: Measurement, reasons: list[str], machine: list[str]) -> str:
    rate = f"{measured.frame_rate_hz:.6g} Hz"
    if not reasons and not machine:
        return f"fit to close a loop at {rate}"
    if not reasons:
        return f"this program would be fit to close a loop at {rate}, the machine it runs on is not"
    return f"not fit to close a loop at {rate}"


def _notes(measured: Measurement, throttling: Throttling) -> list[str]:
    notes = []
    if not measured.has_priority:
        notes.append("the loop has no real-time priority: 'baldr doctor' says how to permit it")
    if not measured.stalls.is_certain:
        notes.append(
            "no real-time priority for the probes: stalls of the machine cannot be told from other programs"
        )
    if throttling.fraction:
        notes.append(
            f"the kernel keeps {100 * throttling.fraction:.3g} % of each CPU from real-time threads that"
            f" never sleep; it matters when the loop spins: {LIFT_THROTTLING}"
        )
    return notes
