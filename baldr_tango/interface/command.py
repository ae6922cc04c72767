"""A command is one function of a beam; its signature and docstring are its definition.

``@command`` records a function in a `CommandTable`. The table is what Tango, the ZMQ commander and
the manual read; nothing about a command is written down anywhere else.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

from baldr_tango.errors import RequestError

Json: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

REQUIRED: Final = inspect.Parameter.empty
"""Default of an argument that must be given."""

_CPP_NAMES: Final = {
    str: "std::__cxx11::basic_string<char>",
    int: "int",
    float: "double",
    bool: "bool",
    type(None): "void",
}
_JSON_NAME: Final = "nlohmann::basic_json"


@dataclass(frozen=True)
class Argument:
    """One positional argument of a command."""

    name: str
    kind: Any
    """Python type: str, int, float, bool or a JSON container."""
    default: Any = REQUIRED
    doc: str = ""

    @property
    def is_required(self) -> bool:
        """True when the caller must give it."""
        return self.default is REQUIRED

    @property
    def type_name(self) -> str:
        """The type as the introspection commands spell it."""
        return _CPP_NAMES.get(self.kind, _JSON_NAME)

    def convert(self, value: Any, command: str) -> Any:
        """Check one value from a request; raise `RequestError` naming command, argument and value."""
        if self.kind is str and isinstance(value, str):
            return value
        if self.kind is bool and isinstance(value, bool):
            return value
        if self.kind is int and not isinstance(value, bool):
            if isinstance(value, int):
                return value
            if isinstance(value, float) and value.is_integer():
                return int(value)
        if self.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if self.kind not in (str, int, float, bool):
            return value
        raise RequestError(
            f"{command}: argument {self.name} must be {_plain(self.kind)},"
            f" found {type(value).__name__} {value!r}"
        )


def _plain(kind: Any) -> str:
    return {str: "a string", int: "an integer", float: "a number", bool: "true or false"}.get(kind, "JSON")


@dataclass(frozen=True)
class Command:
    """A command: what it is called, what it takes, what it returns and what it does."""

    name: str
    """The legacy string and the Tango command name, letter for letter."""
    function: Callable[..., Any]
    arguments: tuple[Argument, ...]
    returns: Any
    doc: str
    """First paragraph of the docstring."""
    tango_name: str
    aliases: tuple[str, ...] = ()
    waits: bool = False
    """Runs beside other commands: it only reads, or it waits for a peer."""
    reads: bool = False
    """Only reads, beside all others, and waits for nothing; clients poll it, so the log has it at debug level
    only."""
    unlisted: tuple[Argument, ...] = ()
    """Arguments after the others that only the commander takes: introspection and Tango do not know them."""
    background: bool = False
    """Starts a job; its function returns the job, and the door waits for the end or not."""
    raw_reply: bool = False
    """The commander sends the returned text as it is, not as JSON."""
    expert: bool = False

    @property
    def summary(self) -> str:
        """One line of help."""
        return self.doc.split("\n", 1)[0]

    @property
    def return_type_name(self) -> str:
        """The return type as the introspection commands spell it."""
        return _CPP_NAMES.get(self.returns, _JSON_NAME)

    def bind(self, values: Sequence[Any]) -> list[Any]:
        """Match positional values with the arguments.

        Surplus values are ignored, as the existing clients rely on (``open_baldr_LO ""``). Unlisted
        arguments are passed when they are given.
        Raises `RequestError` for a missing argument or a wrong type.
        """
        bound: list[Any] = []
        for position, argument in enumerate(self.arguments):
            if position < len(values):
                bound.append(argument.convert(values[position], self.name))
            elif argument.is_required:
                raise RequestError(
                    f"{self.name}: missing argument {argument.name} ({_plain(argument.kind)})"
                    f" at position {position}"
                )
            else:
                bound.append(argument.default)
        extra = zip(self.unlisted, values[len(self.arguments) :], strict=False)
        return bound + [argument.convert(value, self.name) for argument, value in extra]


class CommandTable:
    """All commands by name; look-ups ignore case because some clients send lower-case names."""

    def __init__(self) -> None:
        self._by_key: dict[str, Command] = {}
        self._commands: list[Command] = []

    def add(self, entry: Command) -> None:
        """Register a command under its name and aliases; a name twice is a `ValueError`."""
        for name in (entry.name, *entry.aliases):
            if self._by_key.setdefault(name.lower(), entry) is not entry:
                raise ValueError(f"command name {name!r} is defined twice")
        self._commands.append(entry)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)

    def find(self, name: str) -> Command:
        """Return the command of that name or alias, in any case; else `RequestError`."""
        try:
            return self._by_key[name.lower()]
        except KeyError:
            raise RequestError(f"unknown command {name!r}; 'command_names' lists the known ones") from None

    def names(self) -> list[str]:
        """All names and aliases, in order of definition."""
        return [name for entry in self._commands for name in (entry.name, *entry.aliases)]


def command(
    table: CommandTable,
    *,
    tango_name: str | None = None,
    aliases: Sequence[str] = (),
    unlisted: Sequence[str] = (),
    waits: bool = False,
    reads: bool = False,
    background: bool = False,
    raw_reply: bool = False,
    expert: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Record a function ``f(beam, ...)`` as a command of `table`.

    The function's name is the command's name; its annotations are the argument types; the section
    ``Parameters`` of its docstring describes them.
    """

    def record(function: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(function)
        parameters = list(inspect.signature(function).parameters.values())[1:]
        text = inspect.getdoc(function) or ""
        descriptions = _parameter_docs(text)
        arguments = tuple(
            Argument(p.name, _kind(hints[p.name]), p.default, descriptions.get(p.name, ""))
            for p in parameters
        )
        table.add(
            Command(
                name=function.__name__,
                function=function,
                arguments=tuple(a for a in arguments if a.name not in unlisted),
                unlisted=tuple(a for a in arguments if a.name in unlisted),
                returns=_kind(hints.get("return", type(None))),
                doc=text.split("\n\nParameters\n", 1)[0].strip(),
                tango_name=tango_name or function.__name__,
                aliases=tuple(aliases),
                waits=waits or reads or background,
                reads=reads,
                background=background,
                raw_reply=raw_reply,
                expert=expert,
            )
        )
        return function

    return record


def _kind(hint: Any) -> Any:
    """Reduce an annotation to str, int, float, bool, None, or a JSON container."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        return _kind(members[0]) if len(members) == 1 else object
    return hint if hint in (str, int, float, bool, type(None)) else get_origin(hint) or object


def _parameter_docs(text: str) -> dict[str, str]:
    """Read ``name : description`` lines of a numpy-style Parameters section."""
    _, _, section = text.partition("\n\nParameters\n")
    section = section.split("\n\n", 1)[0]
    return {name: doc.strip() for name, doc in re.findall(r"^(\w+)\s*:\s*(.+)$", section, re.MULTILINE)}
