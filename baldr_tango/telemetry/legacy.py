"""Telemetry as the commander's clients know it: column names, units, and other names of the fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from baldr_tango.telemetry.fields import FIELD_BY_NAME, TELEMETRY_FIELDS


@dataclass(frozen=True)
class LegacyColumn:
    """One column of the legacy telemetry table."""

    key: str
    """Key of the JSON file; in capitals, the column of the FITS table."""
    field: str
    """The telemetry field that it is made of."""
    code: str = "D"
    """FITS type: D double, J 32-bit integer."""
    unit: str = ""
    divisor: float = 1.0
    """Field units in one legacy unit."""

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """Values of the field, as the ring has them, in legacy units."""
        return array if self.divisor == 1.0 else array / self.divisor


COLUMNS: Final = (
    LegacyColumn("timestamps", "time_ns", unit="microsec", divisor=1000.0),
    LegacyColumn("LO_servo_mode", "LO_servo_mode", "J"),
    LegacyColumn("HO_servo_mode", "HO_servo_mode", "J"),
    *(
        LegacyColumn(name, name)
        for name in (
            "img",
            "img_dm",
            "signal",
            "e_LO",
            "u_LO",
            "e_HO",
            "u_HO",
            "c_LO",
            "c_HO",
            "c_inj",
            "rmse_est",
            "snr",
        )
    ),
)
"""The columns of the legacy table after ``COUNTER``, in order."""

REFERENCES: Final[Mapping[str, str]] = {
    "I0_DM_REF": "reference",
    "N0_DM_REF": "clear_pupil",
    "DARK_REF": "dark",
}
"""Images behind the legacy table, by extension name: what describes a recording."""

_TIME: Final = COLUMNS[0]
_ALIASES: Final[Mapping[str, LegacyColumn]] = {
    "timestamp": _TIME,
    "timestamps": _TIME,
    **{
        alias: LegacyColumn(alias, field)
        for alias, field in {
            "counter": "frame",
            "image": "img",
            "image_dm": "img_dm",
            "sig": "signal",
            "error_lo": "e_LO",
            "error_ho": "e_HO",
            "modes_lo": "u_LO",
            "modes_ho": "u_HO",
            "command_lo": "c_LO",
            "command_ho": "c_HO",
            "injection": "c_inj",
        }.items()
    },
}
_POLLED: Final[Mapping[str, LegacyColumn]] = {
    **_ALIASES,
    **{field.name.lower(): LegacyColumn(field.name, field.name) for field in TELEMETRY_FIELDS},
}


def find(name: str) -> LegacyColumn | None:
    """Return what a telemetry name or alias, in any case, stands for; None when there is nothing."""
    return _POLLED.get(name.strip().lower())


def names(*, vectors: bool) -> list[str]:
    """Names and aliases of the vector fields, or of the scalars."""
    return [
        column.key if column is not _TIME else alias
        for alias, column in _POLLED.items()
        if is_vector(column) == vectors
    ]


def is_vector(column: LegacyColumn) -> bool:
    """Tell whether a column has more than one value per record."""
    return bool(FIELD_BY_NAME[column.field].size_key)


def extra_fields() -> list[str]:
    """Telemetry fields that the legacy table does not have."""
    known = {column.field for column in COLUMNS}
    return [field.name for field in TELEMETRY_FIELDS if field.name not in known]


def plain(value: Any) -> Any:
    """Convert numpy scalars and arrays to plain numbers and lists; what is not finite becomes None."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f" or np.isfinite(value).all():
            return value.tolist()
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
