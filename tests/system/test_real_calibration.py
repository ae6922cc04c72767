"""Both loops on calibration files of the instrument, with a mirror and sensor that answer as measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.beam import Beam
from baldr_tango.beam.statistics import recent
from baldr_tango.commands import execute
from baldr_tango.configuration.runtime import RuntimeConfig, load_runtime, shipped_config
from baldr_tango.names import RtcState
from baldr_tango.simulator.instrument import VirtualInstrument
from tests.harness import remove_streams, stream_directory, wait_for
from tests.real_data import FILES, needs_real_data

pytestmark = [pytest.mark.system, *needs_real_data]

NOBODY = "tcp://127.0.0.1:9"
FRAMES = 500
"""Frames that an average is taken over: far more than the noise needs."""


@pytest.fixture
def directory() -> Iterator[Path]:
    path = stream_directory()
    yield path
    remove_streams(path)


def configured(beam: int, directory: Path) -> RuntimeConfig:
    """The shipped example for these files, one beam, on streams of its own."""
    config = load_runtime(shipped_config("real_calibration.toml"), state=directory / "state")
    return replace(
        config,
        instrument=replace(config.instrument, beams=(beam,)),
        streams=replace(config.streams, directory=str(directory)),
        calibration=replace(config.calibration, file=FILES[beam]),
        overrides={},
        realtime=replace(config.realtime, priority=0, lock_memory=False),
        endpoints=replace(
            config.endpoints, camera="tcp://127.0.0.1:9", mds="tcp://127.0.0.1:9", timeout_s=0.1
        ),
        loop=replace(config.loop, ring_frames=2 * FRAMES + 2),
    )


def mean_error(beam: Beam) -> float:
    """Norm of the mean tip/tilt error over the next frames [DM units]."""
    start = beam.loop.arrays.ring.write_index
    wait_for(lambda: beam.loop.arrays.ring.write_index > start + FRAMES, 60.0, "enough frames")
    return float(np.linalg.norm(recent(beam.loop.arrays.ring, "e_LO", FRAMES).mean(axis=0)))


@pytest.mark.parametrize("number", [1, 2])
def test_both_loops_close_and_the_tip_tilt_error_falls(number: int, directory: Path) -> None:
    config = configured(number, directory)
    beam = Beam(config.for_beam(number))
    with VirtualInstrument(config) as instrument:
        # Nobody tells this beam what the camera does: it takes the rate of the file, as the plant does.
        instrument.set_turbulence(True)
        beam.start()
        try:
            assert beam.wait_until(lambda s: s.rtc == RtcState.RUNNING and not s.busy, 300.0), beam.state()
            before = mean_error(beam)
            execute(beam, "close_all")
            settle = beam.loop.arrays.ring.write_index + FRAMES
            wait_for(lambda: beam.loop.arrays.ring.write_index > settle, 60.0, "settled loops")
            after = mean_error(beam)
            assert before > 0.02, "the static disturbance must be seen"
            assert after < before / 5.0
            state = beam.state()
            assert (state.lo, state.ho) == (1, 1)
            assert not state.fault
            values = beam.read(["limited_modes", "muted_modes", "dm_peak", "skipped_frames"])
            assert values["muted_modes"] == 0
            assert values["skipped_frames"] == 0
            assert 0.0 < values["dm_peak"] < config.limits.command
        finally:
            beam.close()
