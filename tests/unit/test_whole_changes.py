"""One client changes everything as fast as it can, others watch: nobody ever sees one half of a change."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from baldr_tango.configuration.settings import LimitSettings, LoopSettings
from baldr_tango.kernels import loop_data as d
from tests.beam_bench import BeamBench
from tests.harness import wait_for
from tests.unit.configuration_problem import SIGNALS

CHANGES = 40
WIDE = LimitSettings(command=1.0, lo_command=1.0, ho_mode=1.0, frozen_frames=0)
"""The camera of these tests shows the same picture all the time."""


@pytest.fixture
def bench(tmp_path):
    with BeamBench(tmp_path, limits=WIDE, loop=LoopSettings(ring_frames=65536)) as running:
        yield running


class Beside:
    """Calls functions over and over in threads of their own; what they raise fails the test."""

    def __init__(self, *functions: Callable[[], None]) -> None:
        self._end = threading.Event()
        self.errors: list[BaseException] = []
        self.calls = [0] * len(functions)
        self._threads = [
            threading.Thread(target=self._repeat, args=(k, function)) for k, function in enumerate(functions)
        ]

    def _repeat(self, k: int, function: Callable[[], None]) -> None:
        try:
            while not self._end.is_set():
                function()
                self.calls[k] += 1
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> Beside:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(20.0)
        if self.errors:
            raise self.errors[0]


def camera(bench: BeamBench) -> Callable[[], None]:
    """Post the same frame again and again, each when the one before has been dealt with.

    A thread that is held up while it writes a frame leaves a torn one, which the loop counts and drops.
    """
    frame = bench.frame()

    def dealt_with() -> int:
        return bench.loop.arrays.ring.write_index + bench.counter(d.TORN)

    def post() -> None:
        before = dealt_with()
        bench.camera.write(frame)
        wait_for(lambda: dealt_with() != before, 20.0, "a record")

    return post


def test_both_loops_change_together_for_everybody(bench):
    pairs = set()

    def watch() -> None:
        state = bench.ask("status")
        pairs.add((state["TT_state"], state["HO_state"]))

    with Beside(camera(bench), watch) as beside:
        wait_for(lambda: min(beside.calls) > 3)
        for _ in range(CHANGES):
            bench.ask("close_all")
            bench.ask("open_all")
    assert pairs == {(0, 0), (1, 1)}
    ring = bench.loop.arrays.ring
    _, records = ring.read(ring.oldest, ring.write_index)
    np.testing.assert_array_equal(records["LO_servo_mode"], records["HO_servo_mode"])
    is_open = records["LO_servo_mode"] == 0
    assert not records["command"][is_open].any()
    assert is_open.any()
    assert not is_open.all()


def test_gains_of_all_modes_change_together_for_everybody(bench):
    seen: dict[str, set[float]] = {"kp": set(), "ki": set()}

    def watch() -> None:
        for name in ("kp", "ki"):
            values = bench.ask("ctrl_get", "HO", name)["value"]
            assert len(set(values)) == 1, f"{name} seen half changed: {values}"
            seen[name].add(values[0])
        slots = bench.loop.slots.snapshot("kp_ho", "ki_ho")
        assert np.unique(slots["kp_ho"]).size == np.unique(slots["ki_ho"]).size == 1

    settings = (0.0, 0.25)
    bench.ask("update_ctrl_param", "HO", "ki", "all", 0.0)
    with Beside(camera(bench), watch) as beside:
        wait_for(lambda: min(beside.calls) > 3)
        bench.ask("close_baldr_HO")
        for number in range(CHANGES):
            bench.ask("ctrl_set", "HO", "kp", [settings[number % 2]] * SIGNALS)
    assert seen["kp"] <= set(settings)
    ring = bench.loop.arrays.ring
    _, records = ring.read(ring.oldest, ring.write_index)
    error = records["e_HO"][-1].astype(float)
    closed = records["HO_servo_mode"] == 1
    used = np.abs(error) > 1e-4
    gain = records["u_HO"][closed][:, used] / error[used]
    # Proportional gain alone: within each frame one gain for all modes, and one of the two.
    np.testing.assert_allclose(gain, gain[:, :1].repeat(used.sum(), axis=1), atol=1e-3)
    assert set(np.round(gain[:, 0], 3)) == set(settings)


def test_fields_change_whole_while_loops_are_closed(bench):
    """Dense and sparse reconstructors by turns, which takes the loop out and in again each time."""
    sparse = np.array(bench.ask("get_rtc_field", "matrices.I2M_HO")["value"])
    dense = sparse + 1e-3
    known = [sparse.tolist(), dense.tolist()]
    wrong = [*known[0][:-1], [0.0]]

    def watch() -> None:
        for path in ("matrices.I2M_HO", "I2M_HO_runtime"):
            assert bench.ask("get_rtc_field", path)["value"] in known
        state = bench.ask("status")
        assert (state["TT_state"], state["HO_state"], state["paused"]) == (1, 1, False)

    for loop in ("LO", "HO"):
        bench.ask("update_ctrl_param", loop, "ki", "all", 0.0)
    bench.ask("close_all")
    with Beside(camera(bench), watch) as beside:
        wait_for(lambda: min(beside.calls) > 3)
        for number in range(CHANGES // 2):
            bench.ask("set_rtc_field", "matrices.I2M_HO", known[(number + 1) % 2])
            with pytest.raises(ValueError):
                bench.ask("set_rtc_field", "matrices.I2M_HO", wrong)
    ring = bench.loop.arrays.ring
    _, records = ring.read(ring.oldest, ring.write_index)
    signal = records["signal"][-1].astype(float)
    found = records["e_HO"].astype(float)
    by_sparse = np.abs(found - sparse @ signal).max(axis=1) < 1e-5
    by_dense = np.abs(found - dense @ signal).max(axis=1) < 1e-5
    assert (by_sparse ^ by_dense).all()
    assert by_sparse.any()
    assert by_dense.any()
    assert bench.lost() <= bench.counter(d.TORN)
    assert bench.counter(d.FRAMES) == ring.write_index


def test_clients_that_change_the_same_gain_do_not_lose_each_others_changes(bench):
    """Increments from several threads add up: each is one command after the other."""
    step, threads, each = 2.0**-10, 4, 10
    bench.ask("update_ctrl_param", "LO", "kp", "all", 0.0)

    def add() -> None:
        for _ in range(each):
            bench.ask("dg", "LO", "kp", step)

    workers = [threading.Thread(target=add) for _ in range(threads)]
    with Beside(camera(bench)):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60.0)
    assert bench.ask("ctrl_get", "LO", "kp")["value"] == [threads * each * step] * 2
