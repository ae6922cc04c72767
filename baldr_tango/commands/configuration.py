"""Loading calibration files."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json


def _load(beam: Beam, path: str, mask: str | None) -> dict[str, Json]:
    parameters = beam.load(path, mask)
    return {
        "ok": True,
        "config_file": parameters.config_file,
        "configured": 1,
        "frequency": parameters.frame_rate_hz,
        "phasemask": parameters.mask,
        "warnings": list(parameters.warnings),
    }


@beam_command()
def readBDRConfig(beam: Beam, config_file_path: str) -> dict[str, Json]:
    """Load a calibration file for the phase mask in force; both loops open.

    Parameters
    ----------
    config_file_path : calibration file (TOML or JSON), as the server's host sees it
    """
    return _load(beam, config_file_path, None)


@beam_command()
def reload_config(beam: Beam, file: str, mask: str) -> dict[str, Json]:
    """Load a calibration file for a given phase mask; both loops open.

    Parameters
    ----------
    file : calibration file (TOML or JSON), as the server's host sees it
    mask : phase mask, the table inside the file, for instance H3
    """
    return {"status": "New configuration loaded successfully", **_load(beam, file, mask)}
