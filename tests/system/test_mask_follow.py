"""Where the phase mask stands, as a beam publishes it."""

from __future__ import annotations

import itertools
import logging
import math
import threading
from types import SimpleNamespace

import pytest

from baldr_tango.beam import mask_following
from baldr_tango.beam.mask_following import MaskFollower, MaskState
from baldr_tango.peers import MdsClient
from baldr_tango.peers.connection import open_endpoints
from legacy_zmq.virtual_mds import VirtualMds
from tests.system.zmq_servers import TIMEOUT_S, RepServer, silent_endpoint, wait_until
from tests.virtual_controls import RecordedInstrument

pytestmark = pytest.mark.system

UNKNOWN = MaskState()


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
    assert not open_endpoints()


class Following:
    """A follower that looks as often as a test wants, at a time that the test tells."""

    def __init__(self, endpoint: str, beam: int = 2) -> None:
        self.mds = MdsClient(endpoint, TIMEOUT_S)
        self.follower = MaskFollower(
            SimpleNamespace(settings=SimpleNamespace(beam=beam), log=logging.getLogger("baldr.test"))
        )
        self.follower.start(self.mds)
        self.now = 100.0
        self.texts: list[str] = []

    def look(self, seconds: float = 0.0) -> MaskState:
        """Let time pass, look until the reply to what was asked has been seen."""
        self.now += seconds
        self.follower.look(self.now)
        while self.follower._question is not None:
            wait_until(self.follower._question.done, "the reply")
            self.follower.look(self.now)
        if self.texts[-1:] != [self.follower.state.text]:
            self.texts.append(self.follower.state.text)
        return self.follower.state

    def settle(self) -> MaskState:
        """Look for five seconds, twice a second."""
        for _ in range(10):
            self.look(mask_following.MOVING_PERIOD_S)
        return self.follower.state

    def close(self) -> None:
        self.follower.stop()
        self.mds.close()


@pytest.fixture
def follow():
    opened = []

    def make(endpoint, beam=2):
        opened.append(Following(endpoint, beam))
        return opened[-1]

    yield make
    for following in opened:
        following.close()


@pytest.fixture
def server():
    with RepServer(VirtualMds(RecordedInstrument(), "H3").answer) as server:
        yield server


def reads(server):
    return [request for request in server.requests if request.startswith(b"read BM")]


def test_the_position_is_told_and_has_no_name_at_first(follow, server):
    following = follow(server.endpoint)
    state = following.look()
    x, y = (float(following.mds.ask(f"read BM{axis}2")) for axis in "XY")
    assert state == MaskState(x, y, "unnamed position")
    assert reads(server)[:2] == [b"read BMX2", b"read BMY2"]


def test_a_position_that_does_not_change_is_looked_at_slowly(follow, server):
    following = follow(server.endpoint)
    following.look()
    for _ in range(20):
        following.look(0.4 * mask_following.PERIOD_S)
    assert 2 * 7 <= len(reads(server)) <= 2 * 9


def test_a_mask_that_was_moved_to_by_name_is_known_by_it_from_then_on(follow, server):
    following = follow(server.endpoint)
    following.look()
    following.mds.ask("fpm_movetomask phasemask2 H5")
    assert following.settle().text == "H5"
    assert following.texts == ["unnamed position", "moving", "H5"]
    following.mds.ask("moverel BMX2 200.0")
    assert following.settle().text == "unnamed position"
    following.mds.ask("moverel BMX2 -200.0")
    assert following.settle().text == "H5"
    following.mds.ask("moverel BMX2 3.0")
    assert following.settle().text == "H5"


def test_what_another_beam_of_the_process_asks_of_the_mds_is_seen(follow, server):
    one, two = follow(server.endpoint, 1), follow(server.endpoint, 2)
    one.look()
    two.look()
    before = one.follower.state
    one.mds.ask("fpm_movetomask phasemask2 J2")
    assert two.settle().text == "J2"
    assert one.settle() == before


def test_a_refused_move_names_nothing(follow, server):
    following = follow(server.endpoint)
    following.look()
    assert following.mds.send("fpm_movetomask phasemask2 nonsense").startswith("NACK")
    assert following.settle().text == "unnamed position"


def test_a_question_moves_nothing_and_is_no_reason_to_look(follow, server):
    following = follow(server.endpoint)
    following.look()
    before = len(reads(server))
    following.mds.ask("state BMX2")
    following.mds.ask("on SBB")
    following.look(0.1 * mask_following.PERIOD_S)
    assert len(reads(server)) == before


def on_its_way(*positions):
    """Answers of an MDS whose stages are one position further with each look, and stand at the last [um]."""
    way = itertools.chain(positions, itertools.repeat(positions[-1]))
    place = [0.0]

    def answer(request):
        if request == b"read BMX2":
            place[0] = next(way)
        return f"{place[0]}\n".encode()

    return answer


def test_a_stage_that_moves_is_moving_until_it_stands(follow):
    """Somebody else moves it: no command of this process says so."""
    with RepServer(on_its_way(0.0, 0.0, 100.0, 250.0, 400.0, 420.0)) as server:
        following = follow(server.endpoint)
        following.look()
        following.look(mask_following.PERIOD_S)
        assert following.follower.state.text == "unnamed position"
        assert following.look(mask_following.PERIOD_S).text == "moving"
        assert following.settle() == MaskState(420.0, 420.0, "unnamed position")
        assert following.texts == ["unnamed position", "moving", "unnamed position"]


def test_an_absent_mds_makes_the_position_unknown_until_it_comes(follow, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(mask_following, "ANSWER_S", 0.05)
    endpoint = silent_endpoint()
    following = follow(endpoint)
    for _ in range(20):
        assert following.look(mask_following.PERIOD_S) == UNKNOWN
    assert following.mds.health.counters.requests < 10, "no back-off"
    assert caplog.text.count("is not known") == 1
    monkeypatch.setattr(mask_following, "ANSWER_S", TIMEOUT_S)
    with RepServer(VirtualMds(RecordedInstrument(), "H3").answer, endpoint):
        state = following.look(mask_following.LONGEST_PAUSE_S)
        assert state.text == "unnamed position"
        assert state.x_um is not None


@pytest.mark.parametrize("reply", [b"NACK: not connected\n", b"\n", b"nan\n"])
def test_a_reply_without_a_position_is_unknown(follow, reply):
    with RepServer(lambda request: reply) as server:
        assert follow(server.endpoint).look() == UNKNOWN


def test_looking_never_waits_for_the_mds(follow):
    hold = threading.Event()
    with RepServer(lambda request: (hold.wait(TIMEOUT_S), b"1.0\n")[1]) as server:
        following = follow(server.endpoint)
        for _ in range(5):
            following.follower.look(following.now)
        wait_until(lambda: server.requests, "the question")
        assert following.follower.state == UNKNOWN
        hold.set()
        assert following.look().x_um == 1.0


def test_since_when_it_rests_is_the_look_that_saw_it_move_last(follow):
    """Somebody else moves it, 300 um on the way and 20 um at the end; then it stands."""
    with RepServer(on_its_way(0.0, 0.0, 300.0, 320.0, 320.3)) as server:
        following = follow(server.endpoint)
        following.look()
        following.look(mask_following.PERIOD_S)
        assert (following.follower.at_rest_since_s, following.follower.may_move) == (-math.inf, False)
        following.look(mask_following.PERIOD_S)
        assert following.follower.may_move
        following.look(mask_following.MOVING_PERIOD_S)
        last = following.now
        assert following.follower.at_rest_since_s == last
        following.settle()
        assert (following.follower.at_rest_since_s, following.follower.may_move) == (last, False)


def test_a_mask_that_was_sent_somewhere_may_move_before_it_is_seen_to(follow, server):
    following = follow(server.endpoint)
    following.look()
    assert not following.follower.may_move
    following.mds.ask("moverel BMX2 200.0")
    assert following.follower.state.text == "unnamed position"
    assert following.follower.may_move
    following.settle()
    assert not following.follower.may_move
    assert following.follower.at_rest_since_s > 100.0


def test_a_place_that_changed_while_the_mds_was_away_counts_as_a_move(follow, monkeypatch):
    monkeypatch.setattr(mask_following, "ANSWER_S", TIMEOUT_S)
    x = [0.0, 700.0]
    with RepServer(lambda request: b"NACK\n" if not x else f"{x[0]}\n".encode()) as server:
        following = follow(server.endpoint)
        following.look()
        kept, x[:] = x[1], []
        assert following.look(mask_following.PERIOD_S) == UNKNOWN
        assert not following.follower.may_move
        x[:] = [kept]
        following.look(mask_following.LONGEST_PAUSE_S)
        assert following.follower.at_rest_since_s == following.now
