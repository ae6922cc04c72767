"""The problem that is measured: the instrument's calibration file, or one made by the virtual instrument."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.configuration.runtime import (
    InstrumentSettings,
    RuntimeConfig,
    load_runtime,
    shipped_config,
)
from devices.cli.calibrate import calibrate_beams
from devices.cli.deployment import Deployment
from devices.cli.isolation import isolated

SHARED: Final = Path(os.environ.get("BALDR_SHARED") or Path(__file__).parents[2] / "shared")
CALIBRATION: Final = SHARED / "data" / "baldr_config_1.toml"


@cache
def instrument_problem() -> tuple[str, LoopParameters]:
    """Return what the problem is, for people, and the loop's parameters; made once per process."""
    if CALIBRATION.is_file():
        settings = load_runtime(shipped_config("real_calibration.toml")).for_beam(1)
        calibration = load_calibration(CALIBRATION, 1, "H3")
        return f"calibration file {CALIBRATION.name}", derive(calibration, settings)
    with tempfile.TemporaryDirectory(prefix="baldr-bench-") as name:
        state = Path(name)
        plain = RuntimeConfig(
            file=state / "baldr.toml", instrument=InstrumentSettings(state=state, beams=(1,))
        )
        plain = replace(plain, calibration=replace(plain.calibration, file=state / "{beam}.toml"))
        with isolated(plain, state) as config, Deployment(config, lambda text: None) as deployment:
            deployment.start_database("", 0)
            deployment.start_instrument()
            file = calibrate_beams(config, [1], lambda fraction, text: None)[1]
        settings = plain.for_beam(1)
        calibration = load_calibration(file, 1, settings.mask)
        return "calibration made by the virtual instrument", derive(calibration, settings)
