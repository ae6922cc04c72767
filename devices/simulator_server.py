"""The device server ``BaldrSimulator``: the virtual instrument as a Tango device, in its own process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

from baldr_tango.configuration.runtime import RuntimeConfig

SERVER: Final = "BaldrSimulator"
"""Name of the Tango server and of its console script."""

DEVICE_CLASS: Final = "BaldrSimulator"


def simulator_device(config: RuntimeConfig) -> str:
    """Return the Tango name of the virtual instrument's device."""
    return f"{config.instrument.tango_prefix}/simulator"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the device server with Tango's own command line: ``BaldrSimulator <instance> [options]``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    from tango.server import run

    from devices import logs
    from devices.processes import end_at_once
    from devices.simulator_device import BaldrSimulator

    if any(option.startswith("-v") for option in given):
        # Tango's own console target writes what the bridge gives it.
        logging.getLogger(logs.ROOT).setLevel(logging.DEBUG)
    else:
        logs.log_to_console()
    BaldrSimulator.announce = True
    run((BaldrSimulator,), args=[SERVER, *given])
    if BaldrSimulator.is_starting():
        end_at_once()


if __name__ == "__main__":
    main()
