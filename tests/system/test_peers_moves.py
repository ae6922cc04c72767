"""Moves through the MDS: followed by position, cancelled with a stop, refused, stalled."""

from __future__ import annotations

import threading
import time

import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers import CancelledOperationError, ControlClient, MdsClient
from legacy_zmq.instrument import ControlServers
from tests.system.zmq_servers import TIMEOUT_S, RepServer, wait_until
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system

QUICK = {"poll_s": 0.002, "still_s": 0.02, "stall_s": 0.05}


class Stages:
    """An MDS whose stages come one step nearer to their targets with each look at them."""

    def __init__(self, step: float = 30.0) -> None:
        self.step = step
        self.positions = {"BMX2": 1000.0, "BMY2": 500.0}
        self.targets = dict(self.positions)
        self.stuck_at: float | None = None
        self.busy = threading.Event()
        """While it is clear, a move is answered only when it has ended."""
        self.busy.set()

    def answer(self, request: bytes) -> bytes:
        word, *rest = request.decode().split()
        try:
            return f"{getattr(self, word)(*rest)}\n".encode()
        except KeyError as error:
            return f"NACK: {error}\n".encode()

    def read(self, axis):
        way = self.targets[axis] - self.positions[axis]
        if self.stuck_at != self.positions[axis]:
            self.positions[axis] += max(-self.step, min(self.step, way))
        return self.positions[axis]

    def moveabs(self, axis, position):
        assert "." in position
        self.targets[axis] = float(position)
        assert self.busy.wait(TIMEOUT_S)
        return "ACK"

    def moverel(self, axis, distance):
        return self.moveabs(axis, str(self.positions[axis] + float(distance)))

    def fpm_movetomask(self, stage, mask):
        if mask != "H3":
            raise KeyError(mask)
        self.targets.update(BMX2=1100.0, BMY2=620.0)
        return "ACK"

    def stop(self, axis):
        self.targets[axis] = self.positions[axis]
        return "ACK"


@pytest.fixture
def stages():
    return Stages()


@pytest.fixture
def server(stages):
    with RepServer(stages.answer) as server:
        yield server


@pytest.fixture
def mds(server):
    with MdsClient(server.endpoint, TIMEOUT_S) as client:
        yield client


def test_a_move_is_followed_to_its_target(mds, stages):
    seen, done = [], threading.Event()
    move = mds.move_to("BMX2", 1300.0, on_progress=seen.append, on_done=lambda _: done.set(), **QUICK)
    assert move.result(TIMEOUT_S) == {"BMX2": 1300.0}
    assert done.wait(TIMEOUT_S)
    fractions = [progress.fraction for progress in seen]
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)
    assert any(0.2 < fraction < 0.8 for fraction in fractions)
    assert seen[-1].message == "BMX2 1300.0"


def test_a_relative_move_starts_where_the_axis_stands(mds, stages, server):
    assert mds.move_by("BMX2", -200.0, **QUICK).result(TIMEOUT_S) == {"BMX2": 800.0}
    assert b"moverel BMX2 -200.0000" in server.requests


def test_a_move_to_a_mask_ends_when_both_axes_stand(mds, stages):
    assert mds.move_to_mask(2, "H3", **QUICK).result(TIMEOUT_S) == {"BMX2": 1100.0, "BMY2": 620.0}


def test_an_mds_that_answers_only_after_the_move_is_waited_for(mds, stages):
    stages.busy.clear()
    move = mds.move_to("BMX2", 1060.0, **QUICK)
    with pytest.raises(TimeoutError, match=r"moveabs BMX2 1060\.0000: not done within"):
        move.result(0.1)
    stages.busy.set()
    assert move.result(TIMEOUT_S) == {"BMX2": 1060.0}


def test_cancelling_stops_the_axis_and_tells_where(mds, stages, server):
    stages.step = 0.5
    move = mds.move_to("BMX2", 5000.0, **QUICK)
    wait_until(lambda: move.progress.fraction > 0.0, "the axis moves")
    assert move.cancel()
    with pytest.raises(CancelledOperationError, match=r"cancelled; stopped at BMX2 10\d\d\.\d"):
        move.result(TIMEOUT_S)
    assert server.requests.count(b"stop BMX2") == 1
    assert stages.targets["BMX2"] < 5000.0


def test_cancelling_both_axes_of_a_mask(mds, stages, server):
    stages.step = 0.5
    move = mds.move_to_mask(2, "H3", **QUICK)
    wait_until(lambda: b"fpm_movetomask phasemask2 H3" in server.requests, "the move")
    assert move.cancel()
    with pytest.raises(CancelledOperationError, match=r"stopped at BMX2 .*, BMY2"):
        move.result(TIMEOUT_S)
    assert {b"stop BMX2", b"stop BMY2"} <= set(server.requests)


def test_cancelling_does_not_wait_for_an_mds_that_is_busy(server, stages):
    with MdsClient(server.endpoint, 0.2) as mds:
        stages.busy.clear()
        move = mds.move_to("BMX2", 1060.0, timeout_s=TIMEOUT_S, **QUICK)
        wait_until(lambda: b"moveabs BMX2 1060.0000" in server.requests, "the move")
        assert move.cancel()
        with pytest.raises(CancelledOperationError, match="no reply to 'stop BMX2'"):
            move.result(TIMEOUT_S)
        stages.busy.set()
        wait_until(lambda: b"stop BMX2" in server.requests, "the stop, after the move")


def test_a_move_that_was_cancelled_before_it_was_sent_never_begins(stages):
    sent = threading.Event()

    def answer(request):
        if request.startswith(b"read"):
            assert sent.wait(TIMEOUT_S)
        return stages.answer(request)

    with RepServer(answer) as server, MdsClient(server.endpoint, TIMEOUT_S) as mds:
        move = mds.move_to("BMX2", 1300.0, **QUICK)
        wait_until(lambda: server.requests, "the look before the move")
        assert move.cancel()
        sent.set()
        with pytest.raises(CancelledOperationError):
            move.result(TIMEOUT_S)
        assert not [request for request in server.requests if request.startswith(b"move")]


def test_a_stage_that_gets_stuck_is_an_error_that_says_where(mds, stages):
    stages.stuck_at = 1090.0
    with pytest.raises(BackendError, match=r"moveabs BMX2 .*: BMX2 stands at 1090, not at 1300"):
        mds.move_to("BMX2", 1300.0, **QUICK).result(TIMEOUT_S)


def test_a_move_that_takes_too_long_is_an_error_and_is_not_stopped(mds, stages, server):
    stages.step = 0.5
    with pytest.raises(BackendError, match=r"still moving after 0\.05 s, BMX2"):
        mds.move_to("BMX2", 1e6, timeout_s=0.05, **QUICK).result(TIMEOUT_S)
    assert b"stop BMX2" not in server.requests


def test_a_refused_move_and_an_unknown_axis_are_errors(mds):
    with pytest.raises(BackendError, match=r"refused 'fpm_movetomask phasemask2 H9'.*H9"):
        mds.move_to_mask(2, "H9", **QUICK).result(TIMEOUT_S)
    with pytest.raises(BackendError, match="refused 'read BMX9'"):
        mds.move_to("BMX9", 1.0, **QUICK).result(TIMEOUT_S)


@pytest.mark.parametrize("position", [float("nan"), float("inf")])
def test_a_position_is_a_finite_number(mds, position):
    with pytest.raises(RequestError, match="finite"):
        mds.move_to("BMX2", position)


@pytest.mark.parametrize("reply", [b"\n", b"None\n", b"nan\n"])
def test_a_position_that_is_none_is_an_error(reply):
    with (
        RepServer(lambda request: reply) as server,
        MdsClient(server.endpoint, TIMEOUT_S) as mds,
        pytest.raises(BackendError, match=r"no position in the reply .* to 'read BMX2'"),
    ):
        mds.move_to("BMX2", 1.0).result(TIMEOUT_S)


def test_other_requests_go_on_during_a_move(mds, stages):
    stages.step = 0.5
    move = mds.move_to("BMX2", 1100.0, **QUICK)
    assert mds.send("read BMY2") == "500.0"
    assert not move.is_done
    move.cancel()
    with pytest.raises(CancelledOperationError):
        move.result(TIMEOUT_S)


def test_a_calibration_waits_until_the_mask_stands():
    """Frames taken while the stage still moves would be of no use."""
    instrument = RecordedInstrument()
    with (
        ControlServers(instrument, camera="tcp://127.0.0.1:0", mds="tcp://127.0.0.1:0") as servers,
        ControlClient(servers.mds.endpoint, timeout_s=TIMEOUT_S) as control,
        MdsClient(servers.mds.endpoint, TIMEOUT_S) as mds,
    ):
        at_mask = float(mds.ask("read BMX2"))
        control.move_mask(2, False)
        assert float(mds.ask("read BMX2")) == pytest.approx(at_mask + 200.0)
        assert not instrument.masks_in[2]
        control.move_mask(2, True)
        assert instrument.masks_in[2]


def test_the_thread_of_a_move_ends_with_it(mds):
    move = mds.move_to("BMX2", 1060.0, **QUICK)
    move.result(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while any(thread.name == move.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
