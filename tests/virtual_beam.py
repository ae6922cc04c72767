"""A beam on the running virtual instrument, with a calibration of its noiseless optics."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from baldr_tango.beam import Beam
from baldr_tango.calibration.procedure import ProcedureSettings
from baldr_tango.calibration.result import calibration_of
from baldr_tango.commands import execute
from baldr_tango.configuration.calibration import write_calibration
from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.settings import (
    LimitSettings,
    LoopSettings,
    SimulatorSettings,
    TelemetrySettings,
)
from baldr_tango.names import RtcState
from baldr_tango.rtc import RealTimeLoop
from baldr_tango.simulator.instrument import VirtualInstrument
from tests.harness import LONG_S, remove_streams, stream_directory, wait_for
from tests.optical_bench import OpticalBench
from tests.simulated import simulator_config

POKE = 0.01
"""Poke of the calibration [DM units]: small, so that the response is that of a small signal."""

QUIET: dict[str, Any] = {
    "rate_hz": 1000.0,
    "turbulence": False,
    "flux_adu": 4e8,
    "read_noise_adu": 1.0,
    "residual_rms_nm": 0.0,
}
"""Much light and no turbulence."""

_NOBODY = "tcp://127.0.0.1:1"


@cache
def optical_calibration(flux_adu: float = 4e8) -> Calibration:
    """Calibration of beam 1 from the optical model, without noise."""
    bench = OpticalBench(replace(SimulatorSettings(), flux_adu=flux_adu))
    measurement = bench.measure(ProcedureSettings(poke=POKE, mode_poke=POKE / 5))
    return calibration_of(
        measurement,
        beam=1,
        mask="H3",
        frame_rate_hz=1000.0,
        gain=10.0,
        poke=POKE,
        least_response=0.3,
        project_tip_tilt=True,
        controller_type="LEAKY",
    )


class VirtualBeam:
    """A virtual instrument of one beam and the product's beam on its streams.

    Parameters
    ----------
    directory : empty directory for calibration and telemetry
    telemetry : keys of the table ``[telemetry]``
    simulator : keys of the table ``[simulator]`` beside those of `QUIET`
    """

    def __init__(self, directory: Path, telemetry: dict[str, Any] | None = None, **simulator: Any) -> None:
        self.streams = stream_directory("baldr_virtual")
        config = simulator_config(self.streams, **{**QUIET, **simulator})
        self.simulator = config.simulator
        self.instrument = VirtualInstrument(config)
        self.calibration = optical_calibration(config.simulator.flux_adu)
        file = write_calibration(directory / "calibration.toml", self.calibration, 1, "H3")
        settings = replace(
            config.for_beam(1),
            calibration_file=file,
            commander_endpoint="",
            camera_endpoint=_NOBODY,
            mds_endpoint=_NOBODY,
            timeout_s=0.05,
            camera_timeout_s=0.05,
            loop=LoopSettings(ring_frames=1024),
            limits=LimitSettings(saturation_adu=1e9),  # so much light saturates any camera
            telemetry=TelemetrySettings(
                directory=directory / "telemetry", min_free_mb=0.0, **(telemetry or {})
            ),
        )
        self.beam = Beam(settings)

    def __enter__(self) -> VirtualBeam:
        try:
            self.instrument.start()
            self.beam.start()
            assert self.beam.wait_until(lambda state: state.rtc == RtcState.RUNNING, LONG_S)
            wait_for(lambda: self.loop.has_streams and self.loop.adopted >= self.loop.slots.version)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Close the beam, stop the instrument, remove the streams."""
        self.beam.close()
        self.instrument.stop()
        remove_streams(self.streams)

    @property
    def loop(self) -> RealTimeLoop:
        """The loop of the configuration in force."""
        assert self.beam.loop is not None
        return self.beam.loop

    def ask(self, name: str, *arguments: Any, **how: Any) -> Any:
        """Give a command."""
        return execute(self.beam, name, list(arguments), **how)

    def wait_frames(self, count: int) -> None:
        """Wait for further frames to be recorded."""
        target = self.loop.arrays.ring.write_index + count
        deadline = time.monotonic() + LONG_S
        while self.loop.arrays.ring.write_index < target:
            assert time.monotonic() < deadline, "frames did not come"
            time.sleep(0.001)

    def command(self) -> np.ndarray:
        """Map that the loop wrote last (G,)."""
        return self.loop.arrays.state.command.astype(float)
