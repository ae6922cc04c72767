"""The one door: Tango, ZMQ and tests run commands through here and nowhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.beam.jobs import Job
from baldr_tango.commands.table import COMMANDS
from baldr_tango.errors import BaldrError, RequestError, StateError
from baldr_tango.interface import Command, Json

BUSY_TIMEOUT_S: Final = 2.0
"""Longest wait for the command before to end [s]; a Tango client gives up after 3 s."""

_LONGEST_LOGGED: Final = 200


def runs_beside(name: str) -> bool:
    """Tell whether a command only reads, or waits for a peer, and so runs beside others.

    Raises `RequestError` for an unknown name.
    """
    return COMMANDS.find(name).waits


def only_reads(name: str) -> bool:
    """Tell whether a command does nothing but read, and is done at once.

    Raises `RequestError` for an unknown name.
    """
    return COMMANDS.find(name).reads


def execute(beam: Beam, name: str, args: Sequence[Any] = (), *, source: str = "", wait: bool = True) -> Json:
    """Run a command on a beam.

    Parameters
    ----------
    name : name or alias, in any case
    args : positional arguments as they came in the request
    source : who asks, for the log
    wait : whether to wait for the end of a command that works in the background; otherwise the reply is
        ``{"ok": true, "job": name, "pending": true}``. An argument ``{"wait": false}`` of the request, alone
        or among the keys of its last argument, goes before.

    Raises
    ------
    RequestError, StateError, ConfigError, BackendError : as their names say; the beam is as before.
    BaldrError : an unexpected error, logged with its traceback.
    """
    entry = COMMANDS.find(name)
    if entry.background:
        args, wait = _wish_to_wait(entry, args, wait)
    values = entry.bind(args)
    level = logging.DEBUG if entry.reads else logging.INFO
    if beam.log.isEnabledFor(level):
        beam.log.log(level, "command %s%s", _shown(entry, values), f" from {source}" if source else "")
    try:
        if entry.background:
            job: Job = entry.function(beam, *values)
            return job.wait() if wait else {"ok": True, "job": entry.name, "pending": True}
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


def _wish_to_wait(entry: Command, args: Sequence[Any], wait: bool) -> tuple[list[Any], bool]:
    """Take ``wait`` out of a request's last argument; what is left of it stays an argument."""
    if not args or not isinstance(args[-1], dict) or "wait" not in args[-1]:
        return list(args), wait
    others = dict(args[-1])
    wish = others.pop("wait")
    if not isinstance(wish, bool):
        raise RequestError(f"{entry.name}: wait must be true or false, found {wish!r}")
    return [*args[:-1], *([others] if others else [])], wish


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
