"""The reference page of the device of the virtual instrument."""

from __future__ import annotations

from devices.attributes import attribute_options
from devices.markdown import code, table
from devices.pages import page
from devices.simulator_values import ENTRIES, Entry


def simulator_page() -> str:
    """Return the page of the class `BaldrSimulator`."""
    return page(
        "Virtual instrument",
        "Class `BaldrSimulator`, device `simulator` below `instrument.tango_prefix`, in a server of its own"
        " with the camera server, the MDS and the DM server. `baldr up` starts it. What is written holds from"
        " the next frame on, and is not kept: table `[simulator]` of the runtime file says how it starts.",
        "## Attributes",
        table(
            ["attribute", "type", "unit", "access", "limits", "meaning"],
            [_row(entry) for entry in ENTRIES.values()],
        ),
        "## States",
        table(
            ["State", "meaning"],
            [
                ["INIT", "it starts; the first time it is compiled"],
                ["RUNNING", "frames come"],
                ["STANDBY", "no frames: stopped by the camera server, split mode off, or `silent`"],
                ["FAULT", "it could not start, or has ended; the reason is in Status"],
            ],
        ),
    )


def _row(entry: Entry) -> list[str]:
    value = entry.value
    limits = [f"{limit:g}" for limit in (value.minimum, value.maximum) if limit is not None]
    kind = {bool: "DevBoolean", int: "DevLong64", float: "DevDouble", str: "DevString"}[value.kind]
    shape = "" if value.shape == "scalar" else f" {value.shape}"
    access = "read" if entry.set is None else "read, write"
    unit = attribute_options(value)["unit"]
    return [code(value.name), kind + shape, unit, access, " to ".join(limits), value.doc]
