"""Loops that close and open by themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from baldr_tango.beam import Beam
from baldr_tango.beam.automation import Rules
from baldr_tango.commands.options import boolean, number
from baldr_tango.commands.table import beam_command
from baldr_tango.configuration.schema import declared_keys
from baldr_tango.configuration.settings import AutomationSettings
from baldr_tango.errors import RequestError
from baldr_tango.interface import Json


@beam_command()
def set_automation(beam: Beam, rules: Any = None) -> dict[str, Json]:
    """Change when loops close and open by themselves; without rules only tell what is in force.

    Parameters
    ----------
    rules : object, for instance {"auto_close": true, "close_on_strehl": 0.3, "dwell_close_s": 2}
    """
    given = {} if rules is None or rules == "" else rules
    if not isinstance(given, dict):
        raise RequestError(f"set_automation: expected an object with rules, found {given!r}")
    changes = {name: _checked(name, value) for name, value in given.items()}
    now = beam.automation.set(**changes) if changes else beam.automation.rules
    return {
        "ok": True,
        **asdict(now),
        "state": beam.automation.text,
        "last_action": beam.automation.last_action,
    }


def _checked(name: str, value: Any) -> Any:
    names = list(Rules.__dataclass_fields__)
    if name not in names:
        raise RequestError(f"set_automation: no rule {name!r}; there are {', '.join(names)}")
    declaration = declared_keys(AutomationSettings)[name]
    default = getattr(AutomationSettings(), name)
    if isinstance(default, bool):
        return boolean("set_automation", name, value)
    if isinstance(default, str):
        if value not in declaration.choices:
            raise RequestError(f"set_automation: {name} must be {declaration.allowed()}, found {value!r}")
        return value
    most = declaration.maximum
    return number("set_automation", name, value, 0.0, 1e9 if most is None else most)
