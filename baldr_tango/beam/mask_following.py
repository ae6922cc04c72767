"""Where the phase mask of a beam stands, as the MDS says."""

from __future__ import annotations

import math
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from baldr_tango.errors import BaldrError
from baldr_tango.peers import MdsClient

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

PERIOD_S: Final = 10.0
"""Time between two looks while nothing moves [s]."""

MOVING_PERIOD_S: Final = 0.5
"""Time between two looks while the stage moves, or may move [s]."""

LONGEST_PAUSE_S: Final = 60.0
"""Pause that the back-off ends at while the MDS does not answer [s]."""

STILL_UM: Final = 0.5
"""Distance between two looks within which the stage counts as standing [um]."""

STANDING_LOOKS: Final = 3
"""Looks without a move after which the stage stands; one may come before it begins to move."""

ANSWER_S: Final = 5.0
"""Longest wait for a position [s]: there is no hurry, and the MDS may be busy with a move."""

SAME_MASK_UM: Final = 5.0
"""Distance from where a mask was left within which the stage still counts as there [um]."""


@dataclass(frozen=True)
class MaskState:
    """Where the phase mask stands."""

    x_um: float | None = None
    """Position of the stage [um]; None: not known."""
    y_um: float | None = None
    text: str = "unknown"
    """Name of the mask, "unnamed position", "moving" or "unknown"."""


class MaskFollower:
    """Reads the position of the beam's phase-mask stage, slowly; sooner after a command that may move it.

    The MDS tells positions, not names. A position gets its name when this process has sent the stage to a
    mask by its name and the stage has come to rest.

    Nothing here waits: each look hands in one question at the most, and the reply is there at a later one.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        number = beam.settings.beam
        self._axes = (f"BMX{number}", f"BMY{number}")
        self._by_name = re.compile(rf"fpm_movetomask\s+phasemask{number}\s+(\S+)")
        self._concerns = re.compile(rf"(?!read|state|ping|connected).*(?:phasemask|BM[XY]){number}\b")
        self._lock = threading.Lock()
        self._mds: MdsClient | None = None
        self._question: Future[str] | None = None
        self._read: list[float] = []
        self._names: dict[str, tuple[float, float]] = {}
        self._wanted = ""
        self._may_move = False
        self._still = 0
        self._failures = 0
        self._due = 0.0
        self._place: tuple[float, float] | None = None
        self.state: MaskState = MaskState()
        """Where it stood last."""
        self.at_rest_since_s = -math.inf
        """CLOCK_MONOTONIC of the look that saw it move last [s]; it has come to rest by then if `may_move` is
        false. Minus infinity: it was never seen to move."""

    @property
    def may_move(self) -> bool:
        """True while it is on its way, or may be: a command was accepted and not yet seen to have its end.

        False when its position is not known, because then nobody could wait for its end.
        """
        with self._lock:
            return self.state.text == "moving" or (self._may_move and self.state.x_um is not None)

    def start(self, mds: MdsClient) -> None:
        """Begin to follow; `mds` stays open until `stop`."""
        self._mds = mds
        mds.connection.on_exchange.append(self._note_exchange)

    def stop(self) -> None:
        """End it."""
        mds, self._mds = self._mds, None
        if mds is not None:
            mds.connection.on_exchange.remove(self._note_exchange)

    def look(self, now: float) -> None:
        """Take the reply that has come, ask what is due. Never waits.

        now : CLOCK_MONOTONIC [s].
        """
        mds = self._mds
        if mds is None:
            return
        if self._question is not None:
            if not self._question.done():
                return
            question, self._question = self._question, None
            self._take(mds, question, now)
        if self._read or now >= self._due:
            self._question = mds.submit(f"read {self._axes[len(self._read)]}", ANSWER_S)

    def _take(self, mds: MdsClient, question: Future[str], now: float) -> None:
        try:
            self._read.append(mds.position(self._axes[len(self._read)], question.result()))
        except BaldrError as error:
            self._fail(error, now)
            return
        if len(self._read) == len(self._axes):
            x, y = self._read
            self._read = []
            self._arrive(x, y, now)
            self._failures = 0
            self._due = now + (MOVING_PERIOD_S if self._may_move else PERIOD_S)

    def _fail(self, error: BaldrError, now: float) -> None:
        if not self._failures:
            self._beam.log.info("the position of the phase mask is not known: %s", error)
        self._failures += 1
        self._read = []
        self._still = 0
        self.state = MaskState()
        self._due = now + min(LONGEST_PAUSE_S, PERIOD_S * 2.0 ** (min(self._failures, 10) - 1))

    def _arrive(self, x: float, y: float, now: float) -> None:
        before = self.state
        is_known = before.x_um is not None and before.y_um is not None
        has_moved = is_known and math.dist((x, y), (before.x_um or 0.0, before.y_um or 0.0)) > STILL_UM
        # Compared with the place before the MDS was away, too.
        if self._place is not None and math.dist((x, y), self._place) > STILL_UM:
            self.at_rest_since_s = now
        self._place = (x, y)
        with self._lock:
            self._still = 0 if has_moved or not is_known else self._still + 1
            self._may_move = (self._may_move or has_moved) and self._still < STANDING_LOOKS
            if not self._may_move and self._wanted:
                self._names[self._wanted] = (x, y)
                self._wanted = ""
            text = "moving" if has_moved or (self._may_move and before.text == "moving") else self._name(x, y)
        self.state = MaskState(x, y, text)
        if text not in (before.text, "moving"):
            self._beam.log.info("phase mask: %s at %.1f, %.1f um", text, x, y)

    def _name(self, x: float, y: float) -> str:
        for name, place in self._names.items():
            if math.dist((x, y), place) <= SAME_MASK_UM:
                return name
        return "unnamed position"

    def _note_exchange(self, request: bytes, reply: bytes | None) -> None:
        """See what this process, for whichever beam, has asked of the MDS; in the connection's thread."""
        text = request.decode("utf-8", "replace").strip()
        if not self._concerns.match(text):
            return
        by_name = self._by_name.fullmatch(text)
        is_accepted = reply is not None and reply.startswith(b"ACK")
        with self._lock:
            self._wanted = by_name.group(1) if by_name and is_accepted else ""
            self._may_move = True
            self._still = 0
            self._due = 0.0
