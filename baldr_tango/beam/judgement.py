"""Whether the loops of a beam will be stable when they are closed: judged beside everything else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from baldr_tango.calibration.prediction import Loops
from baldr_tango.calibration.report import CalibrationReport, judge
from baldr_tango.configuration.calibration import Calibration
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.errors import StateError

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

CLOSING_WAIT_S: Final = 1.0
"""Longest that closing a loop waits for the prediction [s]; without one it goes on."""

NICE: Final = 10
"""Nice value of the thread that makes the report."""

STOP_S: Final = 2.0
"""Longest wait for the end of a report that is being made [s]."""

_JUDGED: Final = (
    "config_sha256",
    "controller_type_lo",
    "controller_type_ho",
    "control_lo",
    "control_ho",
    "kalman_lo",
    "kalman_ho",
    "boxcar",
    "bad_pixels",
    "signal_mask",
    "reconstructor_lo",
    "reconstructor_ho",
    "mode_shapes_lo",
    "mode_shapes_ho",
    "interaction_matrix",
    "frame_rate_hz",
)
"""Parameters that a report depends on."""

_FORCE: Final[dict[tuple[bool, bool], str]] = {
    (True, False): "force_close_baldr_LO",
    (False, True): "force_close_baldr_HO",
    (True, True): "force_close_all",
}
"""Commands that close loops against the prediction."""


class Judgement:
    """The report on the calibration and the gains in force.

    It is made in a thread of its own when something that it depends on has changed, and takes some tenths
    of a second; nothing waits for it but who asks with a time-out.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._judged: LoopParameters | None = None
        self._report: CalibrationReport | None = None
        self._stopping = False

    @property
    def newest(self) -> CalibrationReport | None:
        """Report on the configuration in force, perhaps on gains that have just changed; never waits."""
        report, wanted = self._report, self._wanted()
        if report is None or wanted is None:
            return None
        same = report.config_sha256 == wanted[1].config_sha256 and report.mask == wanted[1].mask
        return report if same else None

    def look(self) -> None:
        """Begin a report if what it depends on has changed since the last one. Never waits."""
        wanted = self._wanted()
        if wanted is None or _same(self._judged, wanted[1]):
            return
        with self._changed:
            if self._thread is None and not self._stopping:
                name = f"judge-{self._beam.settings.beam}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def report(self, timeout_s: float) -> CalibrationReport | None:
        """Return the report on what is in force; None without a configuration, or when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.look()
            wanted = self._wanted()
            with self._changed:
                if wanted is None or _same(self._judged, wanted[1]):
                    return self._report if wanted is not None else None
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return None

    def check_closing(self, lo: bool, ho: bool, lo_after: bool, ho_after: bool) -> None:
        """Refuse to close loops that are predicted unstable.

        Parameters
        ----------
        lo, ho : loops that are to be closed now.
        lo_after, ho_after : loops that will be closed then.

        Raises
        ------
        StateError : what will be closed is predicted unstable.
        """
        report = self.report(CLOSING_WAIT_S)
        loops: Loops = "LO+HO" if lo_after and ho_after else "LO" if lo_after else "HO"
        prediction = None if report is None else report.weakest(loops)
        if prediction is None:
            why = "not ready" if report is None else "no interaction matrix that fits the DM map"
            self._beam.log.warning("closing %s without a prediction of its stability: %s", loops, why)
        elif not prediction.is_stable:
            raise StateError(
                f"closed {loops} is predicted {prediction}; lower the gains, or close it all the same:"
                f" {_FORCE[lo, ho]}"
            )

    def stop(self) -> None:
        """Begin no more reports and wait, bounded, for the one that is being made."""
        with self._changed:
            self._stopping = True
            thread = self._thread
        if thread is not None:
            thread.join(STOP_S)

    def start(self) -> None:
        """Make reports again after `stop`."""
        with self._changed:
            self._stopping = False

    def _wanted(self) -> tuple[Calibration, LoopParameters] | None:
        loop, calibration = self._beam.loop, self._beam.calibration
        if loop is None or calibration is None:
            return None
        parameters = loop.parameters
        # While a configuration is being replaced, one of the two may be the old one.
        if (calibration.sha256, calibration.mask) != (parameters.config_sha256, parameters.mask):
            return None
        return calibration, parameters

    def _run(self) -> None:
        # On Linux this is the priority of this thread alone; a loop without real-time priority goes first.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                wanted = self._wanted()
                if self._stopping or wanted is None or _same(self._judged, wanted[1]):
                    self._thread = None
                    return
            calibration, parameters = wanted
            report: CalibrationReport | None = None
            try:
                report = judge(calibration, parameters)
            except Exception:
                self._beam.log.exception("the calibration could not be judged")
            before = self._report
            with self._changed:
                self._judged, self._report = parameters, report
                self._changed.notify_all()
            if report is not None:
                self._tell(before, report)

    def _tell(self, before: CalibrationReport | None, report: CalibrationReport) -> None:
        """Log what is new in a report."""
        known = before.warnings if before is not None and before.config_sha256 == report.config_sha256 else ()
        for note in report.warnings:
            if note not in known:
                self._beam.log.warning("calibration: %s", note)
        weakest = report.weakest()
        if weakest is not None:
            self._beam.log.info("closed %s predicted %s", weakest.loops, weakest)


def _same(one: LoopParameters | None, other: LoopParameters) -> bool:
    """Tell whether two sets of parameters have the same report; unchanged arrays are the same objects."""
    if one is other:
        return True
    if one is None:
        return False
    for name in _JUDGED:
        a, b = getattr(one, name), getattr(other, name)
        if a is not b and not (isinstance(a, (str, int, float)) and a == b):
            return False
    return True
