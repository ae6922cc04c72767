"""``baldr calibrate``: measure the instrument, write calibration files."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from baldr_tango.calibration.procedure import Progress, calibrate
from baldr_tango.configuration.runtime import RuntimeConfig
from baldr_tango.peers import CameraClient, ControlClient
from devices.cli.connect import configuration


def run(options: argparse.Namespace) -> int:
    """Calibrate the chosen beams."""
    console = Console(highlight=False)
    config = configuration(options)
    for beam in options.beam or config.beams:
        kept = keep_previous(config.for_beam(beam).calibration_file)
        if kept is not None:
            console.print(
                f"beam {beam}: the present calibration is kept as {kept}", markup=False, soft_wrap=True
            )
    files = calibrate_beams(config, options.beam, ProgressLines(console))
    for beam, path in files.items():
        console.print(f"beam {beam}: {path}", markup=False, soft_wrap=True)
    return 0


def keep_previous(file: Path) -> Path | None:
    """Copy a calibration file beside itself, named after its date; None when there is none.

    A calibration of the instrument takes an evening; measuring anew must not cost the old one.
    """
    if not file.is_file():
        return None
    written = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    copy = file.with_name(f"{file.stem}_{written:%Y-%m-%dT%H-%M-%S}{file.suffix}")
    if not copy.exists():
        shutil.copy2(file, copy)
    return copy


def calibrate_beams(
    config: RuntimeConfig, beams: Sequence[int] | None, progress: Progress
) -> dict[int, Path]:
    """Measure some beams (None: all) of a running instrument; return the file of each.

    Raises `BackendError` when the camera server, the MDS or a stream does not play its part.
    """
    with (
        CameraClient(config.endpoints.camera, config.endpoints.camera_timeout_s) as camera,
        ControlClient(
            config.endpoints.mds, {beam: config.for_beam(beam).mask for beam in config.beams}
        ) as control,
    ):
        return calibrate(
            config,
            control,
            frame_rate_hz=camera.fps(),
            gain=camera.gain(),
            beams=beams,
            progress=progress,
        )


class ProgressLines:
    """Tells the progress of a long task: a line for each step, and every tenth of the way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: tuple[str, int] = ("", -1)

    def __call__(self, fraction: float, text: str) -> None:
        """Say how far the task is."""
        now = (text, int(10 * fraction))
        if now != self._told:
            self._told = now
            self._console.print(f"  calibration {100 * fraction:3.0f} %: {text}", markup=False)
