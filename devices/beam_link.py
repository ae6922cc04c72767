"""One beam as the instrument sees it: looked at regularly and given commands, never waited for.

Every call of a beam is made in a thread of the beam's own. Tango's asynchronous calls would not do: they
connect in the calling thread, and a call within one process has no time-out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final

import tango
from tango.utils import PyTangoThread

from baldr_tango.errors import BackendError
from devices.cli.beams import BeamClient, Report
from devices.instrument_commands import Outcome, Request

LOOK_PERIOD_S: Final = 0.5
START_S: Final = 5.0
"""A beam that has not been seen so early is taken for one that is starting."""

MOST_CALLS: Final = 8
"""Commands to one beam that may be unanswered; one more fails at once."""


class _Call:
    """A command at a beam: the answer, and the look at the beam after it."""

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()
        self.seen: Future[None] = Future()


class BeamLink:
    """The connection with one beam.

    Parameters
    ----------
    beam : its number.
    connect : returns a client of its device; called in a thread of the link, may fail.
    names : attributes that are looked at.
    timeout_s : after which a beam counts as one that does not answer.
    on_change : called, in a thread of the link, when a look shows another state; quick.
    """

    def __init__(
        self,
        beam: int,
        connect: Callable[[], BeamClient],
        names: Sequence[str],
        timeout_s: float,
        on_change: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        self.beam = beam
        self._connect = connect
        self._names = names
        self._stale_s = timeout_s + 2.0 * LOOK_PERIOD_S
        self._on_change = on_change
        self._log = log
        self._lock = threading.Lock()
        self._client: BeamClient | None = None
        self._report = Report(beam)
        self._looked_s = self._started_s = time.monotonic()
        self._was_seen = False
        self._calls = 0
        self._stop = threading.Event()
        self._thread = PyTangoThread(target=self._watch, name=f"watch beam {beam}", daemon=True)

    def start(self) -> None:
        """Begin to look at the beam."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Make the thread end after the look that it is taking."""
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def report(self) -> Report:
        """Return what was seen last; a beam that has not answered for too long is UNKNOWN. Never waits."""
        with self._lock:
            report, looked_s, was_seen = self._report, self._looked_s, self._was_seen
        now_s = time.monotonic()
        if not was_seen and now_s - self._started_s < START_S:
            return Report(self.beam, tango.DevState.INIT, report.status or "not seen yet")
        if now_s - looked_s > self._stale_s:
            return Report(self.beam, status=f"no answer for {now_s - looked_s:.0f} s")
        return report

    def call(self, command: str, argument: Any, deadline_s: float) -> _Call:
        """Give the beam a command, in a thread for that; returns at once.

        Parameters
        ----------
        deadline_s : monotonic time after which it is not sent any more.
        """
        call = _Call()
        with self._lock:
            is_busy = self._calls >= MOST_CALLS
            self._calls += not is_busy
        if is_busy:
            call.answer.set_exception(BackendError(f"{MOST_CALLS} earlier commands are not answered yet"))
            call.seen.set_result(None)
        else:
            arguments = (call, command, argument, deadline_s)
            name = f"{command} beam {self.beam}"
            PyTangoThread(target=self._run, args=arguments, name=name, daemon=True).start()
        return call

    def _run(self, call: _Call, command: str, argument: Any, deadline_s: float) -> None:
        begun_s = time.monotonic()
        try:
            client = self._connected()
            if time.monotonic() > deadline_s:
                raise BackendError(f"{command}: connected too late, not sent")
            call.answer.set_result(client.run(command, argument))
        except Exception as error:
            call.answer.set_exception(error)
        if time.monotonic() > deadline_s:
            failure = call.answer.exception()
            self._log.warning(
                "beam %d: %s: %s only after %.1f s",
                self.beam,
                command,
                "done" if failure is None else f"failed ({failure})",
                time.monotonic() - begun_s,
            )
        with self._lock:
            self._calls -= 1
        self._look()
        call.seen.set_result(None)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._look()
            self._stop.wait(LOOK_PERIOD_S)

    def _look(self) -> None:
        begun_s = time.monotonic()
        try:
            report = self._connected().report(self._names)
        except Exception as error:
            report = Report(self.beam, status=str(error))
        with self._lock:
            if begun_s < self._looked_s:
                return  # another thread has looked later
            before, self._report, self._looked_s = self._report, report, begun_s
            self._was_seen |= report.is_reachable
        if report.state != before.state:
            self._on_change()

    def _connected(self) -> BeamClient:
        client = self._client
        if client is None:
            client = self._client = self._connect()
        return client


def ask(links: Mapping[int, BeamLink], request: Request, timeout_s: float) -> dict[int, Outcome]:
    """Give a command to the beams of a request, all at the same time; never takes longer than `timeout_s`.

    The caller must not hold the monitor of its device.
    """
    deadline_s = time.monotonic() + timeout_s
    name = request.entry.tango_name
    calls = {beam: links[beam].call(name, request.argument, deadline_s) for beam in request.beams}
    answered, _ = wait([call.answer for call in calls.values()], timeout_s)
    # What a client reads after the command is not older than the command.
    seen = [call.seen for call in calls.values() if call.answer in answered]
    wait(seen, max(0.0, deadline_s - time.monotonic()))
    return {beam: _outcome(call, call.answer in answered, timeout_s) for beam, call in calls.items()}


def _outcome(call: _Call, is_answered: bool, timeout_s: float) -> Outcome:
    if not is_answered:
        late = f"no answer within {timeout_s:g} s; it may still be carried out"
        return Outcome(error=BackendError(late))
    error = call.answer.exception()
    if error is None:
        return Outcome(call.answer.result())
    return Outcome(error=error if isinstance(error, Exception) else BackendError(str(error)))
