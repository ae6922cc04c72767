"""Habits of the real servers that clients must live with, each one switchable while the instrument runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from baldr_tango.configuration.settings import SimulatorSettings
from baldr_tango.errors import RequestError

RECREATIONS: Final = ("off", "new_file", "in_place", "camera_server")
"""What ``crop_mode`` does to the camera streams; ``camera_server``: first beam new, the others in place."""

MAX_DELAY_S: Final = 10.0


@dataclass
class Quirks:
    """The quirks in force; the control servers look at them with each request."""

    cli_delay_s: float = 0.0
    """Time that the camera's command line takes [s]; nothing else is answered meanwhile."""
    nul_endings: bool = False
    """Replies of all control servers end with a NUL."""
    silent_start: bool = False
    """No frame comes before the camera server is told ``split_mode 1``."""
    recreate: str = "off"
    """One of `RECREATIONS`."""
    fps_junk: bool = False
    """The camera answers the question for its frame rate with something that is no number."""

    @classmethod
    def of(cls, settings: SimulatorSettings) -> Quirks:
        """Return the quirks that the settings ask for."""
        return cls(
            cli_delay_s=settings.quirk_cli_delay_s,
            nul_endings=settings.quirk_nul_endings,
            silent_start=settings.quirk_silent_start,
            recreate=settings.quirk_recreate,
            fps_junk=settings.quirk_fps_junk,
        )

    def set_cli_delay(self, seconds: float) -> None:
        """Change the delay of the camera's command line [s]; `RequestError` unless 0 to 10 s."""
        if not 0.0 <= seconds <= MAX_DELAY_S:
            raise RequestError(f"CLI delay: found {seconds} s, allowed is 0 to {MAX_DELAY_S:g} s")
        self.cli_delay_s = float(seconds)

    def set_recreate(self, how: str) -> None:
        """Change what ``crop_mode`` does; `RequestError` for anything but `RECREATIONS`."""
        if how not in RECREATIONS:
            raise RequestError(f"re-creation: found {how!r}, allowed are {', '.join(RECREATIONS)}")
        self.recreate = how

    def in_place(self, beams: Sequence[int]) -> list[bool] | None:
        """Tell for each beam whether its stream is re-made in place; None: no stream is."""
        if self.recreate == "off":
            return None
        keeps: dict[str, Callable[[int], bool]] = {
            "new_file": lambda index: False,
            "in_place": lambda index: True,
            "camera_server": lambda index: index > 0,
        }
        return [keeps[self.recreate](index) for index in range(len(beams))]


def finite(what: str, value: float, least: float, most: float, unit: str) -> float:
    """Return `value` as a float, or raise `RequestError` naming what it is and what is allowed."""
    if not (math.isfinite(value) and least <= value <= most):
        raise RequestError(f"{what}: found {value} {unit}, allowed is {least:g} to {most:g} {unit}")
    return float(value)
