"""Errors on their way to Tango clients: a reason from a short list, the text, the origin."""

from __future__ import annotations

from typing import Final, NoReturn

from tango import DevFailed, ErrSeverity, Except

from baldr_tango.errors import BackendError, BaldrError, ConfigError, RequestError, StateError
from devices.text import tango_text

REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (RequestError, "BAD_REQUEST"),
    (StateError, "OPERATION_NOT_ALLOWED"),
    (ConfigError, "CONFIGURATION_WRONG"),
    (BackendError, "COMMUNICATION_BROKEN"),
    (Exception, "SOFTWARE_FAILURE"),
)
"""Reason of a ``DevFailed`` by the class of error; the first that fits."""


def reason(error: Exception) -> str:
    """Return the word of `REASONS` for an error."""
    return next(word for kind, word in REASONS if isinstance(error, kind))


def describe(error: Exception) -> str:
    """Return the text of an error for an operator."""
    if isinstance(error, DevFailed):
        return "; ".join(str(entry.desc).strip() for entry in error.args)
    text = str(error)
    return text if isinstance(error, BaldrError) else f"{type(error).__name__}: {text}"


def raise_failure(error: Exception, origin: str) -> NoReturn:
    """Raise the ``DevFailed`` that tells a client about `error`."""
    if isinstance(error, DevFailed):
        raise error
    Except.throw_exception(reason(error), tango_text(describe(error)), tango_text(origin), ErrSeverity.ERR)
    raise AssertionError("unreachable")
