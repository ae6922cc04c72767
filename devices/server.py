"""The device server ``BaldrRTC``, and ``baldr-server`` for people."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

SERVER = "BaldrRTC"
"""Name of the Tango server and of its console script: a Starter runs the one by the other."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the device server with Tango's own command line: ``BaldrRTC <instance> [options]``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    from tango.server import run

    from devices import logs
    from devices.beam_device import BaldrBeam

    if any(option.startswith("-v") for option in given):
        logging.getLogger(logs.ROOT).setLevel(logging.DEBUG)
    else:
        logs.log_to_console()
    run((BaldrBeam,), args=[SERVER, *given])
    logging.getLogger(logs.ROOT).info("server ended")
