"""Whether a machine can afford loops that never sleep."""

from __future__ import annotations

import logging
import os

import pytest

from baldr_tango.configuration.settings import RealtimeSettings
from baldr_tango.rtc.throttling import Throttling
from baldr_tango.rtc.waiting import Spinner, SpinningLoops, plan_waiting

LIFTED = Throttling(-1, 1_000_000)
DEFAULT = Throttling(950_000, 1_000_000)
LONGEST = 20_000_000
PERIOD = 1_000_000


def cpus(*numbers):
    return frozenset(numbers)


def plan(waiting="spin", fifo=True, own=(0, 1, 2, 3), others=(), machine=(0, 1, 2, 3), spin_us=50.0, **more):
    """A loop's plan beside others, given by the CPUs on which they may run."""
    settings = RealtimeSettings(waiting=waiting, spin_us=spin_us)
    return plan_waiting(
        settings,
        Spinner(cpus(*own), fifo),
        tuple(Spinner(cpus(*one), fifo) for one in others),
        cpus(*machine),
        more.get("throttling", LIFTED),
        LONGEST,
        more.get("period", PERIOD),
    )


@pytest.mark.parametrize(
    ("waiting", "spin_ns"), [("semaphore", 0), ("spin", LONGEST), ("spin_then_wait", 50_000)]
)
def test_each_mode_polls_for_its_time(waiting, spin_ns):
    made = plan(waiting)
    assert (made.mode, made.spin_ns, made.notes) == (waiting, spin_ns, ())


def test_spinning_in_real_time_is_stopped_by_the_kernel_unless_that_is_lifted():
    (note,) = plan(throttling=DEFAULT).notes
    assert "50 ms in each 1000 ms" in note
    assert "sysctl -w kernel.sched_rt_runtime_us=-1" in note
    assert plan(throttling=LIFTED).notes == ()
    assert plan(throttling=DEFAULT, fifo=False).notes == (), "normal threads are not stopped"
    assert plan("spin_then_wait", throttling=DEFAULT).notes == (), "it sleeps in each period"
    assert plan("spin_then_wait", spin_us=2000.0, throttling=DEFAULT).notes, (
        "it polls for longer than a period"
    )
    assert plan("semaphore", throttling=DEFAULT).notes == ()


@pytest.mark.parametrize(
    ("own", "others", "machine", "fits"),
    [
        ((0, 1, 2, 3), [(0, 1, 2, 3)] * 2, (0, 1, 2, 3), True),
        ((0, 1, 2, 3), [(0, 1, 2, 3)] * 3, (0, 1, 2, 3), False),
        ((0,), [], (0,), False),
        ((1,), [], (0, 1), True),
        ((1,), [(1,)], (0, 1, 2, 3), False),
        ((1,), [(2,)], (0, 1, 2, 3), True),
        ((1, 2), [(1,), (2,)], (0, 1, 2, 3), False),
        ((0, 1, 2, 3), [(1,), (2,)], (0, 1, 2, 3), True),
        ((3,), [(0, 1), (0, 1)], (0, 1, 2, 3), True),
    ],
)
def test_loops_that_would_starve_one_another_sleep_instead(own, others, machine, fits):
    made = plan(own=own, others=others, machine=machine)
    assert made.mode == ("spin" if fits else "semaphore")
    assert bool(made.notes) != fits
    gentle = plan(own=own, others=others, machine=machine, fifo=False)
    assert gentle.mode == "spin", "the scheduler shares CPUs out among normal threads"
    assert bool(gentle.notes) != fits


def test_the_loops_of_a_process_know_each_other(caplog):
    """Each one more than there are CPUs is told so, once, and frees its place when it ends."""
    loops = SpinningLoops()
    log = logging.getLogger("baldr.test.waiting")
    settings = RealtimeSettings(waiting="spin")
    free = len(os.sched_getaffinity(0)) - 1

    def enter(depth):
        with loops.waiting(settings, LONGEST, PERIOD, log) as made:
            assert made.mode == "spin"
            assert bool(made.notes) == (depth > free)
            if depth <= free:
                enter(depth + 1)

    for _ in range(2):
        enter(1)
    told = [record for record in caplog.records if record.name == log.name]
    assert len(told) == 1
    assert "spinning loops" in told[0].getMessage()
