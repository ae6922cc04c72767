"""Requests that wait for their reply: matching, time-outs, cancellation, loss; the peer's health."""

from __future__ import annotations

import time

import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.peers.health import ConnectionCounters, HealthRecord, PeerState
from baldr_tango.peers.pending import LostConnectionError, NoReplyError, PendingRequests, Request
from baldr_tango.peers.shared import Shared


@pytest.fixture
def counters():
    return ConnectionCounters()


@pytest.fixture
def pending(counters):
    return PendingRequests("camera server at tcp://x", counters)


def hand_in(pending, key, timeout_s=1.0, decode=bytes, **more):
    request = Request(key, b"ask " + key, timeout_s, decode, **more)
    pending.add(request)
    return request


def send_all(pending):
    sent = []
    while (request := pending.next_unsent()) is not None:
        pending.mark_sent()
        sent.append(request.key)
    return sent


def test_requests_are_sent_in_order_and_replies_matched_in_any(pending, counters):
    one, two, three = (hand_in(pending, key) for key in (b"1", b"2", b"3"))
    assert send_all(pending) == [b"1", b"2", b"3"]
    for request, reply in ((two, b"b"), (three, b"c"), (one, b"a")):
        assert not request.future.done()
        assert pending.answer(request.key, reply) is request
        assert request.future.result(0) == reply
    assert len(pending) == 0
    assert (counters.requests, counters.sent, counters.replies) == (3, 3, 3)


def test_each_request_has_its_own_time_out_counted_from_its_own_beginning(pending, counters):
    hasty, patient = hand_in(pending, b"h", 0.5), hand_in(pending, b"p", 5.0)
    send_all(pending)
    begun = hasty.deadline - 0.5
    assert pending.seconds_left(begun) == pytest.approx(0.5)
    assert pending.expire(begun + 0.49) == []
    assert pending.expire(begun + 0.51) == [hasty]
    with pytest.raises(NoReplyError, match=r"camera server at tcp://x: no reply to 'ask h' .*0\.5 s"):
        hasty.future.result(0)
    assert not patient.future.done()
    assert pending.answer(b"p", b"here") is patient
    assert counters.timeouts == 1


def test_a_late_reply_is_counted_and_dropped(pending, counters):
    slow = hand_in(pending, b"s", 0.1)
    other = hand_in(pending, b"o", 9.0)
    send_all(pending)
    pending.expire(slow.deadline)
    assert pending.answer(b"s", b"too late") is None
    assert counters.late_replies == 1
    assert not other.future.done()


def test_what_was_not_sent_in_time_is_never_sent(pending):
    request = hand_in(pending, b"m", 0.1)
    pending.expire(request.deadline)
    assert send_all(pending) == []
    with pytest.raises(NoReplyError, match="not reachable, 'ask m' was not sent"):
        request.future.result(0)


def test_a_request_can_be_taken_back_until_it_is_sent(pending, counters):
    early, late = hand_in(pending, b"e"), hand_in(pending, b"l")
    assert early.future.cancel()
    assert send_all(pending) == [b"l"]
    assert not late.future.cancel()
    assert counters.cancelled == 1
    assert pending.answer(b"l", b"done") is late


def test_a_request_taken_back_may_also_expire(pending, counters):
    request = hand_in(pending, b"e", 0.1)
    assert request.future.cancel()
    pending.expire(request.deadline)
    assert (counters.cancelled, counters.timeouts, len(pending)) == (1, 0, 0)


def test_a_broken_connection_fails_what_was_sent_and_keeps_the_rest(pending, counters):
    sent = hand_in(pending, b"s")
    send_all(pending)
    unsent = hand_in(pending, b"u")
    assert pending.lose_sent() == [sent]
    with pytest.raises(LostConnectionError, match="broke before the reply to 'ask s'; it may have been"):
        sent.future.result(0)
    assert send_all(pending) == [b"u"]
    assert not unsent.future.done()
    assert counters.lost == 1


def test_the_reply_is_decoded_and_a_fault_of_it_is_the_callers(pending):
    number, word = hand_in(pending, b"n", decode=float), hand_in(pending, b"w", decode=float)
    send_all(pending)
    pending.answer(b"n", b"2.5")
    pending.answer(b"w", b"two")
    assert number.future.result(0) == 2.5
    with pytest.raises(ValueError, match="two"):
        word.future.result(0)


def test_reports_of_progress_leave_the_request_waiting(pending, counters):
    seen = []

    def is_progress(reply):
        seen.append(reply)
        return reply.startswith(b"%")

    sweep = hand_in(pending, b"s", is_progress=is_progress)
    broken = hand_in(pending, b"b", is_progress=lambda reply: 1 / 0)
    send_all(pending)
    for reply in (b"%10", b"%50"):
        assert pending.answer(b"s", reply) is None
    assert counters.late_replies == 0
    assert counters.progress == 2
    assert not sweep.future.done()
    assert pending.answer(b"s", b"data") is sweep
    assert sweep.future.result(0) == b"data"
    assert seen == [b"%10", b"%50", b"data"]
    pending.answer(b"b", b"%1")
    with pytest.raises(ZeroDivisionError):
        broken.future.result(0)


def test_everything_can_be_given_up_at_once(pending):
    requests = [hand_in(pending, b"1"), hand_in(pending, b"2")]
    send_all(pending)
    requests.append(hand_in(pending, b"3"))
    assert pending.take_all() == requests
    assert pending.next_unsent() is None
    assert pending.seconds_left(time.monotonic()) is None
    for request in requests:
        request.fail(BackendError("closed"))
        with pytest.raises(BackendError, match="closed"):
            request.future.result(0)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_out_is_a_positive_number(timeout_s):
    with pytest.raises(RequestError, match="time-out must be a positive number of seconds"):
        Request(b"k", b"x", timeout_s, bytes)


def test_a_long_request_is_shortened_in_messages():
    assert len(Request(b"k", b"x" * 500, 1.0, bytes).text) < 70


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def record(clock):
    return HealthRecord("tcp://x", "MDS", clock)


def test_health_follows_the_connection(record, clock):
    assert record.present().state is PeerState.UNUSED
    record.connecting()
    clock.now = 101.0
    record.retrying(0.05)
    record.retrying(0.1)
    down = record.present(3)
    assert (down.state, down.since, down.retry_s, down.waiting) == (PeerState.DOWN, 101.0, 0.1, 3)
    assert "nobody answers" in down.reason
    clock.now = 102.0
    record.connected()
    up = record.present()
    assert (up.state, up.since, up.retry_s, up.reason) == (PeerState.UP, 102.0, 0.0, "")
    assert record.counters.reconnects == 0
    clock.now = 103.0
    record.disconnected("the connection broke")
    record.connected()
    assert record.present().since == 103.0
    assert record.counters.reconnects == 1


def test_a_peer_that_owes_an_answer_is_silent_until_it_gives_one(record, clock):
    record.connected()
    clock.now = 110.0
    record.unanswered("no reply to 'x'")
    assert (record.present().state, record.present().since) == (PeerState.SILENT, 110.0)
    assert record.is_connected
    clock.now = 120.0
    record.answered()
    now = record.present()
    assert (now.state, now.since, now.last_reply, now.reason) == (PeerState.UP, 120.0, 120.0, "")
    clock.now = 130.0
    record.answered()
    assert (record.present().since, record.present().last_reply) == (120.0, 130.0)
    assert record.counters.reconnects == 0


def test_a_request_that_cannot_be_sent_does_not_make_an_absent_peer_silent(record):
    record.connecting()
    record.retrying(1.0)
    record.unanswered("no reply")
    assert record.present().state is PeerState.DOWN


def test_an_attempt_that_fails_late_does_not_hide_a_connection(record):
    record.connected()
    record.retrying(0.05)
    assert record.present().state is PeerState.UP


def test_health_is_plain_numbers_and_texts_for_json(record):
    shown = record.present().as_dict()
    assert shown["state"] == "unused"
    assert shown["counters"]["late_replies"] == 0


def test_a_shared_object_is_made_once_and_taken_down_by_its_last_user():
    shared, made = Shared(), []

    def make():
        made.append(object())
        return made[-1]

    first, second = shared.acquire("a", make), shared.acquire("a", make)
    other = shared.acquire("b", make)
    assert first is second is not other
    assert not shared.release("a", first)
    assert set(shared.items()) == {"a", "b"}
    assert shared.release("a", first)
    assert shared.items() == {"b": other}
    assert shared.acquire("a", make) is not first
    assert len(made) == 3
