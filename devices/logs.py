"""The one bridge between Python logging and Tango's streams, and the server's console.

A record of the logger ``baldr.beamN`` (or below) goes to the log stream of that beam's device, from
where Tango's own targets - console, files, LogViewer - take it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from tango import EnsureOmniThread

from devices.text import tango_text

ROOT: Final = "baldr"
"""Logger above those of all beams."""


class TangoStream(logging.Handler):
    """Passes log records on to the stream of one Tango device."""

    def __init__(self, device: Any) -> None:
        super().__init__()
        self._device = device
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record at the device's level that corresponds to its own."""
        try:
            text = tango_text(self.format(record))
            with EnsureOmniThread():
                if record.levelno >= logging.CRITICAL:
                    self._device.fatal_stream(text)
                elif record.levelno >= logging.ERROR:
                    self._device.error_stream(text)
                elif record.levelno >= logging.WARNING:
                    self._device.warn_stream(text)
                elif record.levelno >= logging.INFO:
                    self._device.info_stream(text)
                else:
                    self._device.debug_stream(text)
        except Exception:
            self.handleError(record)


def attach(logger: logging.Logger, device: Any) -> TangoStream:
    """Send the records of `logger` to a device's stream; `detach` ends it.

    Information is let through to Python logging unless somebody has chosen another level; the level of
    the Tango stream is the device's own (``logging_level``).
    """
    if logging.getLogger(ROOT).level == logging.NOTSET:
        logging.getLogger(ROOT).setLevel(logging.INFO)
    handler = TangoStream(device)
    logger.addHandler(handler)
    return handler


def detach(logger: logging.Logger, handler: TangoStream) -> None:
    """End what `attach` began."""
    logger.removeHandler(handler)
    handler.close()


def log_to_console(level: int = logging.INFO) -> None:
    """Write the records of all beams to standard error, once however often it is called.

    Not for a server with Tango's own console target (option ``-v``), where each line would stand twice.
    """
    logger = logging.getLogger(ROOT)
    logger.setLevel(level)
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        console = _Console(sys.stderr)
        console.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        logger.addHandler(console)


class _Console(logging.StreamHandler):
    """Marks the handler that `log_to_console` installs."""
