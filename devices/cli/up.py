"""``baldr up``: everything a deployment has, in one command, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import BackendError
from devices.cli.beams import Report
from devices.cli.calibrate import ProgressLines, calibrate_beams
from devices.cli.connect import configuration
from devices.cli.deployment import Deployment, missing_calibrations
from devices.cli.isolation import isolated, temporary_directory
from devices.cli.runfile import RunFile
from devices.cli.table import beam_table, plain_line, problems
from devices.server import instrument_device

if TYPE_CHECKING:
    from baldr_tango.simulator.truth import TruthMeans, TruthReader

SETTLE_S: Final = 1.0
"""Time after closing that does not count for the summary."""

OPEN_LOOP_S: Final = 1.0
LIVE_PERIOD_S: Final = 0.5
PLAIN_PERIOD_S: Final = 5.0


def run(options: argparse.Namespace) -> int:
    """Start everything, show it, stop everything; the exit status says whether all beams worked."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # SIGINT too: a shell starts background jobs with it ignored.
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    with ExitStack() as stack:
        config = configuration(options)
        state = config.instrument.state
        if options.isolated and options.state is None:
            state = stack.enter_context(temporary_directory())
        run_file = stack.enter_context(RunFile(state))
        if options.isolated:
            config = stack.enter_context(isolated(config, state))
        deployment = stack.enter_context(Deployment(config, lambda text: _say(console, text)))
        try:
            return _Run(options, config, console, deployment, run_file).go(stack)
        except KeyboardInterrupt:
            _say(console, "interrupted: stopping everything")
            return 130
        finally:
            # A second one would leave processes behind; each stop is bounded.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


class _Run:
    """One run of ``baldr up``."""

    def __init__(
        self,
        options: argparse.Namespace,
        config: RuntimeConfig,
        console: Console,
        deployment: Deployment,
        run_file: RunFile,
    ) -> None:
        self.options = options
        self.config = config
        self.console = console
        self.deployment = deployment
        self.run_file = run_file
        self.truth: dict[int, TruthReader] = {}

    def go(self, stack: ExitStack) -> int:
        """Start, show, sum up."""
        deployment, options = self.deployment, self.options
        tango_host = "" if options.isolated else os.environ.get("TANGO_HOST", "")
        deployment.compile_ahead()
        deployment.start_database(tango_host, 0 if options.isolated else options.database_port)
        if not options.no_simulator:
            deployment.start_instrument()
            self._calibrate()
        deployment.start_server()
        if not options.no_simulator:
            stack.callback(self._close_truth)
            self._open_truth()
        self._tell_places()
        if not options.open:
            deployment.close_loops()
            _say(self.console, "loops closed")
        try:
            self._watch(SETTLE_S, quiet=True)
            for reader in self.truth.values():
                reader.restart()
            reports = self._show()
        except KeyboardInterrupt:
            reports, _ = self._look()
        return self._summary(reports)

    def _calibrate(self) -> None:
        missing = missing_calibrations(self.config)
        if not missing:
            _say(self.console, "calibration: found; 'baldr calibrate' renews it")
            return
        _say(self.console, "calibration: none yet, measuring the instrument (once)")
        files = calibrate_beams(self.config, sorted(missing), ProgressLines(self.console))
        for beam, path in files.items():
            _say(self.console, f"  beam {beam}: kept in {path}")
        _say(self.console, "  to measure again: 'baldr calibrate' with open loops, or delete the files")

    def _open_truth(self) -> None:
        for beam in self.config.beams:
            self.truth[beam] = self._truth_reader(beam)

    def _truth_reader(self, beam: int) -> TruthReader:
        from baldr_tango.simulator.truth import TruthReader

        streams = self.config.for_beam(beam).streams
        return TruthReader(streams.camera, streams.directory or None)

    def _close_truth(self) -> None:
        for reader in self.truth.values():
            reader.close()

    def _tell_places(self) -> None:
        config, host = self.config, self.deployment.tango_host
        beams = [config.for_beam(beam) for beam in config.beams]
        self.run_file.write(
            tango_host=host,
            runtime_file=str(config.file),
            devices={each.beam: each.tango_device for each in beams},
            commanders={each.beam: each.commander_endpoint for each in beams},
            camera=config.endpoints.camera,
            mds=config.endpoints.mds,
        )
        _say(self.console, "how to reach it:")
        _say(self.console, f"  Tango       TANGO_HOST={host}  {'  '.join(b.tango_device for b in beams)}")
        _say(self.console, f"              {instrument_device(config)}  all beams as one")
        _say(self.console, f"  commander   {'  '.join(b.commander_endpoint for b in beams)}")
        _say(self.console, f"  camera, MDS {config.endpoints.camera}  {config.endpoints.mds}")
        _say(self.console, f"  telemetry   {config.telemetry.directory} ('baldr telemetry on' records)")
        _say(self.console, f"  logs        {config.instrument.state / 'log'}")

    def _show(self) -> list[Report]:
        options = self.options
        if options.once:
            reports, truth = self._look()
            self.console.print(beam_table(reports, truth))
            return reports
        if options.plain or not self.console.is_terminal:
            return self._watch(options.seconds)
        return self._live(options.seconds)

    def _watch(self, seconds: float | None, *, quiet: bool = False) -> list[Report]:
        """Print a line per beam now and then, until the time is over."""
        reports: list[Report] = []
        for _ in self._beats(seconds, 0.1 if quiet else PLAIN_PERIOD_S):
            if not quiet:
                reports, truth = self._look()
                for report in reports:
                    _say(self.console, plain_line(report, truth))
        return reports

    def _live(self, seconds: float | None) -> list[Report]:
        """Keep a table up to date, until the time is over."""
        reports: list[Report] = []
        with Live(console=self.console, auto_refresh=False) as live:
            for _ in self._beats(seconds, LIVE_PERIOD_S):
                reports, truth = self._look()
                notes = [Text(line) for line in problems(reports)]
                live.update(Group(beam_table(reports, truth), *notes, Text("Ctrl-C stops")), refresh=True)
        return reports

    def _beats(self, seconds: float | None, period_s: float) -> Iterator[None]:
        """Count time in beats, the last one at its end; Ctrl-C ends it.

        The virtual instrument is started again when it ends; the end of another process is an error.
        """
        end = None if seconds is None else time.monotonic() + seconds
        with _until_interrupted() as interrupted:
            while not interrupted:
                yield
                beat = time.monotonic() + period_s
                while not interrupted and time.monotonic() < min(beat, end or beat):
                    self.deployment.revive_instrument()
                    self.deployment.check()
                    time.sleep(0.05)
                if end is not None and time.monotonic() >= end:
                    break
        if interrupted and seconds == SETTLE_S:
            raise KeyboardInterrupt

    def _look(self) -> tuple[list[Report], Mapping[int, TruthMeans | None] | None]:
        reports = [beam.report() for beam in self.deployment.beams]
        truth = {beam: self._means(beam) for beam in self.truth}
        return reports, truth or None

    def _means(self, beam: int) -> TruthMeans | None:
        """Averages of a beam's truth; they begin anew with the virtual instrument."""
        if not self.truth[beam].is_current():
            try:
                reader = self._truth_reader(beam)
            except BackendError:
                return None
            self.truth[beam].close()
            self.truth[beam] = reader
        return self.truth[beam].means()

    def _summary(self, reports: list[Report]) -> int:
        reports, truth = self._look()
        _say(self.console, "summary, wavefront error and Strehl as open > closed loop:")
        for report in reports:
            _say(self.console, "  " + plain_line(report, truth))
        for problem in problems(reports):
            _say(self.console, problem)
        wanted = "STANDBY" if self.options.open else "RUNNING"
        failed = [report.beam for report in reports if str(report.state) not in (wanted, "ALARM")]
        if failed:
            sys.stderr.write(f"baldr up: not {wanted}: beam {', '.join(map(str, failed))}\n")
        return int(bool(failed))


@contextmanager
def _until_interrupted() -> Iterator[list[int]]:
    """Give a list that stays empty until Ctrl-C or SIGTERM, which do nothing else meanwhile."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
