"""Putting changes in force: the loop works with them when the call returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from numpy.typing import ArrayLike

from baldr_tango.errors import StateError
from baldr_tango.rtc import RealTimeLoop

APPLY_TIMEOUT_S: Final = 0.5
"""Longest wait for the loop to take over a change [s]."""


def put_in_force(
    loop: RealTimeLoop,
    switches: Mapping[int, int] | None = None,
    limits: Mapping[int, float] | None = None,
    **values: ArrayLike,
) -> None:
    """Change parameters of a loop together, at a frame boundary, and wait until it works with them.

    Parameters
    ----------
    switches, limits : new values by column, see `loop_data`
    values : new arrays by the name of a `loop_data.Parameters` member

    Raises
    ------
    RequestError : a shape or a value is wrong; nothing has changed.
    StateError : the loop did not react in time.
    """
    version = loop.slots.change(switches, limits, APPLY_TIMEOUT_S, **values)
    if not loop.slots.wait_adopted(version, APPLY_TIMEOUT_S):
        raise StateError(f"the real-time loop did not react within {APPLY_TIMEOUT_S:g} s")
