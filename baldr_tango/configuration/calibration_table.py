"""Table ``[beamN.<mask>.ctrl_model]`` of a calibration file: its keys, declared once, and their checks.

Names are the legacy ones, letter for letter. Sizes in shapes: P pixels of a frame, A signals
(rows of I2A), L low-order modes (LO), H high-order modes (rows of I2M_HO), G points of the DM map
(sza), M modes in all (L + H).
"""

# ruff: noqa: RUF009 - `entry` returns a dataclass field, which is what a default may be

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baldr_tango.configuration.schema import KeyRow, toml_text

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

CONTROLLER_TYPES = ("PID", "LEAKY", "KALMAN")


@dataclass(frozen=True)
class Entry:
    """What one key of the table holds.

    kind : "text", "integer", "number", "matrix" (a vector too), "mask" (0 or 1), "pixels" (flat
        indices), "camera" (table of strings).
    shape : letters of the module's docstring; "" for a list of any length.
    """

    doc: str
    kind: str
    unit: str = ""
    shape: tuple[str, ...] = ()
    required: bool = True
    at_least: int = 0
    choices: tuple[str, ...] = ()


def entry(doc: str, kind: str, **rest: Any) -> Any:
    """Declare a required key of the calibration table."""
    return dataclasses.field(metadata={"entry": Entry(doc, kind, **rest)})


def option(default: Any, doc: str, kind: str, **rest: Any) -> Any:
    """Declare a key that the calibration table may leave out."""
    declaration = Entry(doc, kind, required=False, **rest)
    return dataclasses.field(default=default, metadata={"entry": declaration})


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """One table ``[beamN.<mask>.ctrl_model]``, checked; arrays are float64, pixel lists int64."""

    file: Path = Path()
    beam: int = 1
    mask: str = ""
    sha256: str = ""
    """Of the whole file."""
    warnings: tuple[str, ...] = ()
    frame_shape: tuple[int, int]
    """Rows and columns of a frame, from crop_pixels or else square."""

    DM_flat: str = entry(
        "Flat on DM channel 0 during the calibration, e.g. baldr or factory.", "text", at_least=1
    )
    signal_space: str = entry("Space of the signal: dm (signals at actuators) or pix.", "text")
    LO: int = entry("Number of low-order modes.", "integer", at_least=1)
    controller_type: str = entry("Controller of both loops.", "text", choices=CONTROLLER_TYPES)
    inverse_method_LO: str = entry("How I2M_LO was inverted, e.g. pinv.", "text", at_least=1)
    inverse_method_HO: str = entry("How I2M_HO was inverted, e.g. zonal.", "text", at_least=1)
    bias: FloatArray = entry("Bias of the detector.", "matrix", unit="ADU", shape=("P",))
    dark: FloatArray = entry(
        "Dark frame; ADU/s/gain in old files, whose I0 is not normalised.", "matrix", unit="ADU", shape=("P",)
    )
    I0: FloatArray = entry("Reference intensity with the phase mask, over its sum.", "matrix", shape=("P",))
    N0: FloatArray = entry("Clear pupil, without the phase mask.", "matrix", unit="ADU", shape=("P",))
    norm_pupil: FloatArray = entry(
        "Clear pupil cleaned for use as divisor, over the sum of N0.", "matrix", shape=("P",)
    )
    I2A: FloatArray = entry("Interpolation from pixels to actuators.", "matrix", shape=("A", "P"))
    I2M_LO: FloatArray = entry("Reconstructor of the low-order modes.", "matrix", shape=("L", "A"))
    I2M_HO: FloatArray = entry("Reconstructor of the high-order modes.", "matrix", shape=("H", "A"))
    M2C: FloatArray = entry("All modes on the DM map; not used by the loop.", "matrix", shape=("G", "M"))
    M2C_LO: FloatArray = entry("Low-order modes on the DM map.", "matrix", shape=("G", "L"))
    M2C_HO: FloatArray = entry("High-order modes on the DM map.", "matrix", shape=("G", "H"))
    I2rms_sec: FloatArray = entry(
        "diag(slope, intercept) of the line residual (DM rms) over secondary-pixel intensity.",
        "matrix",
        shape=("2", "2"),
    )
    I2rms_ext: FloatArray = entry("The same for exterior pixels.", "matrix", shape=("2", "2"))
    crop_pixels: IndexArray = entry(
        "r1, r2, c1, c2 of the sub-frame in the full frame.", "integers", unit="pixels", shape=("4",)
    )
    pupil_pixels: IndexArray = entry("Pixels of the pupil.", "pixels")
    interior_pixels: IndexArray = entry("Pixels of the pupil without its border.", "pixels")
    secondary_pixels: IndexArray = entry(
        "Pixels of the 3x3 box at the secondary obstruction; the fifth is its centre.", "pixels", at_least=5
    )
    exterior_pixels: IndexArray = entry(
        "Ring outside the pupil where the dot of the mask diffracts light.", "pixels"
    )
    bad_pixels: IndexArray = entry("Bad pixels.", "pixels")
    bad_pixel_mask: FloatArray = entry("1 where a pixel is good.", "mask", shape=("P",))
    pupil: FloatArray = entry("1 in the pupil.", "mask", shape=("P",))
    secondary: FloatArray = entry("1 in the secondary box.", "mask", shape=("P",))
    exterior: FloatArray = entry("1 in the exterior ring.", "mask", shape=("P",))
    inner_pupil_filt: FloatArray = entry("1 in the pupil without border and secondary.", "mask", shape=("P",))
    camera_config: Mapping[str, str] = entry(
        "Camera settings at the calibration, as strings; fps and gain are required.", "camera"
    )

    sza: int = entry("Points of the DM map.", "integer", at_least=1)
    szm: int = option(0, "Number of modes, L + H; 0: not said.", "integer")
    szp: int = option(0, "Columns of I2M_HO; 0: not said.", "integer")
    auto_close: int = option(0, "Intention only.", "integer")
    auto_open: int = option(1, "Intention only.", "integer")
    auto_tune: int = option(0, "Intention only.", "integer")
    intrn_flx_I0: float = option(1.0, "Flux of the internal source with the mask.", "number", unit="ADU")
    close_on_strehl_limit: float = option(0.0, "Shown in the status.", "number")
    open_on_strehl_limit: float = option(0.0, "Shown in the status.", "number")
    open_on_flux_limit: float = option(0.0, "Shown in the status.", "number")
    open_on_dm_limit: float = option(0.0, "Shown in the status.", "number")
    LO_offload_limit: float = option(0.0, "Shown in the status.", "number")
    IM: FloatArray | None = option(
        None, "Interaction matrix: L modes, then every actuator.", "matrix", shape=("L+A", "A")
    )
    poke_amp: float = option(0.0, "Amplitude of the pokes of IM.", "number", unit="DM units")
    build_method: str = option("", "How IM was measured.", "text")

    @property
    def frame_rate_hz(self) -> float:
        """Frame rate at the calibration."""
        return float(self.camera_config["fps"])

    @property
    def gain(self) -> float:
        """Camera gain at the calibration."""
        return float(self.camera_config["gain"])

    @property
    def table(self) -> str:
        """Name of the table inside the file."""
        return f"beam{self.beam}.{self.mask}.ctrl_model"

    @property
    def secondary_pixel(self) -> int:
        """Flat index of the centre of the secondary obstruction."""
        return int(self.secondary_pixels[4])


def entries() -> dict[str, Entry]:
    """Return the declared keys of the table, in order."""
    return {
        field.name: field.metadata["entry"]
        for field in dataclasses.fields(Calibration)
        if "entry" in field.metadata
    }


_KINDS = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "matrix": "numbers",
    "mask": "0 or 1",
    "integers": "integers",
    "pixels": "flat pixel indices",
    "camera": "table of strings",
}


def describe_calibration_keys() -> list[KeyRow]:
    """Return one row per key of the calibration table, for the manual."""
    rows = []
    for field in dataclasses.fields(Calibration):
        if "entry" not in field.metadata:
            continue
        found: Entry = field.metadata["entry"]
        shape = "".join(f"[{size}]" for size in found.shape)
        allowed = " or ".join(map(repr, found.choices))
        default = (
            "required" if found.required else "none" if field.default is None else toml_text(field.default)
        )
        kind = f"{_KINDS[found.kind]} {shape}".strip()
        rows.append(
            KeyRow("beamN.<mask>.ctrl_model", field.name, kind, default, found.unit, allowed, found.doc)
        )
    return rows


def is_positive_number(text: object) -> bool:
    """Say whether `text`, a string or a number, stands for a positive finite number."""
    try:
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(text, bool) and math.isfinite(value) and value > 0
