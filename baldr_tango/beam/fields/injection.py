"""Runtime fields of the signal injection, ``inj_signal.*``."""

from __future__ import annotations

from typing import Any, Final

from baldr_tango.beam.fields.conversion import Domain, UnfitError
from baldr_tango.beam.fields.field import Field
from baldr_tango.beam.injection_settings import ITEMS
from baldr_tango.beam.live_configuration import LiveConfiguration
from baldr_tango.errors import RequestError


def _field(name: str) -> Field:
    item = ITEMS[name]

    def put(live: LiveConfiguration, value: Any) -> None:
        try:
            live.beam.injection.set(**{name: value})
        except RequestError as error:
            raise UnfitError(str(error)) from None

    return Field(
        f"inj_signal.{name}",
        Domain(item["type"], is_boolean=name == "enabled"),
        item["doc"],
        lambda live: live.beam.injection.get(name),
        put,
        unit=item["unit"],
    )


INJECTION_FIELDS: Final = tuple(_field(name) for name in ITEMS)
"""One field for each of the settings; each change starts the waveform again."""
