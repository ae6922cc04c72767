"""Values of runtime fields: what clients send, checked and converted; what they get, as JSON can carry it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SCALARS: Final = {
    "double": (-math.inf, math.inf),
    "float": (-math.inf, math.inf),
    "int": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
}
"""Scalar types as the legacy server names them, and their ranges."""

INTEGERS: Final = ("int", "uint32", "vector<int16>", "vector<int32>", "vector<uint8>")


class UnfitError(ValueError):
    """A value is not one for the field; the text says what was expected instead."""


@dataclass(frozen=True)
class Domain:
    """Which values a field takes."""

    kind: str
    """Type as the legacy server names it."""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_boolean: bool = False
    """Only true and false are taken, whatever the type is called."""

    def convert(self, value: Any, shape: Sequence[int] = ()) -> Any:
        """Check a value and convert it: float, int, bool, str or a float64 array of `shape`.

        Numbers must be finite, integers integral; nothing is cut off, wrapped or taken from text.
        Raises `UnfitError`.
        """
        if self.is_boolean:
            if not isinstance(value, bool):
                raise UnfitError(f"expected true or false, found {_shown(value)}")
            return value
        if self.kind == "string":
            return self._text(value)
        if self.kind in SCALARS:
            return self._scalar(value)
        return self._array(value, tuple(shape))

    def allowed(self) -> str:
        """Allowed values in words; empty when the type says it all."""
        if self.choices:
            return ", ".join(self.choices)
        bounds = ((">= ", self.minimum), ("<= ", self.maximum))
        return ", ".join(f"{sign}{bound:g}" for sign, bound in bounds if bound is not None)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str) or (self.choices and value not in self.choices):
            expected = " or ".join(self.choices) or "text"
            raise UnfitError(f"expected {expected}, found {_shown(value)}")
        return value

    def _scalar(self, value: Any) -> float | int:
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnfitError(f"expected a number, found {_shown(value)}")
        if not -1e300 < value < 1e300:  # Python integers have no end; NaN fails too
            raise UnfitError(f"expected a finite number, found {_shown(value)}")
        if self.kind in INTEGERS and value != int(value):
            raise UnfitError(f"expected a whole number, found {_shown(value)}")
        lowest, highest = SCALARS[self.kind]
        lowest = lowest if self.minimum is None else self.minimum
        highest = highest if self.maximum is None else self.maximum
        if not lowest <= value <= highest:
            least = f"{lowest:g}" if lowest == 0 or abs(lowest) > 1e-300 else "more than 0"
            raise UnfitError(f"expected {least} to {highest:g}, found {_shown(value)}")
        return int(value) if self.kind in INTEGERS else float(value)

    def _array(self, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
        words = f"{shape[0]} numbers" if len(shape) == 1 else f"{shape[0]} rows of {shape[1]} numbers"
        array = numbers(value, len(shape))
        if array is None:
            raise UnfitError(f"expected {words}, found {_shown(value)}")
        if array.shape != shape:
            if 0 in shape and array.size == 0:
                return np.zeros(shape)
            found = f"{array.shape[0]}" if array.ndim == 1 else f"{array.shape[0]} rows of {array.shape[1]}"
            raise UnfitError(f"expected {words}, found {found}")
        if not np.isfinite(array).all():
            raise UnfitError("expected finite numbers")
        low, high = array.min(initial=math.inf), array.max(initial=-math.inf)
        if (self.minimum is not None and low < self.minimum) or (
            self.maximum is not None and high > self.maximum
        ):
            raise UnfitError(f"expected values {self.allowed()}, found {low:g} to {high:g}")
        return array


def numbers(value: Any, dimensions: int) -> NDArray[np.float64] | None:
    """Return a list of numbers (1) or a list of equally long rows (2) as an array; None when it is none."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return None
    rows = value if dimensions == 2 else [value]
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != len(rows[0]):
            return None
        if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in row):
            return None
    try:
        array = np.array(value, dtype=np.float64)
    except OverflowError:
        return None
    return array if array.ndim == dimensions else np.zeros((0,) * dimensions)


def plain(kind: str, value: Any) -> Any:
    """Turn a value into what JSON can carry, integers where the type is one."""
    if isinstance(value, np.ndarray):
        return (np.rint(value).astype(np.int64) if kind in INTEGERS else value).tolist()
    return value.item() if isinstance(value, np.generic) else value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
