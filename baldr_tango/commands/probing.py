"""Known shapes on the mirror and the frames that show them."""

from __future__ import annotations

import math
from typing import Any, Final

from baldr_tango.beam import Beam
from baldr_tango.beam.jobs import Job
from baldr_tango.beam.probe_methods import Aberration, method
from baldr_tango.beam.probe_run import probe_plan, start_probing
from baldr_tango.commands.options import number, options_of, positive_integer, text
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json

MOST_SAMPLES: Final = 1_000_000
"""Most frames of one probe."""

_NAMES: Final = ("aberrations", "basis", "state", "field", "N", "deadtime_ms", "outfile")


@beam_command(reads=True)
def build_probe_args_for_method(beam: Beam, method_name: str) -> list[Json]:
    """Return the arguments of probe_interaction_data that a named sequence stands for.

    Parameters
    ----------
    method_name : method_1, I2A, TT_OL_img, I2A_CL, IM_OL or IM_CL
    """
    return method(method_name).arguments()


@beam_command(background=True)
def probe_interaction_data(
    beam: Beam,
    aberrations: Any = None,
    basis: Any = None,
    state: Any = None,
    field: Any = None,
    N: Any = None,
    deadtime_ms: Any = None,
) -> Job:
    """Put shapes on the mirror one after the other and collect the frames that show each; then undo it.

    Parameters
    ----------
    aberrations : [[mode, amplitude], ...] in order; or an object with any of the arguments, "outfile" (new
        FITS file or directory) and "wait"
    basis : zonal, zernike, hadamard, fourier_10x10, fourier_12x12, kl
    state : "OL": offsets, high-order loop open; "CL": set points, high-order loop closed
    field : telemetry field; "all" or a list of fields go into a file
    N : frames per probe, counted after the mirror has moved
    deadtime_ms : time let pass before; -1 (default): two frames, or 0.5 s with a closed loop
    """
    name = "probe_interaction_data"
    values = [aberrations, basis, state, field, N, deadtime_ms]
    if not isinstance(aberrations, list | dict):
        raise RequestError("bad args", usage="[aberrations, basis, state, field, N, deadtime_ms]")
    if isinstance(aberrations, list) and len(aberrations) > 1 and isinstance(aberrations[1], str):
        # The list of arguments inside another one, as the C++ client library sends it.
        values = [*aberrations, *[None] * len(values)][: len(values)]
    given = options_of(name, _NAMES, values)
    for needed in ("aberrations", "basis", "state", "N"):
        if needed not in given:
            raise RequestError(f"usage: {needed} is missing", usage=", ".join(_NAMES))
    plan = probe_plan(
        _aberrations(given["aberrations"]),
        text(name, "basis", given["basis"]),
        text(name, "state", given["state"]),
        _fields(given.get("field")),
        positive_integer(name, "N", given["N"], 1, MOST_SAMPLES),
        _dead_time(name, given),
        bases=beam.bases,
    )
    wants_file = "outfile" in given or not plan.is_single
    outfile = text(name, "outfile", given.get("outfile", "")) if wants_file else None
    return start_probing(beam, plan, outfile, name)


@beam_command(background=True)
def run_probe_method(beam: Beam, method_name: Any = None, path: Any = None) -> Job:
    """Run a named probing sequence into a FITS file; then undo it.

    Parameters
    ----------
    method_name : method_1, I2A, TT_OL_img, I2A_CL, IM_OL or IM_CL; or an object with "method", "path",
        "deadtime_ms" and "wait"
    path : new file, or directory; by default a dated file in the telemetry directory
    """
    name = "run_probe_method"
    if not isinstance(method_name, str | dict):
        raise RequestError("bad args", usage='["method", "path"]')
    given = options_of(name, ("method", "path", "deadtime_ms"), [method_name, path])
    if "method" not in given:
        raise RequestError("usage: method is missing", usage='["method", "path"]')
    chosen_name = text(name, "method", given["method"])
    chosen = method(chosen_name)
    plan = probe_plan(
        chosen.aberrations,
        chosen.basis,
        chosen.state,
        _fields(chosen.field),
        chosen.samples,
        _dead_time(name, given),
        chosen_name,
        bases=beam.bases,
    )
    return start_probing(beam, plan, text(name, "path", given.get("path", "")), name)


def _aberrations(value: Any) -> list[Aberration]:
    if not isinstance(value, list) or not value:
        raise RequestError("each aberration must be [idx,amp]", found=value)
    pairs = []
    for pair in value:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RequestError("each aberration must be [idx,amp]", found=pair)
        index, amplitude = pair
        is_index = isinstance(index, int) or (isinstance(index, float) and index.is_integer())
        is_number = isinstance(amplitude, int | float) and math.isfinite(amplitude)
        if isinstance(index, bool) or isinstance(amplitude, bool) or not is_index or not is_number:
            raise RequestError("each aberration must be [idx,amp]", found=pair)
        pairs.append((int(index), float(amplitude)))
    return pairs


def _fields(value: Any) -> list[str] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RequestError('field must be a name, a list of names or "all"', field=value)
    return names


def _dead_time(name: str, given: dict[str, Any]) -> float:
    return number(name, "deadtime_ms", given.get("deadtime_ms", -1), -1.0, 600000.0)
