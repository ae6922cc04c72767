"""A runtime field: one path with its type, unit, access and meaning, and how it is read and set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from baldr_tango.beam.fields.conversion import Domain, UnfitError, plain
from baldr_tango.beam.live_configuration import LiveConfiguration
from baldr_tango.errors import ConfigError, RequestError


@dataclass(frozen=True)
class Field:
    """One path of `get_rtc_field` and `set_rtc_field`."""

    path: str
    domain: Domain
    doc: str
    get: Callable[[LiveConfiguration], Any]
    set: Callable[[LiveConfiguration, Any], None] | None = None
    """Puts a checked value in force; None: read-only."""
    shape: tuple[str, ...] = ()
    """Sizes: letters of `LiveConfiguration.sizes`, or numbers, or * for a list of any length."""
    unit: str = ""
    followers: tuple[str, ...] = ()
    """Paths whose values may change with this one."""

    @property
    def access(self) -> str:
        """ "read-only" or "read-write"."""
        return "read-only" if self.set is None else "read-write"

    def size(self, live: LiveConfiguration) -> list[int]:
        """Present shape."""
        if "*" in self.shape:
            return [len(self.get(live))]
        sizes = live.sizes()
        return [sizes[letter] if letter in sizes else int(letter) for letter in self.shape]

    def read(self, live: LiveConfiguration) -> Any:
        """Return the present value as JSON can carry it."""
        return plain(self.domain.kind, self.get(live))


@dataclass
class FieldTable:
    """All fields by path, in the order of declaration."""

    _fields: dict[str, Field] = field(default_factory=dict)

    def add(self, *fields: Field) -> None:
        """Register fields; a path twice is a `ValueError`."""
        for entry in fields:
            if entry.path in self._fields:
                raise ValueError(f"field {entry.path!r} is declared twice")
            self._fields[entry.path] = entry

    def __iter__(self) -> Iterator[Field]:
        return iter(self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)

    def find(self, path: str) -> Field:
        """Return a field; `RequestError` with all paths for an unknown one."""
        try:
            return self._fields[path]
        except KeyError:
            raise RequestError("unknown field", field=path, available=list(self._fields)) from None

    def put(self, live: LiveConfiguration, path: str, value: Any) -> list[str]:
        """Put a value in force, whole; return the paths of other fields that have changed with it.

        Raises
        ------
        RequestError : unknown, read-only, or a value that does not fit; nothing has changed.
        StateError : not now, or the loop did not react.
        """
        entry = self.find(path)
        if entry.set is None:
            raise RequestError("read-only field", field=path)
        with live.beam.exclusive:
            followers = [self.find(name) for name in entry.followers]
            before = [follower.read(live) for follower in followers]
            try:
                entry.set(live, entry.domain.convert(value, entry.size(live)))
            except (UnfitError, ConfigError) as error:
                raise _unfit(entry, str(error)) from None
            return [
                follower.path
                for follower, old in zip(followers, before, strict=True)
                if follower.read(live) != old
            ]


def _unfit(entry: Field, text: str) -> RequestError:
    return RequestError("bad value/type", field=entry.path, expected=entry.domain.kind, message=text)
