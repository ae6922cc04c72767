"""The reference pages of the manual say what the product does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from baldr_tango.beam.fields import FIELDS
from baldr_tango.beam.state import TRANSITIONS, after
from baldr_tango.commands import COMMANDS
from baldr_tango.configuration.runtime import TABLES, load_runtime, shipped_config
from baldr_tango.errors import StateError
from baldr_tango.interface import VALUES
from baldr_tango.names import RtcState
from baldr_tango.telemetry.fields import TELEMETRY_FIELDS, FrameFlag
from devices import manual, pages
from devices.markdown import join, table
from devices.properties import property_members

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def names_in(page: str) -> list[str]:
    """Code words of the first column of every table."""
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    return [name for cell in rows for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("name", manual.PAGES)
def test_a_page_is_what_the_source_says(name: str) -> None:
    page = REFERENCE / name
    stale = f"docs/reference/{name} is stale; run: {pages.WRITE_COMMAND}"
    assert page.is_file(), stale
    assert page.read_text("utf-8") == manual.PAGES[name](), stale


def test_no_page_is_left_over() -> None:
    assert {page.name for page in REFERENCE.iterdir()} == set(manual.PAGES)


def test_check_names_stale_pages_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(tmp_path / "reference")]
    assert manual.main([*where, "--check"]) == 1
    assert not (tmp_path / "reference").exists()
    assert manual.main(where) == 0
    assert manual.main([*where, "--check"]) == 0
    capsys.readouterr()
    (tmp_path / "reference" / "values.md").write_text("of yesterday")
    assert manual.main([*where, "--check"]) == 1
    said = capsys.readouterr().err
    assert "values.md" in said
    assert "commands.md" not in said
    assert pages.WRITE_COMMAND in said


def test_the_pages_list_everything_once() -> None:
    commands = pages.commands_page().split("\n## ")
    assert sorted(names_in(commands[0])) == sorted(COMMANDS.names())
    assert sorted(names_in(pages.values_page())) == sorted(value.name for value in VALUES)
    telemetry = pages.telemetry_page().split("\n## ")
    assert names_in(telemetry[0]) == [field.name for field in TELEMETRY_FIELDS]
    assert names_in(pages.properties_page()) == list(property_members())
    assert names_in(pages.fields_page()) == [entry.path for entry in FIELDS]


def test_every_flag_has_its_meaning() -> None:
    flags = pages.telemetry_page().split("## Flags")[1]
    found = dict(re.findall(r"^\| (\d+) \| (\w+) \| .{10,} \|$", flags, re.MULTILINE))
    assert found == {str(flag.value): flag.name for flag in FrameFlag}


def test_every_key_of_the_shipped_file_is_explained() -> None:
    config = load_runtime(shipped_config())
    page = pages.configuration_page()
    for name in TABLES:
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert names_in(section) == list(vars(getattr(config, name)))


def test_the_drawing_has_every_transition() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", pages.states_page(), re.MULTILINE)
    edges = {(old, event, new) for old, new, events in drawn for event in events.split(", ")}
    events = {event for moves in TRANSITIONS.values() for event in moves}
    expected = set()
    for state in RtcState:
        for event in events:
            try:
                new = after(state, event)
            except StateError:
                continue
            if new != state:
                expected.add((state.name, event, new.name))
    assert edges == expected


def test_a_cell_cannot_break_a_table() -> None:
    text = table(["a"], [["one | two\nthree <mask> `<x>` <= 3"]])
    assert text.splitlines()[-1] == "| one \\| two three &lt;mask> `<x>` <= 3 |"


def test_parts_are_separated_by_one_empty_line() -> None:
    assert join("# a", "", "b\n", "\nc") == "# a\n\nb\n\nc\n"
