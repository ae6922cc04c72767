"""The probing sequences that the instrument's scripts know by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from baldr_tango.errors import RequestError
from baldr_tango.names import N_ACTUATORS

Aberration = tuple[int, float]
"""Index of a mode and its amplitude [DM units]."""

DEAD_TIME_MS: Final = 5000
"""What the methods have said ever since frames were found by waiting; ours are found by their numbers."""


@dataclass(frozen=True)
class ProbeMethod:
    """One named sequence."""

    aberrations: tuple[Aberration, ...]
    state: str
    field: str
    samples: int
    basis: str = "zonal"

    def arguments(self) -> list[Any]:
        """Return it as the arguments of ``probe_interaction_data``."""
        pairs = [list(pair) for pair in self.aberrations]
        return [pairs, self.basis, self.state, self.field, self.samples, DEAD_TIME_MS]


def _both_signs(modes: Any, amplitude: float) -> tuple[Aberration, ...]:
    return tuple((mode, sign * amplitude) for mode in modes for sign in (1.0, -1.0))


_REGISTRATION: Final = (50, 53, 86, 89)

METHODS: Final = {
    "method_1": ProbeMethod(((65, 0.1), (2, -0.1)), "OL", "all", 3),
    "I2A": ProbeMethod(_both_signs(_REGISTRATION, 0.04), "OL", "img", 4),
    "TT_OL_img": ProbeMethod(_both_signs((0, 1), 0.03), "OL", "img", 10),
    "I2A_CL": ProbeMethod(_both_signs(_REGISTRATION, 0.04), "CL", "img", 10),
    "IM_OL": ProbeMethod(_both_signs(range(N_ACTUATORS), 0.04), "OL", "img", 3),
    "IM_CL": ProbeMethod(_both_signs(range(N_ACTUATORS), 0.04), "CL", "img", 8),
}
"""Sequences by name, as the legacy has them."""


def method(name: str) -> ProbeMethod:
    """Return a sequence by its name; `RequestError` when there is none of that name."""
    try:
        return METHODS[name]
    except KeyError:
        raise RequestError(f"Unknown probe method: {name}", known=list(METHODS)) from None
