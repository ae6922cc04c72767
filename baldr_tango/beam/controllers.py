"""The controllers of a beam: their parameters by name, read and set while the loop runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from baldr_tango.beam.fields import UnfitError, numbers
from baldr_tango.beam.identification import Identified, identify
from baldr_tango.configuration.calibration_table import CONTROLLER_TYPES
from baldr_tango.configuration.derived import ControllerSettings
from baldr_tango.configuration.kalman import KalmanModel, default_model, kalman_model
from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.rtc import RealTimeLoop

if TYPE_CHECKING:
    from baldr_tango.beam.beam import Beam

FloatArray = NDArray[np.float64]

_COPIES: Final = 10
_MODEL: Final = {
    "A": "transition",
    "B": "control",
    "H": "measurement",
    "P": "covariance",
    "Q": "process_noise",
    "R": "measurement_noise",
    "K": "gain",
}


class Controller:
    """The controller of the low-order or the high-order loop, whatever its type.

    Methods that change hold `Beam.exclusive`; a change is whole, at a frame boundary, and integrals go on.
    """

    def __init__(self, beam: Beam, which: Literal["lo", "ho"]) -> None:
        self.beam = beam
        self.which = which

    @property
    def loop(self) -> RealTimeLoop:
        """The loop; `StateError` without a configuration."""
        if self.beam.loop is None:
            raise StateError("no configuration is loaded; load one first: readBDRConfig")
        return self.beam.loop

    @property
    def kind(self) -> str:
        """PID, LEAKY or KALMAN."""
        return str(getattr(self.loop.parameters, f"controller_type_{self.which}"))

    @property
    def settings(self) -> ControllerSettings:
        """Gains and bounds in force."""
        settings: ControllerSettings = getattr(self.loop.parameters, f"control_{self.which}")
        return settings

    @property
    def model(self) -> KalmanModel:
        """Model of the Kalman regulator in force."""
        model: KalmanModel | None = getattr(self.loop.parameters, f"kalman_{self.which}")
        return model or default_model(self.settings.ki, self.settings.leak)

    @property
    def size(self) -> int:
        """Number of modes."""
        return int(self.settings.ki.size)

    @property
    def is_closed(self) -> bool:
        """True when the loop is closed, or told to close."""
        counter, switch = (d.LO_CLOSED, d.CLOSE_LO) if self.which == "lo" else (d.HO_CLOSED, d.CLOSE_HO)
        return bool(self.loop.counters[counter] or self.loop.slots.switch(switch))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What can be read, and some of it set, for the present type."""
        return ENTRIES[self.kind]

    def find(self, name: str) -> Entry | None:
        """Entry of that name or alias, in any case."""
        key = name.lower()
        return next((e for e in self.entries if key in (e.name.lower(), *e.aliases)), None)

    def set_type(self, kind: str) -> None:
        """Put a controller of another type in the place of this one, in its zero state.

        Gains are shared where they mean the same: ``ki`` of PID is ``K`` of LEAKY.

        Raises
        ------
        RequestError : there is no such type.
        StateError : the loop is closed.
        """
        if kind not in CONTROLLER_TYPES:
            raise RequestError(f"ctrl_type: expected {', '.join(CONTROLLER_TYPES)}, found {kind!r}")
        with self.beam.exclusive:
            self.require_open("ctrl_type")
            self.change(**{f"controller_type_{self.which}": kind})
            for name in ("integral", "previous", "predicted"):
                self.state(name)[:] = 0.0

    def require_open(self, what: str) -> None:
        """Raise `StateError` while the loop is closed."""
        if self.is_closed:
            loop = self.which.upper()
            raise StateError(f"{what} can be set only while the {loop} loop is open: open_baldr_{loop}")

    def change(self, **members: Any) -> None:
        """Put members of `LoopParameters` in force."""
        self.beam.update(replace(self.loop.parameters, **members))

    def change_settings(self, **vectors: FloatArray) -> None:
        """Put gains or bounds in force; `UnfitError` when a lower bound is above its upper one."""
        settings = replace(self.settings, **vectors)
        if (crossed := np.flatnonzero(settings.lower > settings.upper)).size:
            raise UnfitError(f"the lower limit of mode {crossed[0]} is above its upper limit")
        self.change(**{f"control_{self.which}": settings})

    def change_set_point(self, values: FloatArray) -> None:
        """Put set points in force [DM units]."""
        self.beam.update(self.loop.parameters, **{f"set_point_{self.which}": values})

    def change_model(self, **matrices: FloatArray) -> None:
        """Put another Kalman model in force; `RequestError` when it has no steady gain."""
        m = self.model
        given = {name: matrices.get(name, getattr(m, name)) for name in _SETTABLE}
        self.change(**{f"kalman_{self.which}": kalman_model(**given)})

    def identify(self, frames: int | None, most_gain: float) -> Identified:
        """Put a Kalman model in force that was identified from the newest frames; see `identify`."""
        with self.beam.exclusive:
            found = identify(self.loop, self.which, frames, most_gain)
            self.change(**{f"kalman_{self.which}": found.model})
        return found

    def state(self, name: str) -> NDArray[Any]:
        """The loop's own array of a state vector."""
        array: NDArray[Any] = getattr(self.loop.arrays.state, f"{name}_{self.which}")
        return array

    def read_state(self, name: str) -> FloatArray:
        """Copy a state vector while the loop may be writing it: copies are compared until two agree."""
        before = self.state(name).copy()
        for _ in range(_COPIES):
            after = self.state(name).copy()
            if np.array_equal(before, after, equal_nan=True):
                break
            before = after
        return after.astype(np.float64)

    def put_state(self, name: str, values: FloatArray) -> None:
        """Let the controller begin with a state when its loop is closed; `StateError` while it is."""
        with self.beam.exclusive:
            self.require_open("the state of a controller")
            self.state(name)[:] = values

    def measured(self) -> FloatArray:
        """Newest measurement: mode errors less set points; zeros while the loop is open."""
        if not self.is_closed:
            return np.zeros(self.size)
        errors = self.loop.arrays.ring.newest(f"e_{self.which.upper()}").astype(np.float64)
        return np.asarray(errors - self.loop.slots.current(f"set_point_{self.which}"))


@dataclass(frozen=True)
class Entry:
    """One parameter or state vector of a type of controller."""

    name: str
    get: Callable[[Controller], FloatArray]
    set: Callable[[Controller, FloatArray], None] | None
    """Puts checked values in force; None: computed, read-only."""
    doc: str
    unit: str = ""
    aliases: tuple[str, ...] = ()
    """Lower case."""
    is_matrix: bool = False
    minimum: float | None = None
    maximum: float | None = None

    @property
    def type_name(self) -> str:
        """Type as the legacy server names it."""
        return "matrix<double>" if self.is_matrix else "vector<double>"

    def convert(self, value: Any, size: int) -> FloatArray:
        """Check values for `size` modes: a vector, or a square matrix or its diagonal.

        Raises `UnfitError`; nothing is padded, cut off or replaced.
        """
        vector = numbers(value, 1)
        matrix = None if vector is not None else numbers(value, 2)
        if vector is None and matrix is None:
            raise UnfitError("value is neither vector nor matrix")
        if matrix is not None and not self.is_matrix:
            raise UnfitError(f"does not accept matrices for key: {self.name}")
        if vector is not None and vector.size != size:
            raise UnfitError(f"{self.name}: expected {size} values, found {vector.size}")
        if matrix is not None and matrix.shape != (size, size):
            raise UnfitError(f"{self.name}: expected {size} rows of {size}, found shape {matrix.shape}")
        array = matrix if matrix is not None else vector
        if array is None or not np.isfinite(array).all():
            raise UnfitError(f"{self.name}: every value must be finite")
        low, high = array.min(initial=np.inf), array.max(initial=-np.inf)
        if (self.minimum is not None and low < self.minimum) or (
            self.maximum is not None and high > self.maximum
        ):
            raise UnfitError(
                f"{self.name}: expected {self.minimum:g} to {self.maximum:g}, found {low:g} to {high:g}"
            )
        return np.diag(array) if self.is_matrix and array.ndim == 1 else array


def _setting(name: str, member: str, doc: str, unit: str = "", **more: Any) -> Entry:
    return Entry(
        name,
        lambda c: getattr(c.settings, member),
        lambda c, values: c.change_settings(**{member: values}),
        doc,
        unit,
        **more,
    )


def _state(name: str, member: str, doc: str, *, can_be_set: bool, aliases: tuple[str, ...] = ()) -> Entry:
    return Entry(
        name,
        lambda c: c.read_state(member),
        (lambda c, values: c.put_state(member, values)) if can_be_set else None,
        doc,
        "DM units",
        aliases,
    )


def _matrix(name: str, doc: str, unit: str = "") -> Entry:
    member = _MODEL[name]
    return Entry(
        name,
        lambda c: getattr(c.model, member),
        (lambda c, values: c.change_model(**{member: values})) if member in _SETTABLE else None,
        doc,
        unit,
        is_matrix=True,
    )


_SETTABLE: Final = ("transition", "control", "measurement", "process_noise", "measurement_noise")
_SET_POINT: Final = Entry(
    "set_point",
    lambda c: c.loop.slots.current(f"set_point_{c.which}"),
    lambda c, values: c.change_set_point(values),
    "error that the loop regulates to",
    "DM units",
    ("setpoint",),
)
_BOUNDS: Final = (
    _setting("lower_limits", "lower", "lower bound of output and integral", "DM units"),
    _setting("upper_limits", "upper", "upper bound of output and integral", "DM units"),
)
_OPEN: Final = "; set with the loop open, for the next closing"

ENTRIES: Final[dict[str, tuple[Entry, ...]]] = {
    "PID": (
        _setting("kp", "kp", "proportional gain"),
        _setting("ki", "ki", "integral gain per frame"),
        _setting("kd", "kd", "derivative gain"),
        *_BOUNDS,
        _SET_POINT,
        _state("output", "last", "output of the newest frame", can_be_set=False),
        _state("integrals", "integral", f"integrals{_OPEN}", can_be_set=True),
        _state("prev_errors", "previous", f"errors of the newest frame{_OPEN}", can_be_set=True),
    ),
    "LEAKY": (
        _setting("K", "ki", "gain per frame", aliases=("ki",)),
        _setting(
            "alpha",
            "leak",
            "fraction kept per frame",
            aliases=("rho", "leak", "lambda"),
            minimum=0.0,
            maximum=1.0,
        ),
        *_BOUNDS,
        _SET_POINT,
        _state("integral", "integral", f"integrals{_OPEN}", can_be_set=True),
        _state("output", "last", "output of the newest frame", can_be_set=False),
        _state(
            "prev_error",
            "previous",
            "errors of the newest frame",
            can_be_set=False,
            aliases=("prev", "preverror"),
        ),
    ),
    "KALMAN": (
        _state("x", "predicted", f"disturbance expected at the next frame{_OPEN}", can_be_set=True),
        _state("u", "last", "output of the newest frame", can_be_set=False),
        Entry("z", lambda c: c.measured(), None, "measurement of the newest frame", "DM units"),
        *_BOUNDS,
        _SET_POINT,
        _matrix("A", "disturbance from frame to frame"),
        _matrix("B", "what the sensor sees of a command"),
        _matrix("H", "what the sensor sees of the disturbance"),
        _matrix("P", "covariance of the prediction error, computed", "(DM units)^2"),
        _matrix("Q", "covariance of the disturbance's innovation", "(DM units)^2"),
        _matrix("R", "covariance of the measurement noise", "(DM units)^2"),
        _matrix("K", "steady-state gain, computed"),
    ),
}
"""Parameters by type of controller; names are those of the legacy server."""
