"""Long operations: progress, result, cancellation, callbacks; the threads for them."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from baldr_tango.peers.callbacks import CallbackThread
from baldr_tango.peers.operation import CancelledOperationError, Operation, Progress
from baldr_tango.peers.patience import Patience

TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), thread


def test_an_operation_reports_and_returns():
    seen, done = [], threading.Event()

    def task(operation):
        operation.report(0.5, "half way")
        operation.report(2.0)
        return 42

    operation = Operation("sweep", task, on_progress=seen.append, on_done=lambda _: done.set())
    assert operation.result(TIMEOUT_S) == 42
    assert done.wait(TIMEOUT_S)
    assert seen == [Progress(0.5, "half way"), Progress(1.0, "")]
    assert operation.progress.fraction == 1.0
    assert operation.is_done
    assert not operation.is_cancelled


def test_the_error_of_the_task_is_the_error_of_the_result():
    def task(operation):
        raise KeyError("BMX9")

    with pytest.raises(KeyError, match="BMX9"):
        Operation("move", task).result(TIMEOUT_S)


def test_waiting_too_briefly_for_the_result_changes_nothing():
    go = threading.Event()
    operation = Operation("move", lambda _: go.wait(TIMEOUT_S))
    with pytest.raises(TimeoutError, match="move: not done within"):
        operation.result(0.01)
    go.set()
    assert operation.result(TIMEOUT_S) is True


def test_a_time_out_inside_the_task_is_its_error_and_not_one_of_waiting():
    def task(operation):
        raise TimeoutError("no reply to 'read BMX1'")

    with pytest.raises(TimeoutError, match="no reply"):
        Operation("move", task).result(TIMEOUT_S)


@pytest.mark.parametrize("wait", ["reply", "pause"])
def test_cancelling_ends_every_wait_of_the_task_after_the_hardware_is_told(wait):
    order, waiting = [], threading.Event()
    unanswered: Future[str] = Future()

    def task(operation):
        waiting.set()
        if wait == "reply":
            operation.reply_to(unanswered)
        operation.pause(1000.0)

    operation = Operation(
        "move",
        task,
        stop=lambda: order.append("stop"),
        after_cancel=lambda: order.append("look") or "stopped at 7",
    )
    assert waiting.wait(TIMEOUT_S)
    assert operation.cancel()
    with pytest.raises(CancelledOperationError, match="move: cancelled; stopped at 7"):
        operation.result(TIMEOUT_S)
    assert order == ["stop", "look"]
    assert operation.is_cancelled
    assert operation.cancel()
    assert order == ["stop", "look"]
    assert unanswered.cancelled() == (wait == "reply")


def test_an_error_while_looking_after_the_stop_is_told():
    go = threading.Event()

    def look():
        raise OSError("the stop was not answered")

    operation = Operation("move", lambda o: o.pause(1000.0), after_cancel=look, on_done=lambda _: go.set())
    operation.cancel()
    with pytest.raises(CancelledOperationError, match="the stop was not answered"):
        operation.result(TIMEOUT_S)
    assert go.wait(TIMEOUT_S)


def test_a_stop_that_cannot_be_sent_is_raised_and_the_operation_ends_all_the_same():
    def stop():
        raise OSError("closed")

    operation = Operation("move", lambda o: o.pause(1000.0), stop=stop)
    with pytest.raises(OSError, match="closed"):
        operation.cancel()
    with pytest.raises(CancelledOperationError):
        operation.result(TIMEOUT_S)


def test_after_the_end_there_is_nothing_to_cancel():
    stopped = []
    operation = Operation("move", lambda _: "there", stop=lambda: stopped.append(1))
    assert operation.result(TIMEOUT_S) == "there"
    assert not operation.cancel()
    assert not stopped
    assert operation.result(0) == "there"


def test_a_failing_callback_is_logged_and_changes_nothing(caplog):
    def fail(_):
        raise ValueError("in a callback")

    def task(operation):
        operation.report(0.1)
        return "there"

    operation = Operation("move", task, on_progress=fail, on_done=fail)
    assert operation.result(TIMEOUT_S) == "there"
    for thread in threading.enumerate():
        if thread.name == "move":
            thread.join(TIMEOUT_S)
    assert "move: the callback for its progress failed" in caplog.text
    assert "move: the callback for its end failed" in caplog.text


def test_a_callback_thread_calls_in_order_and_survives_a_failure(caplog):
    thread, seen = CallbackThread("callbacks"), []
    thread.call(lambda: seen.append((1, threading.current_thread().name)))
    thread.call(lambda: 1 / 0)
    thread.call(lambda: seen.append((2, threading.current_thread().name)))
    assert thread.stop(TIMEOUT_S)
    assert seen == [(1, "callbacks"), (2, "callbacks")]
    assert "division by zero" in caplog.text


def test_a_callback_thread_may_be_stopped_from_a_callback_and_used_again():
    thread, seen = CallbackThread("callbacks"), []
    told = threading.Event()
    thread.call(lambda: (seen.append(thread.stop(TIMEOUT_S)), told.set()))
    assert told.wait(TIMEOUT_S)
    thread.call(lambda: seen.append("again"))
    assert thread.stop(TIMEOUT_S)
    assert seen == [False, "again"]
    assert thread.stop(TIMEOUT_S)


def test_a_nudge_ends_one_pause_only_even_when_it_comes_before():
    patience = Patience()
    patience.nudge()
    patience.nudge()
    assert patience.pause(1000.0)
    nudger = threading.Timer(0.01, patience.nudge)
    nudger.start()
    assert patience.pause(1000.0)
    nudger.join()


def test_giving_up_ends_the_present_wait_and_all_later_ones():
    patience = Patience()
    done: Future[int] = Future()
    done.set_exception(ValueError())
    assert patience.wait(done)
    waiter = threading.Timer(0.01, patience.give_up)
    waiter.start()
    assert not patience.wait(Future())
    assert not patience.pause(1000.0)
    assert patience.has_given_up
    waiter.join()
