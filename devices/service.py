"""A beam and its commander, built, started and taken down together. Knows nothing of Tango."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from baldr_tango.beam import Beam
from baldr_tango.commands import execute, only_reads, runs_beside
from baldr_tango.configuration.runtime import BeamSettings
from baldr_tango.rtc.scheduling import FOR_MANY, go_before_others
from devices.properties import NO_COMMANDER
from legacy_zmq.commander import CommanderServer


class BeamService:
    """What runs behind one device.

    Parameters
    ----------
    settings : of this beam.
    on_change : called with nothing at each transition of the beam's state; must be quick.
    on_exit : called, in another thread, when the command ``exit`` was given.
    """

    def __init__(
        self, settings: BeamSettings, *, on_change: Callable[[], None], on_exit: Callable[[], None]
    ) -> None:
        self.settings = settings
        self.beam = Beam(settings)
        self.beam.on_change.append(lambda change: on_change())
        self.beam.on_exit.append(on_exit)
        self.commander: CommanderServer | None = None

    @property
    def log(self) -> logging.Logger:
        """Logger of the beam."""
        return self.beam.log

    def start(self) -> None:
        """Start the beam and its commander; returns quickly, the beam goes on in its own threads.

        Raises `BackendError` when the commander's endpoint cannot be used; nothing is left running.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.beam.start()
            endpoint = self.settings.commander_endpoint
            if endpoint != NO_COMMANDER:
                self.commander = CommanderServer(
                    endpoint,
                    partial(execute, self.beam),
                    waits=runs_beside,
                    reads=only_reads,
                    name=f"commander {self.beam.name}",
                    prepare=partial(go_before_others, self.log, FOR_MANY),
                )
                self.commander.start()
            undo.pop_all()

    def close(self) -> None:
        """Stop everything in reverse order; bounded; may be called twice."""
        commander, self.commander = self.commander, None
        if commander is not None:
            commander.stop()
        self.beam.close()

    def execute(self, name: str, arguments: Sequence[Any], source: str) -> Any:
        """Run a command through the one door; one that works in the background is not waited for.

        A Tango client gives up after 3 s: it follows the job by the attributes ``job_state`` and so on.
        """
        return execute(self.beam, name, arguments, source=source, wait=False)
