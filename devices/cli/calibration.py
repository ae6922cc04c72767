"""``baldr calibration``: judge a calibration file with the gains of a runtime file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from baldr_tango.calibration.report import judge, render
from baldr_tango.configuration.calibration import load_calibration
from baldr_tango.configuration.derived import derive
from baldr_tango.configuration.document import read_document
from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.errors import ConfigError
from devices.cli.connect import configuration


def run(options: argparse.Namespace) -> int:
    """Judge the chosen beams of the file; the exit status is 1 when one is predicted unstable.

    Raises `ConfigError` when the file or the runtime file is wrong.
    """
    config = configuration(options)
    reports = []
    for beam in options.beam or _beams(options.file, config):
        if beam not in config.beams:
            raise ConfigError(f"beam {beam}: the configuration {config.file} has {_list(config.beams)}")
        settings = config.for_beam(beam)
        calibration = load_calibration(options.file, beam, options.mask or settings.mask)
        # Without a camera to ask, the frame rate and the gain are those of the calibration.
        parameters = derive(calibration, settings, frame_rate_hz=calibration.frame_rate_hz)
        reports.append((parameters.warnings, judge(calibration, parameters)))
    if options.json:
        found = [{**report.as_dict(), "file_warnings": list(notes)} for notes, report in reports]
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for notes, report in reports:
            sys.stdout.write(render(report) + "\n")
            sys.stdout.writelines(f"  {'of the file':<18} {note}\n" for note in notes)
    return int(any(report.predicted_stable is False for _, report in reports))


def _beams(file: Path, config: RuntimeConfig) -> list[int]:
    """Beams of the configuration that the file has a table for."""
    document, _ = read_document(file.expanduser())
    found = [beam for beam in config.beams if f"beam{beam}" in document]
    if not found:
        raise ConfigError(
            f"{file}: found no table of beams {_list(config.beams)}, expected [beamN.<mask>.ctrl_model]"
        )
    return found


def _list(beams: tuple[int, ...]) -> str:
    return ", ".join(map(str, beams))
