"""Phase-mask stages that take their time, without waiting for it."""

from __future__ import annotations

import math

import pytest

from legacy_zmq.virtual_mds import VirtualMds
from legacy_zmq.virtual_stages import MASKS, VirtualStages
from tests.virtual_controls import RecordedInstrument


class Clock:
    """Time that a test tells."""

    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def instrument():
    return RecordedInstrument()


@pytest.fixture
def stages(instrument, clock):
    found = VirtualStages(instrument.beams, instrument.put_mask, "H3", 100.0, clock)
    yield found
    found.close()


@pytest.fixture
def mds(instrument, stages):
    server = VirtualMds(instrument, stages=stages)
    return lambda text: server.answer(text.encode()).decode()


def test_a_move_takes_its_way_over_its_speed(mds, clock):
    begin = float(mds("read BMX2"))
    assert mds("moverel BMX2 200.0") == "ACK\n"
    assert (mds("state BMX2"), mds("state phasemask2"), mds("state BMX1")) == (
        "MOVING\n",
        "MOVING\n",
        "READY\n",
    )
    clock.now += 0.5
    assert float(mds("read BMX2")) == pytest.approx(begin + 50.0)
    clock.now += 1.499
    assert mds("state BMX2") == "MOVING\n"
    clock.now += 0.002
    assert float(mds("read BMX2")) == begin + 200.0
    assert mds("state BMX2") == "READY\n"


def test_a_move_that_is_stopped_stays_there(mds, clock):
    begin = float(mds("read BMY1"))
    mds("moveabs BMY1 0.0")
    clock.now += 1.0
    assert mds("stop phasemask1") == "ACK\n"
    clock.now += 100.0
    assert float(mds("read BMY1")) == pytest.approx(begin - 100.0)
    assert mds("state BMY1") == "READY\n"


def test_a_move_during_a_move_begins_where_the_stage_is(stages, clock):
    begin = stages.position("BMX1")
    stages.move_to("BMX1", begin + 100.0)
    clock.now += 0.4
    stages.move_to("BMX1", begin)
    clock.now += 0.2
    assert stages.position("BMX1") == pytest.approx(begin + 20.0)


def test_a_mask_is_in_the_beam_within_its_reach(stages, instrument, clock):
    assert stages.mask(3) == "H3"
    stages.move_out(3)
    clock.now += 0.99
    stages.apply()
    assert instrument.masks_in[3]
    clock.now += 0.02
    stages.apply()
    assert not instrument.masks_in[3]
    assert stages.mask(3) == ""
    stages.move_to_mask(3, "J5")
    clock.now += 1e3
    stages.apply()
    assert (stages.mask(3), instrument.masks[3]) == ("J5", "J5")
    assert stages.mask(1) == "H3"


def test_masks_on_the_way_pass_through_the_beam(stages, instrument, clock):
    """H3 to H5, at 100 um/s: the row's fourth mask is half way, and there is none between them."""
    stages.move_to_mask(1, "H5")
    seen = []
    for _ in range(2 * 20 + 1):
        stages.apply()
        if instrument.masks[1] not in seen[-1:]:
            seen.append(instrument.masks[1])
        clock.now += 0.5
    assert seen == ["H3", "", "H4", "", "H5"]


def test_each_beam_may_begin_with_its_own_mask(instrument, clock):
    stages = VirtualStages((1, 2), instrument.put_mask, {1: "H5", 2: "unheard of"}, 100.0, clock)
    assert (stages.mask(1), stages.mask(2)) == ("H5", "H3")
    assert (instrument.masks[1], instrument.masks[2]) == ("H5", "H3")


def test_no_mask_of_a_table_reaches_another_one(stages):
    places = [stages.tables[1][name] for name in MASKS]
    assert len(places) == 10
    assert min(math.dist(a, b) for a in places for b in places if a != b) > 400.0


def test_the_place_of_a_mask_can_be_kept_and_shifted(mds, stages, clock):
    old = stages.tables[2]["H3"]
    mds("moverel BMX2 30.0")
    clock.now += 1.0
    assert mds("fpm_updatemaskpos phasemask2 H3") == "ACK\n"
    assert stages.tables[2]["H3"] == (old[0] + 30.0, old[1])
    assert mds("fpm_offsetallmaskpositions phasemask2 5.0 -7.0") == "ACK\n"
    assert stages.tables[2]["H3"] == (old[0] + 35.0, old[1] - 7.0)
    assert stages.tables[1]["H3"] == old
    for refused in ("fpm_updatemaskpos phasemask2 H9", "fpm_offsetallmaskpositions phasemask2 nan 0.0"):
        assert mds(refused).startswith("NACK")
