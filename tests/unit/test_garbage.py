"""The garbage collector of a server: nothing that can be freed is kept, requests leave nothing behind."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from baldr_tango.beam.garbage import THRESHOLDS, Collector, collector
from tests.beam_bench import BeamBench
from tests.harness import LONG_S, wait_for

LOG = logging.getLogger("baldr.test")
REQUESTS = (
    ("status", ()),
    ("command_names", ()),
    ("job_status", ()),
    ("ctrl_list", ("LO",)),
    ("get_rtc_field", ("limits.command",)),
    ("list_rtc_fields", ()),
    ("poll_telem_vector", ("signal",)),
    ("open_all", ()),
)


@pytest.fixture
def ours():
    own = Collector()
    own.take_over()
    yield own
    own.give_back()


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.own = self


def test_taking_over_and_giving_back_leave_the_process_as_it_was():
    before = gc.get_threshold(), list(gc.callbacks), gc.get_freeze_count()
    own = Collector()
    own.take_over()
    own.take_over()
    assert gc.get_threshold() == THRESHOLDS
    assert len(gc.callbacks) == len(before[1]) + 1
    own.settle(LOG)
    assert gc.get_freeze_count() > 0
    own.give_back()
    own.give_back()
    assert (gc.get_threshold(), list(gc.callbacks), gc.get_freeze_count()) == before


def test_a_process_that_was_not_taken_over_is_left_alone():
    Collector().settle(LOG)
    assert gc.get_freeze_count() == 0


def test_what_is_set_aside_is_freed_when_it_has_become_garbage(ours):
    node = Node()
    gone = weakref.ref(node)
    ours.settle(LOG)
    del node
    gc.collect()
    assert gone() is not None, "it was not set aside: this test tests nothing"
    ours.settle(LOG)
    assert gone() is None


def test_collections_are_counted_and_timed_until_things_are_set_aside_anew(ours):
    ours.settle(LOG)
    assert (ours.collections, ours.longest_ms) == (0, 0.0)
    gc.collect()
    gc.collect()
    assert ours.collections >= 2
    assert ours.longest_ms > 0.0
    ours.settle(LOG)
    assert (ours.collections, ours.longest_ms) == (0, 0.0)


@pytest.fixture
def bench(tmp_path):
    collector.take_over()
    try:
        with BeamBench(tmp_path) as running:
            yield running
    finally:
        collector.give_back()


def test_a_beam_that_is_ready_is_set_aside_and_says_how_long_collections_take(bench):
    wait_for(lambda: gc.get_freeze_count() > 0, LONG_S, "objects set aside")
    gc.collect()
    values = bench.beam.read(("gc_collections", "gc_pause_max"))
    assert values["gc_collections"] >= 1
    assert values["gc_pause_max"] > 0.0


def test_a_loop_that_was_replaced_is_freed_although_it_was_set_aside(bench):
    wait_for(lambda: gc.get_freeze_count() > 0, LONG_S, "objects set aside")
    old = weakref.ref(bench.loop)
    ring = weakref.ref(bench.loop.arrays.ring)
    bench.beam.load(bench.directory / "calibration.toml")
    wait_for(lambda: old() is None and ring() is None, LONG_S, "the end of the old loop and its ring")


def test_requests_leave_no_objects_behind(bench):
    wait_for(lambda: bench.beam.calibration is not None)
    bench.step(3)

    def ask_everything(times):
        for _ in range(times):
            for name, arguments in REQUESTS:
                bench.ask(name, *arguments)
        gc.collect()
        return len(gc.get_objects())

    ask_everything(20)  # caches fill
    before = ask_everything(20)
    after = ask_everything(200)
    assert gc.garbage == []
    assert after - before < 200, "every request leaves something behind"
