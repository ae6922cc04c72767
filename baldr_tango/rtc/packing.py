"""How members of the loop's parameters are laid out in memory, and whether a new value fits there."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from baldr_tango.errors import RequestError
from baldr_tango.kernels import loop_data as d
from baldr_tango.kernels.linear import Matrix
from baldr_tango.kernels.structure import choose_structure, lay_out, pack, structure_of

MATRICES: Final = ("to_actuators", "reconstructor_lo", "reconstructor_ho", "shapes_lo", "shapes_ho")
"""Members of `loop_data.Parameters` that are packed matrices."""

FIXED: Final = ("bad_pixels", "exterior_pixels")
"""Members without slots: lists of pixels, of any length."""

_DTYPES: Final[dict[str, DTypeLike]] = {
    **dict.fromkeys(("switches", "used_ho"), np.int64),
    **dict.fromkeys(("limits", "injection", "inject_lo", "inject_ho"), np.float64),
    **{
        f"{name}_{loop}": np.float64
        for name in ("set_point", "kp", "ki", "kd", "leak", "lower", "upper")
        for loop in ("lo", "ho")
    },
}
"""Types other than float32."""


def pack_member(name: str, value: Any) -> Any:
    """Pack one dense member into both slots, with the types that the loop is compiled for."""
    if name in MATRICES:
        return pack(value)
    if name in FIXED:
        return np.ascontiguousarray(value, dtype=np.int64)
    if isinstance(value, d.Kalman):
        return d.Kalman(*(twice(matrix, np.float32) for matrix in value))
    return twice(value, _DTYPES.get(name, np.float32))


def twice(values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Two copies along a new first axis, touched and contiguous."""
    array = np.asarray(values, dtype=dtype)
    return np.ascontiguousarray(np.broadcast_to(array, (2, *array.shape)))


def copied(member: Any) -> Any:
    """Copy a member with both of its slots."""
    if isinstance(member, Matrix):
        return Matrix(member.layout, *(array.copy() for array in slotted(member)))
    if isinstance(member, d.Kalman):
        return d.Kalman(*(matrix.copy() for matrix in member))
    return member.copy()


def slotted(member: Any) -> tuple[NDArray[Any], ...]:
    """Arrays of a member that exist once per slot."""
    if isinstance(member, Matrix):
        return tuple(member[1:])
    if isinstance(member, d.Kalman):
        return tuple(member)
    return (member,) if member.ndim >= 2 else ()


def slot_arrays(name: str, member: Any, slot: int) -> dict[str, NDArray[Any]]:
    """Copy one slot of a member, array by array: ``name``, or ``name.part`` for those of several arrays."""
    if isinstance(member, Matrix):
        parts = {
            "layout": np.array([member.layout]),
            **{field: getattr(member, field)[slot] for field in Matrix._fields[1:]},
        }
        return {f"{name}.{part}": array.copy() for part, array in parts.items()}
    if isinstance(member, d.Kalman):
        return {f"{name}.{part}": array[slot].copy() for part, array in member._asdict().items()}
    return {name: (member[slot] if member.ndim >= 2 else member).copy()}


def fit(member: Any, value: Any) -> tuple[NDArray[Any], ...] | None:
    """Lay out a checked value as one slot of `member`, array by array as `slotted`; None: it does not fit."""
    if isinstance(member, Matrix):
        return _refill(member, value)
    if isinstance(member, d.Kalman):
        return tuple(value)
    return (value,) if member.ndim >= 2 else None


def _refill(matrix: Matrix, dense: NDArray[np.float32]) -> tuple[NDArray[Any], ...] | None:
    """Lay out a matrix as another one is; None when it cannot be, or is much quicker in its own layout."""
    structure = structure_of(matrix)
    if choose_structure(dense).layout != structure.layout:
        return None
    return lay_out(dense, structure)


def check_member(parameters: d.Parameters, name: str, value: Any) -> Any:
    """Convert a new value of a member, dense; raise `RequestError` for a wrong name, shape or number."""
    target = getattr(parameters, name, None)
    if isinstance(target, d.Kalman):
        parts = zip(target._fields, value, target, strict=True)
        return d.Kalman(
            *(_converted(f"{name}.{part}", new, np.float32, old.shape[1:]) for part, new, old in parts)
        )
    if isinstance(target, Matrix):
        return _converted(name, value, np.float32, matrix_shape(parameters, name))
    if name in FIXED:
        pixels = _converted(name, value, np.int64, (np.size(value),))
        if np.any((pixels < 0) | (pixels >= parameters.dark.shape[1])):
            raise RequestError(f"{name}: expected flat indices of pixels, below {parameters.dark.shape[1]}")
        return pixels
    if not isinstance(target, np.ndarray) or name in ("switches", "limits"):
        raise RequestError(f"{name!r} is not a parameter that can be changed while the loop runs")
    return _converted(name, value, target.dtype, target.shape[1:])


def matrix_shape(parameters: d.Parameters, name: str) -> tuple[int, int]:
    """Rows and columns of a packed matrix."""
    p = parameters
    signals, modes_lo, modes_ho = p.reference.shape[1], p.kp_lo.shape[1], p.kp_ho.shape[1]
    return {
        "to_actuators": (signals, p.dark.shape[1]),
        "reconstructor_lo": (modes_lo, signals),
        "reconstructor_ho": (modes_ho, signals),
        "shapes_lo": (p.offset_lo.shape[1], modes_lo),
        "shapes_ho": (p.offset_ho.shape[1], modes_ho),
    }[name]


def _converted(name: str, value: ArrayLike, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
            array = np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"{name}: expected numbers of shape {shape}") from None
    if array.shape != shape:
        raise RequestError(f"{name}: expected shape {shape}, found {array.shape}")
    if not np.all(np.isfinite(array)):
        raise RequestError(f"{name}: every value must be finite")
    return array
