"""What an operator changes while the loop runs, seen by the loop whole, at a frame boundary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from baldr_tango.errors import RequestError, StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.kernels.linear import Matrix

_POLL_S = 0.0005


class ParameterSlots:
    """Two copies of the parameters; the loop works with one while the other is written.

    A version number, not an index, is what is flipped: the loop acknowledges the version that it works
    with, and a writer touches the spare copy only after the present version has been acknowledged.

    Parameters
    ----------
    parameters : arrays whose first axis is the slot
    control : the loop's control words
    is_running : tells whether the compiled loop may be looking at the parameters
    """

    def __init__(
        self, parameters: d.Parameters, control: NDArray[np.int64], is_running: Callable[[], bool]
    ) -> None:
        self._parameters = parameters
        self._control = control
        self._is_running = is_running
        self._writers = threading.Lock()

    @property
    def version(self) -> int:
        """Version in force."""
        return int(load_acquire(self._control, d.VERSION))

    def current(self, name: str) -> NDArray[Any]:
        """Copy one parameter array of the version in force."""
        array: NDArray[Any] = getattr(self._parameters, name)
        return array[self.version & 1].copy()

    def switch(self, index: int) -> int:
        """Return one switch of the version in force."""
        return int(self._parameters.switches[self.version & 1, index])

    def change(
        self,
        switches: Mapping[int, int] | None = None,
        limits: Mapping[int, float] | None = None,
        timeout_s: float = 0.5,
        **values: ArrayLike,
    ) -> int:
        """Put values in force together, at the loop's next frame boundary.

        Parameters
        ----------
        switches, limits : new values by column index
        values : new arrays by the name of a `Parameters` member, of exactly its shape
        timeout_s : longest wait for the loop to take over the version before

        Returns
        -------
        version number; `wait_adopted` tells when the loop works with it.

        Raises
        ------
        RequestError : a name, a shape or a value is wrong; nothing has changed.
        StateError : the loop did not take over the version before in time; nothing has changed.
        """
        checked = {name: self._checked(name, value) for name, value in values.items()}
        with self._writers:
            version = self.version
            if not self.wait_adopted(version, timeout_s):
                raise StateError(f"the real-time loop did not react within {timeout_s:g} s")
            spare, present = (version + 1) & 1, version & 1
            for member in self._parameters:
                for array in _slotted(member):
                    array[spare] = array[present]
            for name, array in checked.items():
                getattr(self._parameters, name)[spare] = array
            for column, number in (switches or {}).items():
                self._parameters.switches[spare, column] = number
            for column, limit in (limits or {}).items():
                self._parameters.limits[spare, column] = limit
            store_release(self._control, d.VERSION, version + 1)
            return version + 1

    def wait_adopted(self, version: int, timeout_s: float) -> bool:
        """Wait until the loop works with `version` or a later one; True at once while it is not running."""
        deadline = time.monotonic() + timeout_s
        while self._is_running() and load_acquire(self._control, d.ADOPTED) < version:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _checked(self, name: str, value: ArrayLike) -> NDArray[Any]:
        target = getattr(self._parameters, name, None)
        if not isinstance(target, np.ndarray) or target.ndim < 2:
            raise RequestError(f"{name!r} is not a parameter that can be changed while the loop runs")
        array = np.asarray(value, dtype=target.dtype)
        if array.shape != target.shape[1:]:
            raise RequestError(f"{name}: expected shape {target.shape[1:]}, found {array.shape}")
        if not np.all(np.isfinite(array)):
            raise RequestError(f"{name}: every value must be finite")
        return array


def _slotted(member: Any) -> tuple[NDArray[Any], ...]:
    """Arrays of a `Parameters` member that exist once per slot."""
    if isinstance(member, Matrix):
        return (member.weights, member.taps)
    if isinstance(member, d.Kalman):
        return tuple(member)
    return (member,) if member.ndim >= 2 else ()
