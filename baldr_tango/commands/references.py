"""Dark and references from the loop's own frames."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.beam.dark_sequence import LAMP, take_dark
from baldr_tango.beam.jobs import Job
from baldr_tango.commands.options import boolean, number, options_of, positive_integer, text
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json

LUCKY_PERCENTILE: Final = 95.0
"""Percentile of ``I0_update_lucky`` when the request has none."""


def _frames(command: str, options: dict[str, Any]) -> int | None:
    return positive_integer(command, "frames", options["frames"]) if "frames" in options else None


@beam_command()
def dark_update(beam: Beam, frames: Any = None) -> dict[str, Json]:
    """Take the mean of the newest raw frames for the dark; the light must be off.

    Parameters
    ----------
    frames : number of frames; by default what there is since the light went out, at most 1000
    """
    options = options_of("dark_update", ["frames"], [frames])
    return beam.references.update_dark(_frames("dark_update", options))


@beam_command()
def I0_update(beam: Beam, frames: Any = None) -> dict[str, Json]:
    """Take the mean of the newest normalised frames for the reference I0; the phase mask must be in.

    Parameters
    ----------
    frames : number of frames; by default what there is since loops or mirror changed, at most 1000
    """
    options = options_of("I0_update", ["frames"], [frames])
    return beam.references.update_reference(_frames("I0_update", options))


@beam_command()
def I0_update_lucky(beam: Beam, percentile: Any = None, frames: Any = None) -> dict[str, Json]:
    """Take I0 from those of the newest frames that have the most light outside the pupil.

    Parameters
    ----------
    percentile : of rmse_est, 50 to 99.9 (others are brought into that range); 95 by default
    frames : number of frames to choose from; by default what there is since a change, at most 1000
    """
    options = options_of("I0_update_lucky", ["percentile", "frames"], [percentile, frames])
    chosen = number("I0_update_lucky", "percentile", options.get("percentile", LUCKY_PERCENTILE), 0.0, 100.0)
    return beam.references.update_reference(_frames("I0_update_lucky", options), chosen)


@beam_command()
def N0_update(beam: Beam, frames: Any = None) -> dict[str, Json]:
    """Take the mean of the newest frames for the clear pupil N0; the phase mask must be out.

    Parameters
    ----------
    frames : number of frames, or an object: {"frames": 500}, {"constant": true} for one value everywhere
    """
    options = options_of("N0_update", ["frames", "constant"], [frames])
    constant = boolean("N0_update", "constant", options.get("constant", False))
    return beam.references.update_clear_pupil(_frames("N0_update", options), constant)


@beam_command()
def undo_references(beam: Beam) -> dict[str, Json]:
    """Put dark, I0 and N0 of the calibration file in force again."""
    return beam.references.undo()


@beam_command()
def save_references(beam: Beam, path: Any = None) -> dict[str, Json]:
    """Write a new calibration file with dark, I0 and N0 in force; readBDRConfig loads it again.

    Parameters
    ----------
    path : new file (.toml) or directory; by default a dated file beside the calibration file
    """
    options = options_of("save_references", ["path"], [path])
    return beam.references.save(text("save_references", "path", options.get("path", "")))


@beam_command(background=True)
def acquire_dark(beam: Beam, options: Any = None) -> Job:
    """Switch the calibration source off, take the dark, switch it on again; both loops must be open.

    Parameters
    ----------
    options : number of frames, or an object: {"frames": 1000, "settle_s": 1.0, "lamp": "SBB", "wait": false}
    """
    given = options_of("acquire_dark", ["frames", "settle_s", "lamp"], [options])
    settle_s = number("acquire_dark", "settle_s", given.get("settle_s", 1.0), 0.0, 600.0)
    task = partial(
        take_dark,
        beam,
        frames=_frames("acquire_dark", given),
        settle_s=settle_s,
        lamp=text("acquire_dark", "lamp", given.get("lamp", LAMP)),
    )
    return beam.jobs.start("acquire_dark", task)
