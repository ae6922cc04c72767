"""Tango commands, derived from the table of commands.

No argument becomes void; one scalar its own type; several arguments, or one that is JSON, a string
that holds a JSON array. A reply that is not a scalar is JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tango import CmdArgType, DispLevel
from tango.server import command

from baldr_tango.interface import Command, CommandTable
from devices.text import json_text, tango_text
from legacy_zmq.protocol import parse

_TYPES: Final = {
    bool: CmdArgType.DevBoolean,
    int: CmdArgType.DevLong64,
    float: CmdArgType.DevDouble,
    str: CmdArgType.DevString,
    type(None): CmdArgType.DevVoid,
}


def command_members(table: CommandTable) -> dict[str, Callable[..., Any]]:
    """Return one Tango command for each command of the table, by its Tango name.

    The device runs it through its method ``run_command(entry, values)``, `values` being the arguments
    in order.
    """
    return {entry.tango_name: _command(entry) for entry in table}


def _command(entry: Command) -> Callable[..., Any]:
    if input_type(entry) is CmdArgType.DevVoid:

        def run(device: Any) -> Any:
            return reply(entry, device.run_command(entry, []))

    else:

        def run(device: Any, given: Any) -> Any:  # type: ignore[misc]
            return reply(entry, device.run_command(entry, given))

    run.__name__ = run.__qualname__ = entry.tango_name
    run.__doc__ = tango_text(entry.doc)
    return command(
        run,
        dtype_in=input_type(entry),
        doc_in=describe_input(entry),
        dtype_out=output_type(entry),
        doc_out=describe_output(entry),
        display_level=DispLevel.EXPERT if entry.expert else DispLevel.OPERATOR,
    )


def input_type(entry: Command) -> CmdArgType:
    """Return the Tango type of a command's argument."""
    if not entry.arguments:
        return CmdArgType.DevVoid
    if takes_json(entry):
        return CmdArgType.DevString
    return _TYPES[entry.arguments[0].kind]


def output_type(entry: Command) -> CmdArgType:
    """Return the Tango type of a command's reply."""
    return _TYPES.get(entry.returns, CmdArgType.DevString)


def takes_json(entry: Command) -> bool:
    """Tell whether the Tango argument is the text of a JSON array of arguments."""
    return len(entry.arguments) > 1 or any(a.kind not in (bool, int, float, str) for a in entry.arguments)


def arguments_of(entry: Command, given: Any) -> Sequence[Any]:
    """Return the positional arguments out of what a Tango client sent.

    Text is understood as in a commander message: ``["a", 1]`` or ``"a", 1``; empty text is no argument.
    Raises `RequestError` when it is not JSON.
    """
    if not entry.arguments:
        return []
    if not takes_json(entry):
        return [given]
    return parse(f"{entry.name} {given}")[1]


def reply(entry: Command, value: Any) -> Any:
    """Return a command's result as its Tango type."""
    kind = output_type(entry)
    if kind is CmdArgType.DevVoid:
        return None
    if kind is CmdArgType.DevString:
        return tango_text(value) if entry.returns is str else json_text(value)
    return value


def describe_input(entry: Command) -> str:
    """Return the text that clients show beside a command's argument."""
    parts = [_describe(argument) for argument in entry.arguments]
    if not parts:
        return "none"
    if takes_json(entry):
        return tango_text(f"JSON array: [{', '.join(parts)}]")
    return tango_text(parts[0])


def describe_output(entry: Command) -> str:
    """Return the text that clients show beside a command's reply."""
    if output_type(entry) is CmdArgType.DevVoid:
        return tango_text(f"none. {entry.summary}")
    form = "" if entry.returns in _TYPES else "JSON. "
    return tango_text(form + entry.summary)


def _describe(argument: Any) -> str:
    default = "" if argument.is_required else f" (default {argument.default!r})"
    return f"{argument.name}: {argument.doc}{default}" if argument.doc else f"{argument.name}{default}"
