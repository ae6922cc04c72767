"""What an operator changes while the loop runs, seen by the loop whole, at a frame boundary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from baldr_tango.errors import StateError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.atomics import load_acquire, store_release
from baldr_tango.rtc.packing import check_member, copied, fit, pack_member, slot_arrays, slotted

_POLL_S = 0.0005

_T = TypeVar("_T")

ExchangeParameters: TypeAlias = Callable[[d.Parameters, Callable[[], None], float], None]
"""Has the loop go on with other arrays: new parameters, what to call meanwhile, longest wait [s]."""


Follower: TypeAlias = Callable[[int, dict[str, NDArray[Any]]], None]
"""Is told a version and its arrays by the names of `packing.slot_arrays`; quick, and never fails."""


class ParameterSlots:
    """Two copies of the parameters; the loop works with one while the other is written.

    A version number, not an index, is what is flipped: the loop acknowledges the version that it works
    with, and a writer touches the spare copy only after the present version has been acknowledged.

    Parameters
    ----------
    parameters : arrays whose first axis is the slot
    control : the loop's control words
    is_running : tells whether the compiled loop may be looking at the parameters
    exchange : has the loop go on with other arrays; calls its second argument while the loop is outside;
        by default nobody else holds the arrays
    """

    def __init__(
        self,
        parameters: d.Parameters,
        control: NDArray[np.int64],
        is_running: Callable[[], bool],
        exchange: ExchangeParameters | None = None,
    ) -> None:
        self._parameters = parameters
        self._control = control
        self._is_running = is_running
        self._exchange = exchange or (lambda _parameters, on_exchange, _timeout_s: on_exchange())
        self._writers = threading.Lock()
        self._followers: list[Follower] = []

    @property
    def version(self) -> int:
        """Version in force."""
        return int(load_acquire(self._control, d.VERSION))

    def current(self, name: str) -> NDArray[Any]:
        """Copy one parameter array of the version in force."""
        return self.snapshot(name)[name]

    def snapshot(self, *names: str) -> dict[str, NDArray[Any]]:
        """Copy parameter arrays of one and the same version in force."""
        return self._steady(
            lambda parameters, slot: {name: getattr(parameters, name)[slot].copy() for name in names}
        )

    def switch(self, index: int) -> int:
        """Return one switch of the version in force."""
        return self._steady(lambda parameters, slot: int(parameters.switches[slot, index]))

    def _steady(self, read: Callable[[d.Parameters, int], _T]) -> _T:
        """Return what `read` finds in the slot of the version in force, all of it of that version."""
        while True:
            version, parameters = self.version, self._parameters
            found = read(parameters, version & 1)
            # A writer touches this slot only after it has put the next version in force.
            if self.version == version:
                return found

    @contextmanager
    def held(self) -> Iterator[int]:
        """Keep the version in force as it is; gives its number. For moments only."""
        with self._writers:
            yield self.version

    def follow(self, follower: Follower) -> int:
        """Tell all parameters in force, and from now on those that change, just before they come into force.

        Returns
        -------
        version of which all were told.
        """
        with self._writers:
            follower(self.version, self._arrays(self._parameters, self.version, self._parameters._fields))
            self._followers.append(follower)
            return self.version

    def unfollow(self, follower: Follower) -> None:
        """Tell nothing any more; harmless when nothing was told."""
        with self._writers:
            self._followers = [other for other in self._followers if other != follower]

    @staticmethod
    def _arrays(parameters: d.Parameters, version: int, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for name in names:
            arrays |= slot_arrays(name, getattr(parameters, name), version & 1)
        return arrays

    def change(
        self,
        switches: Mapping[int, int] | None = None,
        limits: Mapping[int, float] | None = None,
        timeout_s: float = 0.5,
        **values: Any,
    ) -> int:
        """Put values in force together, at the loop's next frame boundary.

        A matrix that the present layout cannot hold, or another list of pixels, makes the loop go on with
        other arrays: it is left and entered again between two frames.

        Parameters
        ----------
        switches, limits : new values by column index
        values : new arrays by the name of a `Parameters` member, of exactly its shape; matrices dense
            (rows, columns), Kalman matrices as a `Kalman` of (M, M) arrays
        timeout_s : longest wait for the loop to take over the version before

        Returns
        -------
        version number; `wait_adopted` tells when the loop works with it.

        Raises
        ------
        RequestError : a name, a shape or a value is wrong; nothing has changed.
        StateError : the loop did not react in time; nothing has changed.
        """
        checked = {name: check_member(self._parameters, name, value) for name, value in values.items()}
        with self._writers:
            version = self.version
            if not self.wait_adopted(version, timeout_s):
                raise StateError(f"the real-time loop did not react within {timeout_s:g} s")
            fitted = {name: fit(getattr(self._parameters, name), value) for name, value in checked.items()}
            others = {name: checked[name] for name, value in fitted.items() if value is None}
            target = self._with_others(others) if others else self._parameters
            spare, present = (version + 1) & 1, version & 1
            for member in target:
                for array in slotted(member):
                    array[spare] = array[present]
            for name, arrays in fitted.items():
                if arrays is not None:
                    for array, value in zip(slotted(getattr(target, name)), arrays, strict=True):
                        array[spare] = value
            for column, number in (switches or {}).items():
                target.switches[spare, column] = number
            for column, limit in (limits or {}).items():
                target.limits[spare, column] = limit
            names = {*checked, *(["switches"] if switches else []), *(["limits"] if limits else [])}
            if others:
                self._exchange(target, lambda: self._put_in_force(target, version + 1, names), timeout_s)
            else:
                self._put_in_force(target, version + 1, names)
            return version + 1

    def _with_others(self, others: Mapping[str, Any]) -> d.Parameters:
        """Copy the parameters, with some members packed anew: the same values in both of their slots."""
        copies = {
            name: pack_member(name, others[name]) if name in others else copied(member)
            for name, member in self._parameters._asdict().items()
        }
        return d.Parameters(**copies)

    def _put_in_force(self, parameters: d.Parameters, version: int, changed: Iterable[str]) -> None:
        self._parameters = parameters
        if self._followers:
            arrays = self._arrays(parameters, version, changed)
            for follower in self._followers:
                follower(version, arrays)
        store_release(self._control, d.VERSION, version)

    def wait_adopted(self, version: int, timeout_s: float) -> bool:
        """Wait until the loop works with `version` or a later one; True at once while it is not running."""
        deadline = time.monotonic() + timeout_s
        while self._is_running() and load_acquire(self._control, d.ADOPTED) < version:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True
