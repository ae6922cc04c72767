"""Phase-mask words of the virtual MDS: moves to masks, and tables of their places in files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from legacy_zmq.virtual_stages import MASKS, VirtualStages

__all__ = ["MAX_UM", "MaskCommands", "PositionFiles"]

MAX_UM: Final = 1e6
"""Largest coordinate of a stage that is taken [um]."""

Place = tuple[float, float]

_NO_POSITIONS: Final = "'BaldrPhaseMask' object has no attribute 'mask_positions'"
_READPOS: Final = 'can only concatenate list (not "str") to list'  # the real server ends with it


class PositionFiles:
    """Tables of the places of masks: ``beamN/phase_positions_beamN_<time>.json``, {mask: [x, y]} in um.

    Parameters
    ----------
    directory : of the files of all beams; made when the first is written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, beam: int, name: str) -> dict[str, Place]:
        """Return the table of a file; one without a path is looked for where those of the beam are written.

        Raises
        ------
        ValueError : no such file, not JSON, or a mask without two finite coordinates.
        """
        path = self._of(beam) / Path(name).expanduser()
        try:
            found = json.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{path}: found a {type(found).__name__}, expected masks with their places")
        return {mask: _place(path, mask, found.get(mask)) for mask in MASKS}

    def write(self, beam: int, table: Mapping[str, Place]) -> Path:
        """Write a table, whole or not at all; `ValueError` when that is not possible."""
        path = self._of(beam) / f"phase_positions_beam{beam}_{datetime.now():%Y-%m-%dT%H-%M-%S}.json"
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({mask: list(place) for mask, place in table.items()}, indent=4))
            part.replace(path)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        return path

    def _of(self, beam: int) -> Path:
        return self.directory / f"beam{beam}"


class MaskCommands:
    """The words ``fpm_...``; a mask is where the table of its beam says, so that every table fits the stage.

    Parameters
    ----------
    stages : of the phase masks.
    files : of their places.
    """

    def __init__(self, stages: VirtualStages, files: PositionFiles) -> None:
        self._stages = stages
        self._files = files

    def commands(self) -> dict[str, tuple[int, int, Callable[..., str]]]:
        """Return by name: fewest and most words after it, handler."""
        return {
            "fpm_movetomask": (2, 2, self._move_to_mask),
            "fpm_updatemaskpos": (2, 2, self._keep_position),
            "fpm_offsetallmaskpositions": (3, 3, self._offset_masks),
            "fpm_getsavepath": (1, 1, self._save_path),
            "fpm_writemaskpos": (1, 1, self._write),
            "fpm_update_position_file": (2, 2, self._take_file),
            "fpm_updateallmaskpos": (3, 3, self._take_distances),
            "fpm_moverel": (2, 2, self._broken_move),
            "fpm_moveabs": (2, 2, self._broken_move),
            "fpm_maskpositions": (1, 1, lambda stage: self._broken(stage, _NO_POSITIONS)),
            "fpm_readpos": (1, 1, lambda stage: self._broken(stage, _READPOS)),
        }

    def beam(self, stage: str) -> int:
        """Return the beam of ``phasemaskN``; `KeyError` when there is none."""
        beam = int(stage.removeprefix("phasemask")) if re.fullmatch(r"phasemask\d", stage) else 0
        if beam not in self._stages.beams:
            raise KeyError(stage)
        return beam

    def _move_to_mask(self, stage: str, mask: str) -> str:
        self._stages.move_to_mask(self.beam(stage), mask)
        return "ACK"

    def _keep_position(self, stage: str, mask: str) -> str:
        """Store where the stage stands as the place of a mask."""
        beam = self.beam(stage)
        _check_mask(mask)
        return self._take(beam, self._stages.tables[beam] | {mask: self._stages.place(beam)})

    def _offset_masks(self, stage: str, dx: str, dy: str) -> str:
        beam, by = self.beam(stage), (float(dx), float(dy))
        if not all(map(math.isfinite, by)):
            raise ValueError
        table = self._stages.tables[beam]
        return self._take(beam, {name: (x + by[0], y + by[1]) for name, (x, y) in table.items()})

    def _save_path(self, stage: str) -> str:
        self.beam(stage)
        return str(self._files.directory)

    def _write(self, stage: str) -> str:
        beam = self.beam(stage)
        self._files.write(beam, self._stages.tables[beam])
        return "ACK"

    def _take_file(self, stage: str, name: str) -> str:
        beam = self.beam(stage)
        return self._take(beam, self._files.read(beam, name))

    def _take_distances(self, stage: str, mask: str, name: str) -> str:
        """Take the distances of the masks from a file, with `mask` where the stage stands."""
        beam = self.beam(stage)
        _check_mask(mask)
        table, here = self._files.read(beam, name), self._stages.place(beam)
        by = here[0] - table[mask][0], here[1] - table[mask][1]
        return self._take(beam, {each: (x + by[0], y + by[1]) for each, (x, y) in table.items()})

    def _take(self, beam: int, table: dict[str, Place]) -> str:
        self._stages.take_table(beam, table)
        return "ACK"

    def _broken(self, stage: str, told: str) -> str:
        """Refuse what the real server cannot do over the wire, in its words."""
        self.beam(stage)
        raise ValueError(told)

    def _broken_move(self, stage: str, position: str) -> str:
        """Refuse as the real server, which takes the first character of the text for the first number."""
        return self._broken(stage, f"could not convert string to float: {position[0]!r}")


def _check_mask(mask: str) -> None:
    if mask not in MASKS:
        raise KeyError(mask)


def _place(path: Path, mask: str, value: Any) -> Place:
    if isinstance(value, list) and len(value) == 2 and all(_is_coordinate(each) for each in value):
        return float(value[0]), float(value[1])
    raise ValueError(f"{path}: {mask}: found {value!r}, expected [x, y] in um, up to {MAX_UM:g}")


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_UM
