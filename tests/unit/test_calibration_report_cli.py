"""``baldr calibration check``: what it says and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baldr_tango.configuration.calibration import write_calibration
from devices.cli.main import main
from tests.unit.configuration_problem import calibration_table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A calibration file with beams 1 and 3."""
    path = tmp_path / "calibration.toml"
    for beam, mask in ((1, "H3"), (1, "H5"), (3, "H3")):
        write_calibration(path, calibration_table(), beam, mask)
    return path


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "baldr.toml"
    path.write_text('[control_lo]\ntype = "PID"\nki = 0.2\n[control_ho]\ntype = "PID"\nki = 0.2\n')
    return path


def test_a_good_file_ends_with_status_0(file, runtime, capsys):
    assert main(["calibration", "check", str(file), "--config", str(runtime)]) == 0
    text = capsys.readouterr().out
    assert "beam 1, mask H3" in text
    assert "beam 3, mask H3" in text
    assert "beam 2" not in text
    assert text.count("closed LO+HO") == 4
    assert "unstable" not in text


def test_a_predicted_instability_ends_with_status_1(file, runtime, capsys):
    runtime.write_text(runtime.read_text() + "[beam.3.control_ho]\nki = 1.5\n")
    assert main(["calibration", "check", str(file), "--config", str(runtime), "--beam", "1"]) == 0
    assert main(["calibration", "check", str(file), "--config", str(runtime)]) == 1
    assert "predicted unstable" in capsys.readouterr().out


def test_the_mask_is_chosen(file, runtime, capsys):
    arguments = ["calibration", "check", str(file), "--config", str(runtime), "--mask", "H5", "--beam", "1"]
    assert main(arguments) == 0
    assert "beam 1, mask H5" in capsys.readouterr().out


def test_json_holds_the_whole_report(file, runtime, capsys):
    main(["calibration", "check", str(file), "--config", str(runtime), "--json", "--beam", "3"])
    (report,) = json.loads(capsys.readouterr().out)
    assert report["beam"] == 3
    assert report["predicted_stable"] is True
    assert any("beam1" in note for note in report["file_warnings"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--beam", "2"], ["[beam2]", "beam1, beam3"]),
        (["--beam", "7"], ["beam 7", "1, 2, 3, 4"]),
        (["--mask", "J1"], ["J1", "H3, H5"]),
    ],
)
def test_what_is_not_there_is_told(file, runtime, capsys, arguments, words):
    assert main(["calibration", "check", str(file), "--config", str(runtime), *arguments]) == 1
    error = capsys.readouterr().err
    for word in words:
        assert word in error


def test_a_file_without_beams_is_told(tmp_path, runtime, capsys):
    path = tmp_path / "other.toml"
    path.write_text("[other]\nx = 1\n")
    assert main(["calibration", "check", str(path), "--config", str(runtime)]) == 1
    assert "found no table of beams 1, 2, 3, 4" in capsys.readouterr().err
