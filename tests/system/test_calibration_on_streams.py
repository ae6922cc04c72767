"""A calibration of the running virtual instrument, through its streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.calibration.procedure import ProcedureSettings, calibrate
from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.derived import derive
from baldr_tango.errors import BackendError
from baldr_tango.names import ACTUATOR_INDEX
from baldr_tango.simulator.instrument import VirtualInstrument
from baldr_tango.streams import Stream
from tests.harness import remove_streams, stream_directory, wait_for
from tests.simulated import simulator_config

pytestmark = pytest.mark.system

QUICK = ProcedureSettings(
    dark_frames=100,
    reference_frames=100,
    registration_frames=20,
    mode_frames=20,
    poke_frames=4,
    skip_frames=2,
)
BRIGHT = {"rate_hz": 2000.0, "flux_adu": 400000.0}


@pytest.fixture
def directory() -> Iterator[Path]:
    path = stream_directory("baldr_cal")
    yield path
    remove_streams(path)


def test_two_beams_are_calibrated_at_once(directory: Path) -> None:
    config = simulator_config(directory, beams=(1, 3), **BRIGHT)
    told: list[float] = []
    with VirtualInstrument(config) as instrument:
        with Stream.open("dm3disp03", directory, writable=True) as poke:
            before = np.zeros((12, 12))
            before[6, 6] = 0.002
            poke.write(before)
            files = calibrate(
                config,
                instrument,
                frame_rate_hz=instrument.rate_hz,
                gain=instrument.gain,
                settings=QUICK,
                progress=lambda fraction, text: told.append(fraction),
            )
            assert np.array_equal(poke.read()[0], before)
        assert instrument.lamp
        assert instrument.mask_in(1)
        assert instrument.turbulence(3)
    assert sorted(files) == [1, 3]
    assert told == sorted(told)
    assert told[-1] == 1.0
    for beam, file in files.items():
        assert file == config.for_beam(beam).calibration_file
        calibration = load_calibration(file, beam, "H3")
        assert (calibration.frame_rate_hz, calibration.gain) == (2000.0, 10.0)
        assert calibration.dark == pytest.approx(np.full(1024, 1000.0), abs=2.0)
        parameters = derive(calibration, config.for_beam(beam))
        assert calibration.I0.sum() == pytest.approx(1)
        assert 70 <= np.count_nonzero(np.diag(parameters.reconstructor_ho)) <= 90
        assert calibration.IM is not None
        response = calibration.IM[2:].T @ calibration.M2C_LO[ACTUATOR_INDEX]
        assert parameters.reconstructor_lo @ response == pytest.approx(np.eye(2), abs=0.15)


def test_a_camera_that_stops_ends_the_calibration_and_all_is_put_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baldr_tango.calibration.measurement.FRAME_TIMEOUT_S", 0.3)
    config = simulator_config(directory, beams=(1, 2), **BRIGHT)
    with VirtualInstrument(config) as instrument:
        with Stream.open("dm1disp03", directory) as poke:
            failure: list[Exception] = []

            def run() -> None:
                try:
                    calibrate(config, instrument, frame_rate_hz=2000.0, gain=10.0, settings=QUICK)
                except BackendError as error:
                    failure.append(error)

            thread = threading.Thread(target=run)
            thread.start()
            wait_for(lambda: poke.counter() > 4, what="the first pokes")
            instrument.set_silent(True)
            thread.join(20)
            assert not thread.is_alive()
            assert "interaction matrix" in str(failure[0])
            assert "no frame for 0.3 s: the camera has stopped" in str(failure[0])
            assert not poke.read()[0].any()
        assert instrument.lamp
        assert instrument.mask_in(2)
        assert instrument.turbulence(1)
    assert not config.for_beam(1).calibration_file.exists()


def test_without_light_there_is_nothing_to_calibrate(directory: Path) -> None:
    config = simulator_config(directory, rate_hz=2000.0, flux_adu=0.0)
    with VirtualInstrument(config) as instrument, pytest.raises(BackendError, match=r"beam 1: .*no pupil"):
        calibrate(config, instrument, frame_rate_hz=2000.0, gain=10.0, settings=QUICK)


def test_an_absent_instrument_is_named(directory: Path) -> None:
    config = simulator_config(directory)
    with pytest.raises(BackendError, match=r"baldr1\.im\.shm"):
        calibrate(config, VirtualInstrument(config), frame_rate_hz=2000.0, gain=10.0)
