"""Errors raised on purpose; each class names the party that can do something about it."""


class BaldrError(Exception):
    """Base of every error raised on purpose."""


class RequestError(BaldrError, ValueError):
    """The client asked for something meaningless."""


class StateError(BaldrError):
    """A sensible request at the wrong moment."""


class ConfigError(BaldrError, ValueError):
    """A configuration or calibration file is wrong."""


class BackendError(BaldrError, OSError):
    """The camera, the mirror, a peer server or shared memory failed."""
