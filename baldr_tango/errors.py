"""Errors raised on purpose; each class names the party that can do something about it."""

from __future__ import annotations

from typing import Any


class BaldrError(Exception):
    """Base of every error raised on purpose."""


class RequestError(BaldrError, ValueError):
    """The client asked for something meaningless.

    Parameters
    ----------
    text : what is wrong
    details : what the commander's reply says beside the text, by key
    """

    def __init__(self, text: str = "", **details: Any) -> None:
        super().__init__(text)
        self.text = text
        self.details = details

    def __str__(self) -> str:
        more = ", ".join(f"{name}: {value}" for name, value in self.details.items())
        return f"{self.text} ({more})" if more else self.text


class StateError(BaldrError):
    """A sensible request at the wrong moment."""


class ConfigError(BaldrError, ValueError):
    """A configuration or calibration file is wrong."""


class BackendError(BaldrError, OSError):
    """The camera, the mirror, a peer server or shared memory failed."""
