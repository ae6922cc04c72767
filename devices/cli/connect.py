"""Where the devices of an already running server are."""

from __future__ import annotations

import argparse
import os

from baldr_tango.configuration.runtime import RuntimeConfig, load_runtime, shipped_config
from baldr_tango.errors import ConfigError
from devices.cli.beams import BeamClient, clients
from devices.cli.runfile import read_run_file


def configuration(options: argparse.Namespace) -> RuntimeConfig:
    """Load the runtime file that the options name, or the shipped one."""
    return load_runtime(options.config or shipped_config(), state=options.state)


def connect(options: argparse.Namespace) -> list[BeamClient]:
    """Return clients of the chosen beams.

    Raises `ConfigError` when it is not known where the Tango database is.
    """
    config = configuration(options)
    running = read_run_file(config.instrument.state) or {}
    tango_host = options.tango_host or os.environ.get("TANGO_HOST") or running.get("tango_host")
    if not tango_host:
        raise ConfigError(
            f"no Tango database: TANGO_HOST is not set, and no 'baldr up' runs with {config.instrument.state}"
        )
    return clients(config, tango_host, options.beam)
