"""The table that every command of a beam is recorded in."""

from __future__ import annotations

from functools import partial
from typing import Final

from baldr_tango.interface import CommandTable, command

COMMANDS: Final = CommandTable()
"""All commands, in the order of the manual."""

beam_command = partial(command, COMMANDS)
"""Decorator: record a function ``f(beam, ...)`` as a command."""
