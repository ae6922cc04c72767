"""Semaphores: bounded waits, signals, the cap, and the damage of a reset under a waiter."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time

import pytest

from baldr_tango.errors import BackendError, RequestError
from baldr_tango.streams import Semaphore, Stream

LONG_S = 30.0
"""A wait that only ends in time when it is woken."""


@pytest.fixture
def semaphore(shm_dir):
    with contextlib.closing(Semaphore.open(f"/.dev.shm.{shm_dir.name}.x_sem00", create=True)) as semaphore:
        yield semaphore


@contextlib.contextmanager
def running(target, *arguments):
    """Run `target` in a thread; its result is appended to the list."""
    results = []
    thread = threading.Thread(target=lambda: results.append(target(*arguments)))
    thread.start()
    yield results
    thread.join(LONG_S)
    assert not thread.is_alive()


def plain_wait(semaphore, timeout_s):
    """Wait in the C library without slices, as other programs do; 0 when woken."""
    libc = ctypes.CDLL(None)
    end = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(timeout_s * 1e9)
    timespec = (ctypes.c_long * 2)(*divmod(end, 1_000_000_000))
    return libc.sem_clockwait(ctypes.c_void_p(semaphore.address), 1, timespec)


def registered_waiters(semaphore):
    """Read the number of waiters next to the value, as glibc keeps it on 64-bit machines."""
    return ctypes.c_uint32.from_address(semaphore.address + 4).value


def test_posts_are_counted_and_taken_one_by_one(semaphore):
    assert not semaphore.try_wait()
    assert semaphore.post()
    assert semaphore.post()
    assert semaphore.value() == 2
    assert semaphore.wait(0.0)
    assert semaphore.try_wait()
    assert semaphore.value() == 0
    assert not semaphore.wait(0.0)


def test_posts_stop_at_the_cap(semaphore):
    assert [semaphore.post() for _ in range(12)] == 10 * [True] + 2 * [False]
    assert semaphore.value() == 10
    assert semaphore.drain() == 10
    assert semaphore.value() == 0
    assert [semaphore.post(cap=1), semaphore.post(cap=1)] == [True, False]


def test_wait_that_nobody_ends_is_over_at_its_timeout(semaphore):
    start = time.monotonic()
    assert not semaphore.wait(0.12)  # more than two slices
    assert time.monotonic() - start >= 0.12


def test_wait_ends_with_a_post(semaphore, eventually):
    with running(semaphore.wait, LONG_S) as woken:
        eventually(lambda: registered_waiters(semaphore) == 1)
        semaphore.post()
    assert woken == [True]


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan")])
def test_wait_without_bound_is_refused(timeout_s, semaphore):
    with pytest.raises(RequestError, match="finite"):
        semaphore.wait(timeout_s)


def test_past_timeout_takes_what_is_there(semaphore):
    semaphore.post()
    assert semaphore.wait(-5.0)
    assert not semaphore.wait(-5.0)


def test_signal_handlers_run_during_a_wait(semaphore):
    """A signal neither ends the wait early nor has to wait for its end."""
    calls = []

    def handler(number, frame):
        calls.append(number)
        if len(calls) == 3:
            semaphore.post()

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        woken = semaphore.wait(LONG_S)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert woken
    assert len(calls) >= 3


def test_close_lets_a_waiter_leave_first(semaphore, eventually):
    def wait():
        with pytest.raises(BackendError, match="closed"):
            semaphore.wait(LONG_S)
        return "left"

    with running(wait) as result:
        eventually(lambda: registered_waiters(semaphore) == 1)
        semaphore.close()
    assert result == ["left"]


@pytest.mark.parametrize(
    "call", ["value", "post", "try_wait", "drain", "reset", "repair", "has_lost_waiters"]
)
def test_closed_semaphore_says_so(call, semaphore):
    semaphore.close()
    semaphore.close()
    assert semaphore.address == 0
    with pytest.raises(BackendError, match="closed"):
        getattr(semaphore, call)()


def test_missing_semaphore_is_named(shm_dir):
    with pytest.raises(BackendError, match=r"semaphore /\.dev\.shm\..*none_sem00: .*No such file"):
        Semaphore.open(f"/.dev.shm.{shm_dir.name}.none_sem00")


def test_two_openings_share_one_value_and_unlink_keeps_them(semaphore):
    with contextlib.closing(Semaphore.open(semaphore.name)) as second:
        assert Semaphore.unlink(semaphore.name)
        assert not Semaphore.unlink(semaphore.name)
        semaphore.post()
        assert second.wait(0.0)


def test_reset_on_opening_drops_old_posts(semaphore):
    semaphore.post()
    Semaphore.open(semaphore.name, reset=True).close()
    assert semaphore.value() == 0


def test_wait_survives_a_reset_under_it(semaphore, eventually):
    """The library resets the semaphores of a stream that it re-creates in place."""
    with running(semaphore.wait, LONG_S) as woken:
        eventually(lambda: registered_waiters(semaphore) == 1)
        semaphore.reset()
        semaphore.post()  # wakes nobody: the waiter has been forgotten
    assert woken == [True]


def test_post_that_woke_nobody_is_taken_at_the_timeout(semaphore, monkeypatch):
    """What the C library reports to a waiter that it has forgotten: timed out, with a post to take."""

    def time_out(address, until_ns):
        semaphore.post()
        return False

    monkeypatch.setattr(semaphore, "_wait_until", time_out)
    assert semaphore.wait(0.0)
    assert semaphore.value() == 0


class TestLostWaiters:
    @pytest.fixture
    def damaged(self, shm_dir, eventually):
        """A stream that was reset while a plain waiter slept, and that waiter has given up since."""
        with Stream.create("baldr1", (4, 4), "i4", shm_dir) as stream:
            semaphore = stream.semaphores[1]
            for _ in range(5):  # the waiter may have given up before the reset
                with running(plain_wait, semaphore, 0.2) as result:
                    eventually(lambda result=result: registered_waiters(semaphore) == 1 or result)
                    Stream.create("baldr1", (4, 4), "i4", shm_dir, in_place=True).close()
                assert result == [-1]
                if semaphore.has_lost_waiters():
                    break
            else:
                pytest.skip("this C library keeps its waiters in another way")
            yield stream

    def test_posts_wake_nobody_any_more(self, damaged, eventually):
        """Why all this is needed: should this fail, the C library has been mended."""
        semaphore = damaged.semaphores[1]
        with running(plain_wait, semaphore, 0.5) as result:
            eventually(lambda: registered_waiters(semaphore) == 0 or result)
            semaphore.post()
        assert result == [-1]
        assert semaphore.value() == 1

    def test_opening_the_stream_repairs(self, damaged, eventually, shm_dir):
        damaged.semaphores[1].post()
        with Stream.open("baldr1", shm_dir) as stream:
            semaphore = stream.semaphores[1]
            assert not semaphore.has_lost_waiters()
            assert semaphore.value() == 1
            assert semaphore.wait(0.0)
            with running(plain_wait, semaphore, LONG_S) as result:
                eventually(lambda: registered_waiters(semaphore) == 1)
                semaphore.post()
            assert result == [0]

    def test_waiting_repairs(self, damaged):
        semaphore = damaged.semaphores[1]
        assert not semaphore.wait(0.01)
        assert not semaphore.has_lost_waiters()
        assert not semaphore.repair()
