"""The configuration of a beam as it stands: what the file said, and what operators have changed since."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from baldr_tango.configuration.calibration_table import Calibration
from baldr_tango.configuration.derived import LoopParameters, derive
from baldr_tango.errors import StateError
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam


class LiveConfiguration:
    """Three levels of one configuration; what is changed on one goes on to those below, never up.

    * the calibration: keys of the file, `calibration`; `Beam.calibration` stays as it was loaded;
    * derived from it: `derived`;
    * in force: `parameters`, what the loop computes with.

    A change is checked on every level before anything is changed, comes into force at a frame boundary, and
    lasts until a configuration is loaded. Methods that change take `Beam.exclusive`.
    """

    def __init__(self, beam: Beam) -> None:
        self.beam = beam
        self._changes = _Changes(None)

    @property
    def loop(self) -> RealTimeLoop:
        """The loop; `StateError` without a configuration."""
        if self.beam.loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return self.beam.loop

    @property
    def calibration(self) -> Calibration:
        """The calibration, with what was changed; `StateError` without a configuration."""
        if self.beam.calibration is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return replace(self.beam.calibration, **self._own().keys)

    @property
    def parameters(self) -> LoopParameters:
        """What the loop computes with."""
        return self.loop.parameters

    @property
    def derived(self) -> LoopParameters:
        """What is derived from the calibration, with what was changed there."""
        return replace(self._derive(self.calibration), **self._own().derived)

    @property
    def notes(self) -> dict[str, Any]:
        """Values that the loop does not use, kept because clients may set and read them."""
        return self._own().notes

    def sizes(self) -> dict[str, int]:
        """Sizes by the letters of the documentation: P, A, L, H, G, M = L + H."""
        p = self.parameters
        (signals, pixels), low = p.pixels_to_actuators.shape, p.reconstructor_lo.shape[0]
        high, points = p.reconstructor_ho.shape[0], p.mode_shapes_lo.shape[0]
        return {"P": pixels, "A": signals, "L": low, "H": high, "G": points, "M": low + high}

    def change_calibration(self, *members: str, **keys: Any) -> None:
        """Change keys of the calibration, and with them the members of `LoopParameters` that are derived.

        Raises
        ------
        ConfigError, RequestError : the calibration would not work; nothing has changed.
        StateError : the loop did not react in time.
        """
        with self.beam.exclusive:
            calibration = replace(self.calibration, **keys)
            derived = self._derive(calibration)
            self.change_in_force(**{name: getattr(derived, name) for name in members})
            self.remember(*members, **keys)

    def remember(self, *members: str, **keys: Any) -> None:
        """Note other values of keys of the calibration, with which the loop computes already.

        members : those of `LoopParameters` that follow from the keys again, whatever was set there
        """
        own = self._own()
        own.keys.update(keys)
        for name in members:
            own.derived.pop(name, None)

    def change_derived(self, **members: Any) -> None:
        """Change derived members of `LoopParameters`, and with them those in force."""
        with self.beam.exclusive:
            self.change_in_force(**members)
            self._own().derived.update(members)

    def change_in_force(self, **members: Any) -> None:
        """Change what the loop computes with; nothing above follows."""
        if members:
            with self.beam.exclusive:
                self.beam.update(replace(self.parameters, **members))

    def change_camera(self, frame_rate_hz: float | None = None, gain: float | None = None) -> None:
        """Note another frame rate or gain, and what is derived from them; the camera is not asked."""
        with self.beam.exclusive:
            old = self.parameters
            rate = old.frame_rate_hz if frame_rate_hz is None else frame_rate_hz
            new_gain = old.gain if gain is None else gain
            derived = self._derive(self.calibration, rate, new_gain)
            members: dict[str, Any] = {"frame_rate_hz": rate, "gain": new_gain}
            # A dark that was measured or set stays.
            if np.array_equal(old.dark, self.derived.dark):
                members["dark"] = derived.dark
            self.change_in_force(**members)

    def _derive(
        self, calibration: Calibration, frame_rate_hz: float | None = None, gain: float | None = None
    ) -> LoopParameters:
        p = self.parameters
        return derive(
            calibration,
            self.beam.settings,
            frame_rate_hz=frame_rate_hz or p.frame_rate_hz,
            gain=gain or p.gain,
        )

    def _own(self) -> _Changes:
        """What was changed; nothing again after a configuration was loaded."""
        loop, changes = self.loop, self._changes
        if changes.loop is not loop:
            self._changes = changes = _Changes(loop)
        return changes


class _Changes:
    """What was changed above the level in force, since `loop` was loaded."""

    def __init__(self, loop: RealTimeLoop | None) -> None:
        self.loop = loop
        self.keys: dict[str, Any] = {}
        self.derived: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}
