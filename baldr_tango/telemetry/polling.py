"""The newest telemetry sample by name, as the commander's displays ask for it."""

from __future__ import annotations

from typing import Any, Final

from baldr_tango.errors import RequestError
from baldr_tango.telemetry import legacy
from baldr_tango.telemetry.ring import TelemetryRing

LEAST_RECORDS: Final = 2
"""Records that must be there before a sample is given, as ever."""


def check_name(name: str, *, vector: bool) -> legacy.LegacyColumn:
    """Return what a name or alias, in any case, stands for.

    Raises
    ------
    RequestError : there is no such field, or it is a vector where a scalar is asked for or vice versa.
    """
    column = legacy.find(name)
    if column is None or legacy.is_vector(column) != vector:
        raise RequestError("unknown field", field=name, known=legacy.names(vectors=vector))
    return column


def newest(ring: TelemetryRing, name: str, *, vector: bool) -> dict[str, Any]:
    """Return the newest sample of a field as the commander's reply.

    ``size`` is the length of a vector, or, while there are too few records, their number.

    Raises
    ------
    RequestError : as `check_name`.
    """
    column = check_name(name, vector=vector)
    if ring.available < LEAST_RECORDS:
        return {"ok": False, "error": "insufficient data", "size": ring.available}
    value = legacy.plain(column.values(ring.newest(column.field)))
    reply = {"ok": True, "name": name, "data": value}
    return {**reply, "size": len(value)} if vector else reply
