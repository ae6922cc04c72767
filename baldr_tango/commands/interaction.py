"""Interaction matrix and reconstructors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.beam.jobs import Job
from baldr_tango.commands.options import boolean, number, options_of, positive_integer, text
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json

FRAMES: Final = 20
"""Frames averaged per poke when the request does not say."""

SPACES: Final = ("dm", "pix")

_BUILD: Final = ("poke", "n_iter", "sleep_s", "space", "file", "basis", "modes", "frames")
_COMPUTE: Final = ("method", "keep", "regularisation", "least_response", "file", "apply", "save")


@beam_command(background=True)
def build_interaction_matrix(
    beam: Beam,
    poke: Any = None,
    n_iter: Any = None,
    sleep_s: Any = None,
    space: Any = None,
    file: Any = None,
) -> Job:
    """Measure the interaction matrix with the loop's own frames and double-sided pokes; loops must be open.

    Parameters
    ----------
    poke : distance of the two signs [DM units], 0.05 by default; or an object with any of the arguments and
        {"basis": "zonal", "modes": 140, "frames": 20, "wait": false}
    n_iter : pairs of pokes per mode, 10 by default
    sleep_s : time let pass after each poke, at least two frames, 0.01 by default
    space : "dm" (signals) or "pix" (raw frames): what the figures of merit are of; "dm" by default
    file : new file (.fits, .h5, .npz) or directory; by default a dated file in the telemetry directory
    """
    name = "build_interaction_matrix"
    given = options_of(name, _BUILD, [poke, n_iter, sleep_s, space, file])
    wanted_space = text(name, "space", given.get("space", "dm"))
    if wanted_space not in SPACES:
        raise RequestError(f"{name}: space must be one of {', '.join(SPACES)}, found {wanted_space!r}")
    rate_hz = beam.loop.parameters.frame_rate_hz if beam.loop else 0.0
    sleep = number(name, "sleep_s", given.get("sleep_s", 0.01), 0.0, 60.0)
    return beam.interaction.start_measurement(
        poke=number(name, "poke", given.get("poke", 0.05), 1e-6, 1.0),
        iterations=positive_integer(name, "n_iter", given.get("n_iter", 10), 1, 10000),
        frames=positive_integer(name, "frames", given.get("frames", FRAMES), 1, 100000),
        # Two frames pass anyway.
        skip_frames=max(0, math.ceil(sleep * rate_hz) - 2),
        space=wanted_space,
        path=text(name, "file", given.get("file", "")),
        basis=text(name, "basis", given.get("basis", "zonal")),
        modes=positive_integer(name, "modes", given["modes"]) if "modes" in given else None,
    )


@beam_command()
def compute_reconstructor(beam: Beam, method: Any = None) -> dict[str, Json]:
    """Compute reconstructors from the interaction matrix measured last, or from its file.

    Parameters
    ----------
    method : "zonal", "pinv", "svd_truncation" or "map"; or an object: {"method": "pinv"}, with "keep": 60
        (svd_truncation), "regularisation": 1.0 (map), "file" of a measured matrix, "apply": true to put
        them in force (both loops open), "save": true to write a new calibration file
    """
    name = "compute_reconstructor"
    given = options_of(name, _COMPUTE, [method])
    options: dict[str, Any] = {}
    if "keep" in given:
        options["keep"] = positive_integer(name, "keep", given["keep"])
    for key in ("regularisation", "least_response"):
        if key in given:
            options[key] = number(name, key, given[key], 0.0, 1e12)
    source = text(name, "file", given.get("file", ""))
    return beam.interaction.reconstruct(
        text(name, "method", given.get("method", "zonal")),
        source=Path(source) if source else None,
        apply=boolean(name, "apply", given.get("apply", False)),
        save=boolean(name, "save", given.get("save", False)),
        **options,
    )
