"""The self test of a beam: is this machine quick and steady enough to close its loops?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from baldr_tango.errors import RequestError, StateError
from baldr_tango.names import LoopState, RtcState
from baldr_tango.rtc.fitness import MachineBench, compile_pacing
from baldr_tango.rtc.throttling import read_throttling
from baldr_tango.rtc.verdict import report
from baldr_tango.rtc.waiting import SPIN

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

SHORTEST_S: Final = 0.1
LONGEST_S: Final = 60.0


def self_test(beam: Beam, seconds: float, *, force: bool = False) -> dict[str, Any]:
    """Measure with private arrays and streams; the mirror and the beam's own loop are not touched.

    Parameters
    ----------
    seconds : how long, from `SHORTEST_S` to `LONGEST_S`
    force : also while a loop is closed, whose frames may then be late by the time of one frame

    Raises
    ------
    RequestError : a time out of range.
    StateError : a loop is closed or spins, nothing is configured, the beam is starting, or another test runs.
    """
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise RequestError(f"seconds: found {seconds:g}, expected {SHORTEST_S:g} to {LONGEST_S:g}")
    with beam.exclusive:
        state = beam.state()
        loop = beam.loop
        if loop is None or state.rtc == RtcState.STARTING:
            raise StateError(f"self_test needs a configuration in force: {state.fault or state.busy}")
        if not force and LoopState.CLOSED in (state.lo, state.ho):
            raise StateError(
                "a loop is closed, and a self test delays its frames: open_all first, or self_test"
                f" [{seconds:g}, true]; the mirror is not touched in either case"
            )
        waiting = loop.waiting
        if loop.is_alive and waiting is not None and waiting.mode == SPIN:
            raise StateError("the loop of this beam spins, it would starve a second one: stop_baldr first")
        bench = MachineBench(loop.arrays, loop.slots.version & 1, beam.settings.realtime, beam.log)
    return report(bench.measure(seconds), read_throttling())


def prepare_self_test() -> None:
    """Compile what a self test needs beside the loop; to be called where nobody waits for the end."""
    compile_pacing()
