"""The phase masks of a beam: ten dots of two depths and ten diameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class MaskDot:
    """One dot, as it was made."""

    depth_um: float
    diameter_um: float


DOTS: Final = {
    "J1": MaskDot(0.474, 54.0),
    "J2": MaskDot(0.474, 44.0),
    "J3": MaskDot(0.474, 36.0),
    "J4": MaskDot(0.474, 32.0),
    "J5": MaskDot(0.474, 65.0),
    "H1": MaskDot(0.654, 68.0),
    "H2": MaskDot(0.654, 53.0),
    "H3": MaskDot(0.654, 44.0),
    "H4": MaskDot(0.654, 37.0),
    "H5": MaskDot(0.654, 31.0),
}
"""The dots of the instrument's masks [um]."""

MASKS: Final = tuple(DOTS)
"""Phase masks of each beam, in two rows on the stage."""

REFERENCE_MASK: Final = "H3"
"""Mask whose optics the runtime file gives; those of the others follow from their dots."""


@dataclass(frozen=True)
class MaskOptics:
    """What a mask does to the light."""

    diameter_lambda_over_d: float
    """Diameter of the dot [lambda/D]."""
    depth_rad: float
    """Phase shift of the dot [rad]."""


def mask_optics(mask: str, diameter_lambda_over_d: float, depth_rad: float) -> MaskOptics:
    """Return the optics of a mask from those of `REFERENCE_MASK`.

    The focal ratio and the wavelength are the same for all masks of a beam, so the diameter in lambda/D is in
    proportion to that in um. They are of one material, and the phase shift 2 pi (n - 1) depth / lambda is in
    proportion to the depth.
    """
    dot, reference = DOTS[mask], DOTS[REFERENCE_MASK]
    return MaskOptics(
        diameter_lambda_over_d * dot.diameter_um / reference.diameter_um,
        depth_rad * dot.depth_um / reference.depth_um,
    )
