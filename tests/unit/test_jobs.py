"""Jobs: one at a time, progress, cancellation, errors; and how commands wait for them or not."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from baldr_tango.beam.jobs import Job, JobCancelledError, JobControl, Jobs
from baldr_tango.commands import COMMANDS, door, execute
from baldr_tango.errors import BackendError, BaldrError, RequestError, StateError
from baldr_tango.interface import CommandTable, command
from legacy_zmq.protocol import reply


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs(logging.getLogger("baldr.test"), "beam1")
    yield jobs
    assert jobs.close(5.0)


class Steps:
    """A task that goes on when told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.put_back = False

    def __call__(self, job: JobControl) -> dict[str, Any]:
        try:
            job.progress(0.25, "first")
            self.begun.set()
            while not self.go.is_set():
                job.pause(0.001)
            return {"ok": True, "answer": 42}
        finally:
            self.put_back = True


def test_a_job_tells_how_far_it_is_and_ends_with_its_result(jobs: Jobs) -> None:
    assert jobs.status.state == "idle"
    steps = Steps()
    job = jobs.start("long", steps)
    assert steps.begun.wait(5.0)
    status = jobs.status
    assert (status.name, status.state, status.fraction, status.step) == ("long", "running", 0.25, "first")
    assert status.time_left_s >= 0.0
    with pytest.raises(StateError, match="long is still running"):
        jobs.start("other", steps)
    with pytest.raises(StateError, match="still running"):
        job.wait(0.01)
    steps.go.set()
    assert job.wait(5.0) == {"ok": True, "answer": 42}
    assert (jobs.status.state, jobs.status.fraction) == ("done", 1.0)
    assert jobs.start("next", lambda job: {"ok": True}).wait(5.0) == {"ok": True}


def test_time_left_follows_from_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("baldr_tango.beam.jobs.time.monotonic", lambda: clock[0])
    job = Job("long", lambda job: {}, logging.getLogger("baldr.test"))
    clock[0] = 130.0
    job.tell(0.25, "a quarter in 30 s")
    assert job.status.time_left_s == pytest.approx(90.0)


def test_cancelling_lets_the_job_put_everything_back(jobs: Jobs) -> None:
    steps = Steps()
    job = jobs.start("long", steps)
    assert steps.begun.wait(5.0)
    assert jobs.cancel(5.0).state == "cancelled"
    assert steps.put_back
    with pytest.raises(JobCancelledError):
        job.wait()
    with pytest.raises(StateError, match="no job is running"):
        jobs.cancel(1.0)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(BackendError("no frames"), BackendError), (ZeroDivisionError("x"), BaldrError)],
)
def test_a_failure_reaches_who_waits(jobs: Jobs, raised: Exception, expected: type[Exception]) -> None:
    def fail(job: JobControl) -> dict[str, Any]:
        raise raised

    job = jobs.start("long", fail)
    with pytest.raises(expected, match=str(raised)):
        job.wait(5.0)
    assert jobs.status.state == "failed"
    assert str(raised) in jobs.status.error


@pytest.fixture
def beam(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for a beam, with a table of its own: one long command, one short one."""
    table = CommandTable()

    @command(table, background=True)
    def long(beam: Any, steps: Any = None) -> Job:
        """Take long."""
        job: Job = beam.jobs.start("long", beam.steps)
        return job

    @command(table, waits=True)
    def short(beam: Any) -> int:
        """Take no time."""
        return 1

    monkeypatch.setattr(door, "COMMANDS", table)
    return SimpleNamespace(jobs=jobs, steps=Steps(), log=logging.getLogger("baldr.test"))


def test_a_client_waits_for_the_end_unless_it_says_otherwise(beam: Any) -> None:
    ask = partial(execute, beam)
    assert json.loads(reply('long {"wait":false}', ask)) == {"ok": True, "job": "long", "pending": True}
    answers: list[str] = []
    assert json.loads(reply("long", ask))["error"].startswith("long: long is still running")
    beam.steps.go.set()
    beam.jobs._job.wait(5.0)
    beam.steps = Steps()
    waiting = threading.Thread(target=lambda: answers.append(reply("long", ask)))
    waiting.start()
    assert beam.steps.begun.wait(5.0)
    assert reply("short", ask) == "1"
    assert not answers
    beam.steps.go.set()
    waiting.join(5.0)
    assert json.loads(answers[0]) == {"ok": True, "answer": 42}


def test_a_transport_may_choose_not_to_wait(beam: Any) -> None:
    assert execute(beam, "long", [], wait=False) == {"ok": True, "job": "long", "pending": True}
    beam.steps.go.set()
    beam.jobs._job.wait(5.0)
    beam.steps = Steps()
    beam.steps.go.set()
    assert execute(beam, "long", [{"wait": True}], wait=False) == {"ok": True, "answer": 42}
    with pytest.raises(RequestError, match="wait must be true or false"):
        execute(beam, "long", [{"wait": "no"}])


def test_long_commands_run_beside_others() -> None:
    long = [entry.name for entry in COMMANDS if entry.background]
    assert {"build_interaction_matrix", "probe_interaction_data", "run_probe_method", "acquire_dark"} <= set(
        long
    )
    assert all(COMMANDS.find(name).waits for name in (*long, "job_status", "job_cancel"))
