"""Commands about commands, as the commander library has always offered them."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.commands.table import COMMANDS, beam_command
from baldr_tango.interface import Argument, Json


def _argument(argument: Argument) -> dict[str, Json]:
    entry: dict[str, Json] = {"name": argument.name, "type": argument.type_name}
    if not argument.is_required:
        entry["default_value"] = argument.default
    return entry


def _arguments(name: str) -> list[dict[str, Json]] | None:
    return [_argument(argument) for argument in COMMANDS.find(name).arguments] or None


@beam_command(reads=True)
def help(beam: Beam) -> str:
    """List every command with one line of help."""
    return "".join(f"{entry.name}: {entry.summary}\n" for entry in COMMANDS)


@beam_command(reads=True)
def command_names(beam: Beam) -> list[str]:
    """List the names of all commands."""
    return COMMANDS.names()


@beam_command(reads=True)
def description(beam: Beam, command_name: str) -> str:
    """Describe a command: arguments, return type and meaning.

    Parameters
    ----------
    command_name : name of a command
    """
    entry = COMMANDS.find(command_name)
    arguments = ", ".join(f"{argument.name}: {argument.type_name}" for argument in entry.arguments)
    return f"({arguments}) -> {entry.return_type_name} : {entry.doc}"


@beam_command(reads=True)
def signature(beam: Beam, command_name: str) -> dict[str, Json]:
    """Give the arguments and the return type of a command.

    Parameters
    ----------
    command_name : name of a command
    """
    entry = COMMANDS.find(command_name)
    return {"arguments": _arguments(command_name), "return_type": entry.return_type_name}


@beam_command(reads=True)
def arguments(beam: Beam, command_name: str) -> list[Json]:
    """List the arguments of a command; null when it takes none.

    Parameters
    ----------
    command_name : name of a command
    """
    return _arguments(command_name)  # type: ignore[return-value]


@beam_command(reads=True)
def return_type(beam: Beam, command_name: str) -> str:
    """Name the return type of a command.

    Parameters
    ----------
    command_name : name of a command
    """
    return COMMANDS.find(command_name).return_type_name
