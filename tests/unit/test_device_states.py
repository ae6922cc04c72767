"""The table of Tango states: every situation of a beam has one, and it is the right one."""

from __future__ import annotations

import itertools

import pytest
from tango import DevState

from baldr_tango.names import RtcState
from devices.states import STATE_TABLE, rule_for

EXPECTED = {
    # what the real-time thread does: state when all is well and loops are open, with a loop closed
    RtcState.UNCONFIGURED: (DevState.FAULT, DevState.FAULT),
    RtcState.STARTING: (DevState.INIT, DevState.INIT),
    RtcState.RUNNING: (DevState.STANDBY, DevState.RUNNING),
    RtcState.PAUSED: (DevState.ON, DevState.ON),
    RtcState.STOPPED: (DevState.OFF, DevState.OFF),
    RtcState.FAULT: (DevState.FAULT, DevState.FAULT),
}


def test_every_situation_has_a_state() -> None:
    for rtc, alarm, closed in itertools.product(RtcState, (False, True), (False, True)):
        assert rule_for(rtc, alarm=alarm, closed=closed) in STATE_TABLE


@pytest.mark.parametrize("rtc", RtcState)
def test_the_state_without_an_alarm(rtc: RtcState) -> None:
    found = tuple(rule_for(rtc, alarm=False, closed=closed).state for closed in (False, True))
    assert found == EXPECTED[rtc]


@pytest.mark.parametrize("rtc", RtcState)
@pytest.mark.parametrize("closed", [False, True])
def test_an_alarm_shows_unless_the_beam_is_stopped_or_does_not_work_at_all(
    rtc: RtcState, closed: bool
) -> None:
    state = rule_for(rtc, alarm=True, closed=closed).state
    works = rtc in (RtcState.STARTING, RtcState.RUNNING, RtcState.PAUSED)
    assert state == (DevState.ALARM if works else EXPECTED[rtc][closed])


def test_every_row_is_reached_and_explains_itself() -> None:
    reached = {
        rule_for(rtc, alarm=alarm, closed=closed)
        for rtc, alarm, closed in itertools.product(RtcState, (False, True), (False, True))
    }
    assert reached == set(STATE_TABLE)
    for rule in STATE_TABLE:
        assert len(rule.meaning) > 10
