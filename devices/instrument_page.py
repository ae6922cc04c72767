"""The reference page of the device of all beams."""

from __future__ import annotations

from devices.attributes import attribute_options
from devices.instrument_commands import BEAMS_DOC, REPLY_DOC, WITH_ARGUMENTS, grouped_commands
from devices.instrument_device import INSTRUMENT_PROPERTIES
from devices.instrument_states import GROUP_STATE_TABLE, GroupRule
from devices.instrument_values import INSTRUMENT_VALUES
from devices.markdown import code, table
from devices.pages import page


def instrument_page() -> str:
    """Return the page of the class `BaldrInstrument`."""
    return page(
        "Instrument",
        "Class `BaldrInstrument`, device `all` below `instrument.tango_prefix`: all beams as one.",
        "## Commands",
        f"Argument: {BEAMS_DOC}. Reply: {REPLY_DOC}.",
        table(
            ["Tango command", "meaning"], [[code(each.tango_name), each.doc] for each in grouped_commands()]
        ),
        '`for_beams` takes `["command", [beams], argument, ...]`, with any of these commands or of'
        f" {code(*WITH_ARGUMENTS)}.",
        "## State",
        "The first row that holds, from the top. Status has one line per beam.",
        table(["State", "when", "meaning"], [_rule(rule) for rule in GROUP_STATE_TABLE]),
        "## Attributes",
        "Lists are in the order of `beams`.",
        table(
            ["attribute", "type", "unit", "meaning"],
            [
                [
                    code(value.name),
                    _type(value.shape, value.kind),
                    attribute_options(value)["unit"],
                    value.doc,
                ]
                for value in INSTRUMENT_VALUES
            ],
        ),
        "## Properties",
        table(
            ["property", "type", "default", "meaning"],
            [
                [code(name), str(found.dtype), code(repr(found.default_value)), found.doc]
                for name, found in INSTRUMENT_PROPERTIES.items()
            ],
        ),
    )


def _rule(rule: GroupRule) -> list[str]:
    states = " or ".join(sorted(state.name for state in rule.beams))
    return [rule.state.name, f"{'every' if rule.every else 'any'} beam in {states}", rule.meaning]


def _type(shape: str, kind: type) -> str:
    name = {str: "DevString", float: "DevDouble", int: "DevLong"}[kind]
    return f"list of {name}" if shape == "spectrum" else "DevLong64"
