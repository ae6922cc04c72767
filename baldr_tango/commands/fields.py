"""Runtime fields: list, read and set the values of the configuration in force."""

from __future__ import annotations

from baldr_tango.beam import Beam
from baldr_tango.beam.fields import FIELDS
from baldr_tango.commands.table import beam_command
from baldr_tango.interface import Json


@beam_command(reads=True)
def list_rtc_fields(beam: Beam) -> dict[str, Json]:
    """List every runtime field: path, type, shape, unit, access and meaning."""
    configured = beam.loop is not None
    return {
        "ok": True,
        "fields": [
            {
                "field": entry.path,
                "type": entry.domain.kind,
                "shape": entry.size(beam.live) if configured else list(entry.shape),
                "unit": entry.unit,
                "access": entry.access,
                "doc": entry.doc,
            }
            for entry in FIELDS
        ],
    }


@beam_command(reads=True)
def get_rtc_field(beam: Beam, field: str) -> dict[str, Json]:
    """Read one runtime field.

    Parameters
    ----------
    field : path of the field, for instance reference_pupils.I0
    """
    entry = FIELDS.find(field)
    return {"ok": True, "field": field, "type": entry.domain.kind, "value": entry.read(beam.live)}


@beam_command()
def set_rtc_field(beam: Beam, field: str, value: Json) -> dict[str, Json]:
    """Set one runtime field, whole and at a frame boundary; the reply lists what has changed with it.

    Parameters
    ----------
    field : path of the field, for instance I0_dm_runtime
    value : number, text, list of numbers, or list of rows, as list_rtc_fields says
    """
    changed = FIELDS.put(beam.live, field, value)
    reply = get_rtc_field(beam, field)
    beam.log.info("%s set%s", field, f"; with it {', '.join(changed)}" if changed else "")
    return {**reply, "changed": changed} if changed else reply
