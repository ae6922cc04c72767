"""Recordings of running beams go through the compiled loop again, and through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.beam import Beam
from baldr_tango.commands import execute
from baldr_tango.configuration.settings import TelemetrySettings
from baldr_tango.names import RtcState
from baldr_tango.replay import replay
from baldr_tango.simulator.instrument import VirtualInstrument
from baldr_tango.telemetry.files import list_files
from baldr_tango.telemetry.reader import TelemetryFile
from devices.cli.main import main
from tests.harness import remove_streams, stream_directory, wait_for
from tests.real_data import needs_files
from tests.system.test_real_calibration import configured
from tests.virtual_beam import VirtualBeam

pytestmark = pytest.mark.system

SEEN = {"flux_adu": 6e4, "turbulence": True, "residual_rms_nm": 60.0}
"""A star in turbulence, with photon noise."""


def wait_frames(beam: Beam, count: int) -> None:
    ring = beam.loop.arrays.ring
    target = ring.write_index + count
    wait_for(lambda: ring.write_index >= target, 60.0, "frames")


def recorded(beam: Beam, directory: Path) -> list[Path]:
    """End the recording; return its files once they are complete."""
    execute(beam, "telem_off")
    files = list_files(directory, beam.settings.beam)

    def is_complete() -> bool:
        for path in files:
            with TelemetryFile(path) as file:
                if not file.is_finished:
                    return False
        return True

    wait_for(is_complete, 60.0, "complete files")
    return files


def assert_exact(path: Path) -> int:
    """Replay a file and return how many frames were; all must be identical.

    Rows are passed over only at its beginning and behind gaps, which a busy machine may have.
    """
    result = replay(path)
    assert result.first is None, result.first
    assert result.is_identical
    with TelemetryFile(path) as file:
        gaps = {int(gap["row"]) for gap in file.gaps}
    assert {first for first, _ in result.passed_over} <= {0} | gaps
    return result.replayed


def test_a_night_on_the_virtual_instrument_is_replayed_file_by_file(tmp_path: Path) -> None:
    """Closed before the recording; gains, boxcar, injection, ring, loops and stop while it is recorded."""
    with VirtualBeam(tmp_path, {"image_every": 1, "file_mb": 4.0}, **SEEN) as bench:
        bench.ask("close_all")
        bench.wait_frames(100)
        bench.ask("telem_on")
        bench.wait_frames(300)
        for ki in (0.1, 0.2, 0.3):
            bench.ask("update_ctrl_param", "HO", "ki", "all", ki)
            bench.wait_frames(20)
        bench.ask("tt_inj", "prbs", 0.01, "command")
        bench.ask("change_boxcar", 4)
        bench.wait_frames(100)
        bench.ask("tt_inj", "off")
        bench.ask("set_telem_capacity", 2000)
        bench.wait_frames(200)
        bench.ask("open_baldr_HO")
        bench.wait_frames(30)
        bench.ask("close_baldr_HO")
        bench.wait_frames(100)
        bench.ask("pauseRTC")
        bench.ask("update_ctrl_param", "LO", "ki", "all", 0.15)
        bench.ask("resumeRTC")
        bench.wait_frames(50)
        bench.ask("stop_baldr")
        bench.ask("start_baldr")
        assert bench.beam.wait_until(lambda state: state.rtc == RtcState.RUNNING, 60.0)
        bench.ask("close_all")
        bench.wait_frames(100)
        files = recorded(bench.beam, tmp_path / "telemetry")
    assert len(files) >= 2, "the exchanged ring begins another file"
    assert sum(assert_exact(path) for path in files) > 300
    versions = set()
    for path in files:
        with TelemetryFile(path) as file:
            versions |= set(file.records(fields=("version",))["version"].tolist())
    assert len(versions) > 10


def test_the_command_line_tells_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with VirtualBeam(tmp_path, {"image_every": 1}, **SEEN) as bench:
        bench.ask("close_all")
        bench.ask("telem_on")
        bench.wait_frames(300)
        (path,) = recorded(bench.beam, tmp_path / "telemetry")
    assert main(["replay", str(path)]) == 0
    assert "identical bit for bit" in capsys.readouterr().out
    other = tmp_path / "other.toml"
    other.write_text("[control_ho]\nki = 0.05\n")
    target = tmp_path / "replayed.h5"
    assert main(["replay", str(path), "--config", str(other), "--output", str(target)]) == 0
    text = capsys.readouterr().out
    assert "control_ho.ki = 0.05" in text
    assert "do not answer" in text
    assert main(["replay", str(path), "--set", "control_ho.ki=0.05", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    with TelemetryFile(target) as file:
        command = file.records(fields=("command",))["command"]
    assert figures["command rms"][1] == pytest.approx(
        np.sqrt(np.mean(np.square(command, dtype=float))), rel=1e-6
    )
    assert figures["command rms"][1] != figures["command rms"][0]
    assert main(["replay", str(path), "--set", "control_ho.gain=1"]) == 1
    assert "control_ho.gain" in capsys.readouterr().err


@pytest.fixture
def directory() -> Iterator[Path]:
    path = stream_directory()
    yield path
    remove_streams(path)


@pytest.mark.real_data
@needs_files
@pytest.mark.parametrize("number", [1, 2])
def test_loops_on_calibration_files_of_the_instrument_are_replayed(
    number: int, directory: Path, tmp_path: Path
) -> None:
    config = configured(number, directory)
    telemetry = TelemetrySettings(directory=tmp_path, image_every=1, min_free_mb=0.0)
    beam = Beam(replace(config, telemetry=telemetry).for_beam(number))
    with VirtualInstrument(config) as instrument:
        instrument.set_turbulence(True)
        beam.start()
        try:
            assert beam.wait_until(lambda s: s.rtc == RtcState.RUNNING and not s.busy, 300.0), beam.state()
            execute(beam, "close_all")
            wait_frames(beam, 100)
            execute(beam, "telem_on")
            wait_frames(beam, 500)
            execute(beam, "change_boxcar", [3])
            wait_frames(beam, 300)
            (path,) = recorded(beam, tmp_path)
        finally:
            beam.close()
    assert assert_exact(path) > 100
