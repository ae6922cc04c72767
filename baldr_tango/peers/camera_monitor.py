"""Follows what the camera is set to, once for all users of a process."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from baldr_tango.errors import BackendError
from baldr_tango.peers.camera import (
    FPS,
    GAIN,
    NBREADWORESET,
    CameraClient,
    cli_request,
    decode_reply,
    first_number,
)
from baldr_tango.peers.health import Health, PeerState
from baldr_tango.peers.patience import Patience
from baldr_tango.peers.shared import Shared

log = logging.getLogger("baldr.peers")

PERIOD_S: Final = 1.0
"""Time between two rounds of questions, unless the answers take longer than half of that."""

LONGEST_PAUSE_S: Final = 30.0
"""Pause that the back-off ends at while the server does not answer."""

_QUESTIONS: Final = (FPS, GAIN, NBREADWORESET)


@dataclass(frozen=True)
class CameraState:
    """What the camera server said last."""

    fps: float | None = None
    """Frame rate [Hz]; None: never answered."""
    gain: float | None = None
    """Detector gain."""
    nbreadworeset: int | None = None
    """Non-destructive reads between two resets."""
    is_up: bool = False
    """The newest round of questions was answered."""
    since: float = 0.0
    """Time at which `is_up` took its value [s since 1970]."""
    last_answer: float | None = None
    """Time of the newest answer [s since 1970]."""
    rounds: int = 0
    """Rounds of questions that have ended, answered or not."""
    reason: str = ""
    """Why there was no answer, or which answer was of no use."""

    @property
    def text(self) -> str:
        """The state of the server for people."""
        if self.is_up:
            return "up"
        if not self.rounds:
            return "not asked yet"
        last = datetime.fromtimestamp(self.last_answer or self.since)
        return f"no answer since {last.isoformat(' ', 'seconds')}"


class CameraMonitor:
    """Asks the camera server for frame rate, gain and reads without reset, about once a second.

    The server answers one request at a time over a slow serial line. So there is never more than one
    question of the monitor in front of somebody else's request, and after each round the line rests for as
    long as the round took. While the server does not answer, the pauses grow to `LONGEST_PAUSE_S`; a new
    connection ends them. Every other request that this process makes of the server is followed by a round.

    Parameters
    ----------
    endpoint : ZMQ endpoint of the server.
    timeout_s : longest wait for one answer [s].
    period_s : time from one round of questions to the next [s].
    """

    def __init__(self, endpoint: str, timeout_s: float = 3.0, period_s: float = PERIOD_S) -> None:
        self.endpoint = endpoint
        self._period_s = period_s
        self._client = CameraClient(endpoint, timeout_s)
        self._own = {cli_request(text) for text in _QUESTIONS}
        self._patience = Patience()
        self._state = CameraState(since=time.time())
        self._client.connection.on_exchange.append(self._note_exchange)
        self._client.connection.on_state.append(self._note_state)
        self._thread = threading.Thread(target=self._run, name=f"camera monitor {endpoint}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> CameraState:
        """What the camera server said last; never waits."""
        return self._state

    @property
    def health(self) -> Health:
        """How the connection to the server is doing."""
        return self._client.health

    def ask(self) -> None:
        """Have a round of questions asked at once; does not wait for it."""
        self._patience.nudge()

    def close(self) -> None:
        """Give up this use of the monitor; the last one ends it."""
        if not _monitors.release(self.endpoint, self):
            return
        self._patience.give_up()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)
        self._client.connection.on_exchange.remove(self._note_exchange)
        self._client.connection.on_state.remove(self._note_state)
        self._client.close()

    def _note_exchange(self, request: bytes, reply: bytes | None) -> None:
        if request not in self._own:
            self._patience.nudge()

    def _note_state(self, health: Health) -> None:
        if health.state is PeerState.UP and self._state.rounds and not self._state.is_up:
            self._patience.nudge()

    def _run(self) -> None:
        failures = 0
        while not self._patience.has_given_up:
            began = time.monotonic()
            try:
                failures = 0 if self._round() else failures + 1
            except Exception:
                log.exception("the camera monitor of %s failed; going on", self.endpoint)
                failures += 1
            took = time.monotonic() - began
            if failures:
                rest = min(LONGEST_PAUSE_S, self._period_s * 2.0 ** min(failures - 1, 10))
            else:
                rest = max(self._period_s - took, took)
            if not self._patience.pause(rest):
                return

    def _round(self) -> bool:
        """Ask each question once, one after the other; False when the server does not answer."""
        now = replace(self._state, rounds=self._state.rounds + 1, reason="")
        answers = {}
        try:
            for question in _QUESTIONS:
                reply = self._reply(question)
                if reply is None:
                    return False
                now = replace(now, last_answer=time.time())
                answers[question] = _number(reply)
        except BackendError as error:
            self._enter(replace(now, is_up=False, reason=str(error)))
            return False
        useless = [question for question, number in answers.items() if number is None]
        fps, gain, reads = (answers[question] for question in _QUESTIONS)
        self._enter(
            replace(
                now,
                fps=fps if fps is not None and fps > 0 else now.fps,
                gain=gain if gain is not None and gain > 0 else now.gain,
                nbreadworeset=now.nbreadworeset if reads is None else round(reads),
                is_up=True,
                reason=f"no number in the answer to {', '.join(useless)}" if useless else "",
            )
        )
        return True

    def _reply(self, question: str) -> bytes | None:
        """Ask one question; None when the monitor is being closed."""
        future = self._client.connection.submit(cli_request(question), self._client.timeout_s)
        return future.result() if self._patience.wait(future) else None

    def _enter(self, state: CameraState) -> None:
        before, peer = self._state, f"camera server at {self.endpoint}"
        if state.is_up != before.is_up:
            state = replace(state, since=time.time())
        if state.is_up and not before.is_up:
            log.info("%s: %s Hz, gain %s", peer, state.fps, state.gain)
        elif not state.is_up and (before.is_up or not before.rounds):
            log.warning("%s does not answer: %s", peer, state.reason)
        if state.is_up and state.reason != before.reason and state.reason:
            log.warning("%s: %s", peer, state.reason)
        self._state = state


def _number(reply: bytes) -> float | None:
    """Return the number in the camera's answer, or None."""
    try:
        number = first_number(str(decode_reply(reply.decode("utf-8", "replace"))))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


_monitors: Shared[CameraMonitor] = Shared()


def camera_monitor(endpoint: str, timeout_s: float = 3.0) -> CameraMonitor:
    """Return the process's monitor of a camera server; each call needs one `CameraMonitor.close`."""
    return _monitors.acquire(endpoint, lambda: CameraMonitor(endpoint, timeout_s))
