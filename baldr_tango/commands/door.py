"""The one door: Tango, ZMQ and tests run commands through here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.commands.table import COMMANDS
from baldr_tango.errors import BaldrError, StateError
from baldr_tango.interface import Command, Json

BUSY_TIMEOUT_S: Final = 2.0
"""Longest wait for the command before to end [s]; a Tango client gives up after 3 s."""

_LONGEST_LOGGED: Final = 200


def runs_beside(name: str) -> bool:
    """Tell whether a command only reads, or waits for a peer, and so runs beside others.

    Raises `RequestError` for an unknown name.
    """
    return COMMANDS.find(name).waits


def execute(beam: Beam, name: str, args: Sequence[Any] = (), *, source: str = "") -> Json:
    """Run a command on a beam.

    Parameters
    ----------
    name : name or alias, in any case
    args : positional arguments as they came in the request
    source : who asks, for the log

    Raises
    ------
    RequestError, StateError, ConfigError, BackendError : as their names say; the beam is as before.
    BaldrError : an unexpected error, logged with its traceback.
    """
    entry = COMMANDS.find(name)
    values = entry.bind(args)
    if not entry.waits:
        beam.log.info("command %s%s", _shown(entry, values), f" from {source}" if source else "")
    try:
        if entry.waits:
            result: Json = entry.function(beam, *values)
            return result
        return _run_alone(beam, entry, values)
    except BaldrError as error:
        beam.log.warning("command %s: %s", entry.name, error)
        raise
    except Exception as error:
        beam.log.exception("command %s failed", entry.name)
        raise BaldrError(f"{entry.name}: internal error, {type(error).__name__}: {error}") from error


def _run_alone(beam: Beam, entry: Command, values: list[Any]) -> Json:
    if not beam.exclusive.acquire(timeout=BUSY_TIMEOUT_S):
        raise StateError(f"{entry.name}: another command is still running")
    try:
        result: Json = entry.function(beam, *values)
        return result
    finally:
        beam.exclusive.release()


def _shown(entry: Command, values: list[Any]) -> str:
    text = ", ".join(json.dumps(value, default=str) for value in values)
    if len(text) > _LONGEST_LOGGED:
        text = text[:_LONGEST_LOGGED] + "..."
    return f"{entry.name}({text})"
