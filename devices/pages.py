"""The text of each reference page, made from the product's own definitions."""

from __future__ import annotations

import ast
import enum
import inspect
import textwrap
from collections.abc import Iterable
from typing import Final

from tango import DispLevel

from baldr_tango.beam.fields import FIELDS
from baldr_tango.beam.state import HINTS, TRANSITIONS
from baldr_tango.commands import COMMANDS
from baldr_tango.configuration.calibration import describe_calibration_keys
from baldr_tango.configuration.runtime import BEAM_TABLES, TABLES, describe_runtime_keys
from baldr_tango.configuration.schema import KeyRow
from baldr_tango.configuration.settings import TELEMETRY_DEFAULT_FIELDS
from baldr_tango.interface import VALUES, Command, Value
from baldr_tango.names import RtcState
from baldr_tango.telemetry.fields import SIZE_KEYS, TELEMETRY_FIELDS, FrameFlag
from devices.attributes import attribute_options
from devices.commands import input_type, output_type, takes_json
from devices.failures import REASONS
from devices.markdown import code, join, table
from devices.properties import property_members
from devices.states import STATE_TABLE, Rule

WRITE_COMMAND: Final = "make docs"
"""What brings the pages up to date."""

_HEAD: Final = f"<!-- Written by `{WRITE_COMMAND}` from the source; a change belongs there. -->\n"
_JSON_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean"}


def commands_page() -> str:
    """Return the page of all commands."""
    return page(
        "Commands",
        "One table for the commander and for Tango. A command marked *beside* only reads, or waits for"
        " another server, and runs beside the others; those that change the beam run one after the other. A"
        " *job* takes long: `job_status` tells its progress, `job_cancel` ends it.",
        table(
            ["command", "arguments", "reply", "", "meaning"],
            [
                [
                    code(entry.name, *entry.aliases),
                    code(*(argument.name for argument in entry.arguments)),
                    "text, not JSON" if entry.raw_reply else _JSON_TYPES.get(entry.returns, "JSON"),
                    "job" if entry.background else "beside" if entry.waits else "",
                    entry.doc,
                ]
                for entry in COMMANDS
            ],
        ),
        "## Arguments",
        table(
            ["command", "argument", "type", "default", "meaning"],
            [
                [
                    code(entry.name),
                    code(argument.name),
                    _JSON_TYPES.get(argument.kind, "JSON"),
                    "required" if argument.is_required else code(repr(argument.default)),
                    argument.doc + ("; commander only" if argument in entry.unlisted else ""),
                ]
                for entry in COMMANDS
                for argument in (*entry.arguments, *entry.unlisted)
            ],
        ),
        "## From the commander",
        'Names in any case; `name`, `name 1, 2`, `name [1, 2]`, `name "text"`. Further arguments than a'
        ' command has are ignored. A failure is answered by `{"error": "...", "ok": false}`.',
        "## From Tango",
        "Aliases are no Tango commands. A JSON reply is a string that holds it.",
        table(["Tango command", "argument", "reply"], [_tango(entry) for entry in COMMANDS]),
        "A failure is a `DevFailed` with one of these reasons:",
        table(
            ["reason", "error"],
            [
                [code(word), "any other" if kind is Exception else code(kind.__name__)]
                for kind, word in REASONS
            ],
        ),
    )


def _tango(entry: Command) -> list[str]:
    argument = input_type(entry).name
    if entry.arguments and takes_json(entry):
        argument += f": JSON array [{', '.join(each.name for each in entry.arguments)}]"
    return [code(entry.tango_name), argument, output_type(entry).name]


def values_page() -> str:
    """Return the page of all published values."""
    scalars = [value for value in VALUES if value.shape == "scalar"]
    columns = ["attribute", "type", "unit", "meaning", "limits", "archived at"]
    return page(
        "Values",
        "Each is a read-only Tango attribute of the same name. Status keys are also in the reply of `status`,"
        " where an enumeration is its number.",
        "*Archived at* is the change that an archive event needs: `archive_abs_change`, which a site may set"
        " per attribute. *change*: any change is archived; *10 s*: changes at most every 10 s.",
        "## Status keys",
        "The 15 keys of the commander, names and order as they have always been.",
        table(columns, [_value(value) for value in scalars if value.status_key]),
        "## State, counters and figures of merit",
        table(columns, [_value(value) for value in scalars if not value.status_key]),
        "## Spectra and images",
        table(columns, [_value(value) for value in VALUES if value.shape != "scalar"]),
    )


def _value(value: Value) -> list[str]:
    options = attribute_options(value)
    if value.enum is not None:
        kind = "DevEnum: " + ", ".join(f"{member.value} {member.name}" for member in value.enum)
    elif value.shape == "scalar":
        kind = options["dtype"].name
    else:
        size = " x ".join(str(size) for size in value.max_dim if size)
        kind = f"{value.shape} of {'DevLong' if value.kind is int else 'DevDouble'}, up to {size}"
    archive = f"{value.archive_change:g} {value.unit}".strip() if value.archive_change else "change"
    limits = [
        _range("", value.minimum, value.maximum),
        _range("warning ", *value.warning),
        _range("alarm ", *value.alarm),
    ]
    return [
        code(value.name) + (" (expert)" if options["display_level"] == DispLevel.EXPERT else ""),
        kind,
        value.unit,
        value.doc,
        "; ".join(filter(None, limits)),
        archive if value.shape == "scalar" else "10 s",
    ]


def _range(name: str, low: float | None, high: float | None) -> str:
    if name:
        parts = [f"below {low:g}" if low is not None else "", f"above {high:g}" if high is not None else ""]
    else:
        parts = [f">= {low:g}" if low is not None else "", f"<= {high:g}" if high is not None else ""]
    text = ", ".join(filter(None, parts))
    return f"{name}{text}" if text else ""


def telemetry_page() -> str:
    """Return the page of the telemetry fields."""
    rows = [
        [
            code(field.name),
            f"{field.numpy_dtype}{f' [{field.size_key}]' if field.size_key else ''}",
            field.unit,
            field.doc,
            "yes" if field.name in TELEMETRY_DEFAULT_FIELDS else "",
        ]
        for field in TELEMETRY_FIELDS
    ]
    return page(
        "Telemetry fields",
        "One record per frame, in memory and in the files. `telemetry.fields` of the runtime file chooses"
        " what the files hold; the last column is the default. `frame` and `time_ns` are always there.",
        "Raw images are thinned out: a file has the `img` of every `telemetry.image_every`-th record, as"
        " `images/img` with `images/frame`.",
        table(["field", "type", "unit", "meaning", "recorded"], rows),
        "Sizes: " + ", ".join(f"{key} {meaning}" for key, meaning in SIZE_KEYS.items()) + ".",
        "## Flags",
        "Bits of `flags`.",
        table(
            ["bit", "name", "meaning"],
            [[str(FrameFlag[name].value), name, doc] for name, doc in _member_docs(FrameFlag).items()],
        ),
    )


def _member_docs(members: type[enum.Enum]) -> dict[str, str]:
    """Return the text that follows each member in the source, by name."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(members))).body
    assert isinstance(definition, ast.ClassDef)
    docs, name = {}, ""
    for line in definition.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
        elif isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and name:
            docs[name] = str(line.value.value)
    return docs


def configuration_page() -> str:
    """Return the page of the keys of the runtime file."""
    rows = describe_runtime_keys()
    return page(
        "Runtime file",
        "`config/baldr.toml`, or a file of yours; TOML, or JSON by its suffix. Every key may be left out. An"
        " unknown table or key, a wrong type or a value that is not allowed is an error.",
        "In paths `{state}` is `instrument.state`, `{config}` the directory of the file, `{beam}` the number"
        " of the beam and `~` the home directory. A relative path starts at the directory of the file.",
        "One beam may differ: `[beam.N]` takes any key of `[calibration]`, and"
        f" {code(*(f'[beam.N.{name}]' for name in BEAM_TABLES))} any key of these tables.",
        *(join(f"## {name}", _keys(row for row in rows if row.table == name)) for name in TABLES),
    )


def calibration_page() -> str:
    """Return the page of the keys of a calibration file."""
    return page(
        "Calibration file",
        "Table `[beamN.<mask>.ctrl_model]` of the legacy format, TOML, or JSON by its suffix. Keys that are"
        " not listed are ignored. A missing required key, a wrong shape or a value that is not finite is an"
        " error.",
        "Sizes: P pixels of a frame, A signals (rows of I2A), L low-order modes (LO), H high-order modes"
        " (rows of I2M_HO), G points of the DM map (sza), M modes in all (L + H).",
        _keys(describe_calibration_keys()),
    )


def _keys(rows: Iterable[KeyRow]) -> str:
    return table(
        ["key", "type", "default", "unit", "allowed", "meaning"],
        [
            [
                code(row.key),
                row.type,
                row.default if row.default in ("required", "none") else code(row.default),
                row.unit,
                row.allowed,
                row.doc,
            ]
            for row in rows
        ],
    )


def fields_page() -> str:
    """Return the page of the runtime fields."""
    return page(
        "Runtime fields",
        "Values of the configuration in force, for `get_rtc_field` and `set_rtc_field`. A value is put in"
        " force whole and at a frame boundary; nothing is written to a file.",
        "Sizes: P pixels of a frame, A signals, L low-order modes, H high-order modes, G points of the DM"
        " map and M modes in all.",
        table(
            ["field", "type", "shape", "unit", "access", "meaning"],
            [
                [
                    code(entry.path),
                    entry.domain.kind,
                    " x ".join(entry.shape),
                    entry.unit,
                    entry.access,
                    entry.doc,
                ]
                for entry in FIELDS
            ],
        ),
    )


def properties_page() -> str:
    """Return the page of the device properties."""
    return page(
        "Device properties",
        "Of a `BaldrBeam` device, in the Tango database. All may be absent; one that is set wins over the"
        " environment and the runtime file. `Init` reads them again.",
        table(
            ["property", "type", "default", "meaning"],
            [
                [code(name), found.dtype.name, code(repr(found.default_value)), found.doc]
                for name, found in property_members().items()
            ],
        ),
    )


def states_page() -> str:
    """Return the page of the states of a beam and of its device."""
    events = list(dict.fromkeys(event for moves in TRANSITIONS.values() for event in moves))
    return page(
        "States",
        "## Tango State",
        "The first row that holds, from the top. Status begins with the meaning; the loops, the reasons and"
        " what is being waited for follow.",
        table(
            ["State", "RTC state", "alarm", "a loop is closed", "meaning"], [_rule(r) for r in STATE_TABLE]
        ),
        "## RTC state",
        "What the real-time thread of a beam is doing, attribute `rtc_state`. Events that change nothing are"
        " left out of the drawing.",
        _diagram(),
        "What each event leads to; where the cell is empty, it is refused.",
        table(
            ["RTC state", *events],
            [[state.name, *(_target(state, event) for event in events)] for state in TRANSITIONS],
        ),
        "A refusal says what to do:",
        table(["RTC state", "hint"], [[state.name, hint] for state, hint in HINTS.items()]),
    )


def _rule(rule: Rule) -> list[str]:
    states = ", ".join(state.name for state in RtcState if state in rule.rtc)
    words = {None: "", True: "yes", False: "no"}
    return [rule.state.name, states, words[rule.alarm], words[rule.closed], rule.meaning]


def _target(state: RtcState, event: str) -> str:
    after = TRANSITIONS[state].get(event)
    return "" if after is None else "stays" if after is state else after.name


def _diagram() -> str:
    moves: dict[tuple[RtcState, RtcState], list[str]] = {}
    for state, events in TRANSITIONS.items():
        for event, after in events.items():
            if after is not state:
                moves.setdefault((state, after), []).append(event)
    lines = [f"    {old.name} --> {new.name}: {', '.join(names)}" for (old, new), names in moves.items()]
    first = f"    [*] --> {next(iter(TRANSITIONS)).name}"
    return "\n".join(["```mermaid", "stateDiagram-v2", first, *lines, "```"])


def page(title: str, *parts: str) -> str:
    """Return a page of the manual, with the note that it is generated."""
    return _HEAD + join(f"# {title}", *parts)
