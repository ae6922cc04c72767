"""The whole product on its own ports, streams and database, as rows measure it from outside."""

from __future__ import annotations

import atexit
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import tango
from numpy.typing import NDArray

from baldr_tango.configuration.runtime import InstrumentSettings, RuntimeConfig
from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.telemetry.reader import TelemetryFile, list_files
from devices.cli.calibrate import calibrate_beams
from devices.cli.deployment import Deployment, missing_calibrations
from devices.cli.isolation import isolated

_NEIGHBOURS: Final = 20
_FILES_KEPT: Final = 2


@cache
def _calibrations() -> Path:
    """Directory of the calibration files, which all deployments of this program share."""
    directory = tempfile.TemporaryDirectory(prefix="baldr-bench-calibration-")
    atexit.register(directory.cleanup)
    return Path(directory.name)


def configured(state: Path, rate_hz: float = 1000.0, **telemetry: Any) -> RuntimeConfig:
    """Return the shipped configuration with another state directory, rate and telemetry."""
    settings = replace(TelemetrySettings(), directory=state / "telemetry", keep_files=_FILES_KEPT)
    plain = RuntimeConfig(
        file=state / "baldr.toml",
        instrument=InstrumentSettings(state=state),
        telemetry=replace(settings, **telemetry),
    )
    return replace(
        plain,
        calibration=replace(plain.calibration, file=_calibrations() / "{beam}.toml"),
        simulator=replace(plain.simulator, rate_hz=rate_hz),
        loop=replace(plain.loop, frame_rate_hz=rate_hz),
    )


@contextmanager
def prepared(rate_hz: float = 1000.0, **telemetry: Any) -> Iterator[Deployment]:
    """Start database and virtual instrument, calibrate it; the device server is not started.

    telemetry : changes of the settings of telemetry
    """
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baldr-bench-")))
        config = stack.enter_context(isolated(configured(state, rate_hz, **telemetry), state))
        deployment = stack.enter_context(Deployment(config, _say))
        deployment.start_database("", 0)
        deployment.start_instrument()
        missing = missing_calibrations(config)
        if missing:
            _say(f"calibrating beams {', '.join(map(str, missing))}")
            calibrate_beams(config, list(missing), lambda fraction, text: None)
        yield deployment


@contextmanager
def deployed(rate_hz: float = 1000.0, **telemetry: Any) -> Iterator[Deployment]:
    """Start everything and close all loops; parameters as for `prepared`."""
    with prepared(rate_hz, **telemetry) as deployment:
        deployment.start_server()
        deployment.close_loops()
        yield deployment


def devices(deployment: Deployment) -> list[str]:
    """Names of the beams' devices, with the database."""
    return [beam.device for beam in deployment.beams]


def commanders(deployment: Deployment) -> list[str]:
    """Endpoints of the beams' commanders."""
    config = deployment.config
    return [config.for_beam(beam).commander_endpoint for beam in config.beams]


def counts(deployment: Deployment, *names: str) -> NDArray[np.float64]:
    """Read attributes of all beams: (beams, names)."""
    rows = []
    for device in devices(deployment):
        read = tango.DeviceProxy(device).read_attributes(list(names))
        rows.append([float(entry.value) for entry in read])
    return np.array(rows)


def recorded(deployment: Deployment, beam: int, *fields: str) -> dict[str, NDArray[Any]]:
    """Read fields of all telemetry that is on the disk, the oldest first."""
    parts = []
    for path in list_files(deployment.config.telemetry.directory, beam):
        with suppress(FileNotFoundError), TelemetryFile(path) as file:
            parts.append(file.records(fields=fields))
    return {name: np.concatenate([part[name] for part in parts]) for name in fields}


def lateness_us(records: dict[str, NDArray[Any]], rate_hz: float) -> NDArray[np.float64]:
    """Time from a frame's due time to its command (n,) [us].

    Due times are a grid of the nominal period through the earliest wake-ups nearby. A camera that stood
    still and began a new grid is not held against the loop: each frame is compared with the later of the
    grids before and behind it.

    records : ``frame``, ``time_ns`` and ``latency_ns`` (n,) of consecutive records
    """
    period = 1e9 / rate_hz
    frame, woke = records["frame"].astype(np.float64), records["time_ns"].astype(np.float64)
    phase = (woke - woke[0]) - (frame - frame[0]) * period
    padded = np.pad(phase, _NEIGHBOURS, constant_values=-np.inf)  # at the ends only one side counts
    windows = np.lib.stride_tricks.sliding_window_view(padded, _NEIGHBOURS + 1)
    earliest = windows.min(axis=1)
    grid = np.maximum(earliest[: phase.size], earliest[_NEIGHBOURS:][: phase.size])
    return (phase + records["latency_ns"] - grid) * 1e-3


def _say(text: str) -> None:
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
