"""Where the loops run beside the virtual camera."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baldr_tango.configuration.runtime import InstrumentSettings, RealtimeSettings, RuntimeConfig
from devices.placement import refusal_of_priority, server_cpus, shared_cpu


def config(beams: int, **realtime: Any) -> RuntimeConfig:
    plain = RuntimeConfig(
        file=Path("baldr.toml"), instrument=InstrumentSettings(beams=tuple(range(1, beams + 1)))
    )
    return replace(plain, realtime=replace(RealtimeSettings(), **realtime))


@pytest.mark.parametrize(
    ("beams", "allowed", "expected"),
    [
        (4, [0, 1], (1,)),
        (4, [3, 1, 2], (3,)),
        (4, range(5), (4,)),
        (4, range(6), ()),
        (1, [0, 1], (1,)),
        (1, [0, 1, 2], ()),
        (4, [0], ()),
    ],
)
def test_few_cpus_are_shared_and_many_are_not(beams: int, allowed: list[int], expected: tuple[int]) -> None:
    assert shared_cpu(config(beams), allowed, is_permitted=True) == expected


def test_the_runtime_file_decides_when_it_names_cpus() -> None:
    assert shared_cpu(config(4, cpus=(0, 1)), [0, 1], is_permitted=True) == (0, 1)


def test_loops_without_priority_are_left_to_the_scheduler() -> None:
    assert shared_cpu(config(4), [0, 1], is_permitted=False) == ()
    assert shared_cpu(config(4, priority=0), [0, 1], is_permitted=True) == ()


@pytest.mark.parametrize("waiting", ["spin", "spin_then_wait"])
def test_loops_that_poll_do_not_share_the_camera_s_cpu(waiting: str) -> None:
    assert shared_cpu(config(4, waiting=waiting), [0, 1], is_permitted=True) == ()


def test_asking_for_priority_leaves_the_scheduling_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    assert isinstance(refusal_of_priority(10), str)
    assert refusal_of_priority(1000) != ""
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize(
    ("allowed", "loops", "expected"),
    [
        ([0, 1], (1,), (0,)),
        ([0, 1, 2, 3], (2, 3), (1,)),
        ([0, 1, 2, 3], (), (1,)),
        ([4, 6, 7], (6, 7), (4,)),
        ([0, 1], (0, 1), ()),
        ([0], (), ()),
    ],
)
def test_the_server_gets_one_cpu_without_loops(
    allowed: list[int], loops: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert server_cpus(config(4), allowed, loops) == expected


def test_the_runtime_file_decides_about_the_server_too() -> None:
    plain = config(4)
    named = replace(plain, instrument=replace(plain.instrument, server_cpus=(0, 1)))
    assert server_cpus(named, [0, 1, 2], (0,)) == (0, 1)
