"""Open-loop offsets: maps on the mirror while a loop is open."""

from __future__ import annotations

from typing import Any

from baldr_tango.beam import Beam
from baldr_tango.commands import forms
from baldr_tango.commands.table import beam_command
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json


@beam_command()
def ol_set_actuator(beam: Beam, branch: Any, idx: Any = None, value: Any = None) -> dict[str, Json]:
    """Set one actuator of the offset that acts while a loop is open.

    Also with an object, {"branch":"HO","idx":65,"value":0.1}, or one text, "HO 65 0.1". The offset stays
    until clear_openloop_offsets.

    Parameters
    ----------
    branch : LO or HO: the loop that has to be open
    idx : point of the 12x12 DM grid, row-major from 0, corners counted (but refused)
    value : DM units, at most limits.command
    """
    given = forms.named((branch, idx, value), ("branch", "idx", "value"), 3)
    name = forms.branch(given["branch"])
    index = forms.integer("idx", given["idx"])
    amplitude = forms.number("value", given["value"])
    if index < 0:
        raise RequestError("idx must be >= 0")
    old = beam.offsets.set_actuator(name, index, amplitude)
    size = beam.offsets.map(name).size
    return {"ok": True, "branch": name, "idx": index, "value": amplitude, "old": old, "N": size}


@beam_command()
def ol_set_mode(
    beam: Beam,
    branch: Any,
    basis: Any = None,
    index: Any = None,
    amplitude: Any = None,
    accumulate: Any = None,
) -> dict[str, Json]:
    """Set the offset that acts while a loop is open to a mode of a basis.

    Also with an object of these keys, or one text, "LO zernike 0 0.1 true". The offset stays until
    clear_openloop_offsets.

    Parameters
    ----------
    branch : LO or HO: the loop that has to be open
    basis : zonal, zernike, hadamard, fourier_10x10, fourier_12x12, kl, or m2c_lo, m2c_ho: the loops' own
    index : number of the mode, from 0
    amplitude : factor of the mode's map, in DM units; the map may reach limits.command
    accumulate : true adds the mode to the offset that is there
    """
    keys = ("branch", "basis", "index", "amplitude", "accumulate")
    given = forms.named((branch, basis, index, amplitude, accumulate), keys, 4)
    name = forms.branch(given["branch"])
    number = forms.integer("index", given["index"])
    factor = forms.number("amplitude", given["amplitude"])
    adds = forms.flag("accumulate", given.get("accumulate"))
    found = beam.offsets.set_mode(name, str(given["basis"]), number, factor, adds)
    return {
        "ok": True,
        "branch": name,
        "basis": found.name,
        "index": number,
        "amplitude": factor,
        "accumulate": adds,
        "n_modes": found.n_modes,
        "dm_len": beam.offsets.map(name).size,
    }


@beam_command()
def clear_openloop_offsets(beam: Beam) -> dict[str, Json]:
    """Take the offsets of both loops away."""
    beam.offsets.clear()
    return {"ok": True, "TT_offsets": 0}
