"""Signal injection of a beam: what is injected, put in force whole, and taken away again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.beam.changes import put_in_force
from baldr_tango.beam.injection_settings import InjectionSettings
from baldr_tango.beam.shapes import find_shape
from baldr_tango.beam.state import HINTS
from baldr_tango.configuration.derived import LoopParameters
from baldr_tango.errors import BaldrError, RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.names import RtcState
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]

RIDGE: Final = 1e-8
"""Tikhonov term of the projection onto modes; the legacy value."""

FLOAT32_ROUNDING: Final = 1e-6
"""Relative margin below a limit that the loop checks in single precision."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A DM map and its part in each loop's modes, for a unit signal."""

    command: FloatArray
    """(G,) map of the chosen branch: as given (ALL), or its part in the LO or the HO modes."""
    modes_lo: FloatArray
    """(L,) least-squares amplitudes of the LO modes."""
    modes_ho: FloatArray
    shape_lo: FloatArray
    """(G,) map of these LO modes."""
    shape_ho: FloatArray

    def peak(self, set_point: bool, branch: str) -> float:
        """Largest value that a unit signal adds to the mirror [DM units]."""
        if not set_point:
            return float(np.abs(self.command).max(initial=0.0))
        parts = {"LO": (self.shape_lo,), "HO": (self.shape_ho,)}.get(branch, (self.shape_lo, self.shape_ho))
        return float(np.sum([np.abs(part).max(initial=0.0) for part in parts]))


def project(shape: ArrayLike, shapes_lo: FloatArray, shapes_ho: FloatArray, branch: str) -> Projection:
    """Split a DM map into the modes of the loops: ``v = (M'M + 1e-8 I)^-1 M' p``, ``p_branch = M v``.

    Parameters
    ----------
    shape : (G,) map p
    shapes_lo, shapes_ho : (G, L), (G, H) mode shapes M
    branch : "LO", "HO" or "ALL"
    """
    target = np.asarray(shape, dtype=np.float64)
    modes, parts = [], []
    for shapes in (shapes_lo, shapes_ho):
        normal = shapes.T @ shapes + RIDGE * np.eye(shapes.shape[1])
        modes.append(np.linalg.solve(normal, shapes.T @ target))
        parts.append(shapes @ modes[-1])
    command = {"LO": parts[0], "HO": parts[1]}.get(branch, target)
    return Projection(command, modes[0], modes[1], parts[0], parts[1])


class Injection:
    """The signal that a beam injects.

    A change is checked as a whole, projected onto the modes in force and put in force at one frame; the
    waveform starts again with each. A new configuration is such a change. A trip and the end of the
    real-time thread switch injection off.
    """

    def __init__(self, beam: Beam) -> None:
        self._beam = beam
        self._settings = InjectionSettings()
        self._lock = threading.Lock()

    @property
    def settings(self) -> InjectionSettings:
        """What is injected."""
        return self._settings

    @property
    def is_on(self) -> bool:
        """True while a signal is injected."""
        return self._settings.enabled

    @property
    def summary(self) -> str:
        """The injected signal for people, or empty."""
        s = self._settings
        if not s.enabled:
            return ""
        form = {
            "sine": f"sine {s.freq_hz:g} Hz",
            "square": f"square {s.freq_hz:g} Hz",
            "chirp": f"chirp {s.chirp_f0:g} to {s.chirp_f1:g} Hz in {s.chirp_T:g} s",
        }.get(s.waveform, s.waveform)
        return f"{form}, {s.amplitude:g} of {s.basis} {s.basis_index}, {s.branch} {s.apply_to}"

    def get(self, name: str) -> bool | int | float | str:
        """Return one field of the settings; `RequestError` for another name."""
        values = self._settings.as_dict()
        if name not in values:
            raise RequestError(f"injection: no field {name!r}; there are {', '.join(values)}")
        value: bool | int | float | str = values[name]
        return value

    def set(self, **values: Any) -> InjectionSettings:
        """Change some fields together; see `put`."""
        return self.put(self._settings.changed(values))

    def put(self, settings: InjectionSettings) -> InjectionSettings:
        """Put settings in force; the waveform starts again.

        Raises
        ------
        RequestError : there is no such mode, or the signal exceeds the limit of the command.
        StateError : the beam is not running, or the loop did not react. Nothing has changed.
        """
        with self._lock:
            loop = self._beam.loop
            if settings.enabled:
                if loop is None or self._beam.state().rtc not in (RtcState.RUNNING, RtcState.PAUSED):
                    state = self._beam.state().rtc
                    raise StateError(f"cannot inject while {state.name.lower()}; {HINTS[state]}")
                self._arm(loop, settings)
            else:
                self._shape(settings, loop)
                if loop is not None and self._settings.enabled:
                    self._disarm(loop)
            self._settings = settings
            return settings

    def rearm(self) -> None:
        """Project anew and start the waveform again, because the loop's modes have changed."""
        with self._lock:
            if self._beam.loop is not None:
                self._rearm(self._beam.loop)

    def follow(self, before: LoopParameters, now: LoopParameters) -> None:
        """Arm anew when mode shapes or frame rate are others than before."""
        names = ("mode_shapes_lo", "mode_shapes_ho", "frame_rate_hz")
        if not all(np.array_equal(getattr(before, name), getattr(now, name)) for name in names):
            self.rearm()

    def configure(self, loop: RealTimeLoop) -> None:
        """Arm a loop that is about to start as the one before; not after a trip."""
        with self._lock:
            old = self._beam.loop
            if old is not None and old.counters[d.TRIP] != 0:
                self._settings = replace(self._settings, enabled=False)
            self._rearm(loop)

    def switch_off(self) -> None:
        """End the injection; set points and mirror are as without it from the next frame on."""
        with self._lock:
            was_on, self._settings = self._settings.enabled, replace(self._settings, enabled=False)
            loop = self._beam.loop
            if was_on and loop is not None:
                self._disarm(loop)

    def peak(self, settings: InjectionSettings) -> float:
        """Largest value that the signal adds to the mirror [DM units]; 0 without a configuration."""
        loop = self._beam.loop
        return self._peak(settings, self._project(settings, loop)) if loop is not None else 0.0

    @staticmethod
    def _peak(settings: InjectionSettings, found: Projection) -> float:
        return abs(settings.amplitude) * found.peak(settings.apply_to == "setpoint", settings.branch)

    def _rearm(self, loop: RealTimeLoop) -> None:
        """Arm a loop with the settings in force; give up, and say so, when they do not suit it."""
        if not self._settings.enabled:
            return
        try:
            self._arm(loop, self._settings)
        except BaldrError as error:
            self._beam.log.warning("injection is switched off: %s", error)
            self._settings = replace(self._settings, enabled=False)
            self._disarm(loop)

    def _arm(self, loop: RealTimeLoop, settings: InjectionSettings) -> None:
        if loop.parameters.frame_rate_hz <= 0:
            raise StateError("cannot inject: the frame rate is not known")
        found = self._project(settings, loop)
        peak = self._peak(settings, found)
        limit = float(loop.slots.current("limits")[d.COMMAND_LIMIT])
        if not peak < limit * (1.0 - FLOAT32_ROUNDING):
            raise RequestError(
                f"amplitude {settings.amplitude:g} of {settings.basis} mode {settings.basis_index} would move"
                f" the mirror by {peak:.4g} DM units; it must stay below limits.command, {limit:g}"
            )
        put_in_force(
            loop,
            {**settings.switches(), d.INJECT_EPOCH: loop.slots.switch(d.INJECT_EPOCH) + 1},
            injection=settings.waveform_values(),
            inject_map=found.command,
            inject_lo=found.modes_lo,
            inject_ho=found.modes_ho,
            inject_shape_lo=found.shape_lo,
            inject_shape_ho=found.shape_ho,
        )

    @staticmethod
    def _disarm(loop: RealTimeLoop) -> None:
        put_in_force(loop, {d.INJECT: 0, d.INJECT_EPOCH: loop.slots.switch(d.INJECT_EPOCH) + 1})

    def _shape(self, settings: InjectionSettings, loop: RealTimeLoop | None) -> FloatArray:
        """Return the DM map of a unit signal (G,)."""
        parameters = loop.parameters if loop is not None else None
        return find_shape(settings.basis, settings.basis_index, self._beam.bases, parameters)[1]

    def _project(self, settings: InjectionSettings, loop: RealTimeLoop) -> Projection:
        p = loop.parameters
        shape = self._shape(settings, loop)
        points = p.mode_shapes_lo.shape[0]
        if shape.size != points:
            raise RequestError(
                f"basis {settings.basis}: maps of {shape.size} points, the mirror has {points}"
            )
        return project(shape, p.mode_shapes_lo, p.mode_shapes_ho, settings.branch)
