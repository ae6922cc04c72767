"""README and manual: commands that exist, code that fits, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tango import DeviceProxy

from baldr_tango.commands import COMMANDS
from baldr_tango.configuration.runtime import load_runtime
from baldr_tango.errors import RequestError
from baldr_tango.interface import VALUES
from baldr_tango.telemetry import TelemetryFile
from devices import server
from devices.cli.main import parser as baldr_parser
from devices.instrument_values import INSTRUMENT_VALUES
from devices.simulator_values import ENTRIES
from legacy_zmq import client, instrument
from legacy_zmq.protocol import parse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))

NOT_OURS = {"grep", "sudo", "sysctl", "ulimit"}
"""Programs of the system that the pages use."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Words of every command that a page tells to type, parts of a pipe one by one."""
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                words = shlex.split(line[2:], comments=True)
                while "|" in words:
                    bar = words.index("|")
                    yield words[:bar]
                    words = words[bar + 1 :]
                yield words


def check_make(words: list[str]) -> None:
    """A target of the Makefile; variables that it knows; options of the program behind ``ARGS``."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    wanted = [word for word in words if "=" not in word]
    assert targets.issuperset(wanted), f"make {' '.join(wanted)}: no such target"
    for name, value in (word.split("=", 1) for word in words if "=" in word):
        assert re.search(rf"^{name} \?=", makefile, re.MULTILINE), f"make does not know {name}"
        if name == "ARGS" and wanted == ["run"]:
            check_baldr(["up", *shlex.split(value)])


def check_baldr(words: list[str]) -> None:
    """Options that ``baldr`` takes, and configuration files that ship."""
    options = baldr_parser().parse_args(words)
    if getattr(options, "config", None) is not None and options.config.parts[0] == "config":
        assert (ROOT / options.config).is_file()


def check_commander(words: list[str]) -> None:
    """A request that a beam understands."""
    request = " ".join(client._parser().parse_args(words).request)
    name, arguments = parse(request)
    COMMANDS.find(name).bind(arguments)


CHECKS: dict[str, Callable[[list[str]], object]] = {
    "make": check_make,
    "baldr": check_baldr,
    "commander-client": check_commander,
    "baldr-server": lambda words: server.parser().parse_args(words),
    "baldr-simulator": lambda words: instrument._parser().parse_args(words),
    "BaldrRTC": lambda words: None,
    "BaldrSimulator": lambda words: None,
}


def check(words: list[str]) -> None:
    """Fail for a command that does not exist, or does not take these words."""
    program, *rest = words
    if program in NOT_OURS:
        return
    assert program in CHECKS, f"unknown program {program}"
    CHECKS[program](rest)


def test_the_programs_are_the_console_scripts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(CHECKS) - {"make"} == set(project["scripts"])


@each_page
def test_commands_exist(page: Path) -> None:
    for words in command_lines(page):
        try:
            check(words)
        except SystemExit:
            pytest.fail(f"{' '.join(words)}: refused by its own option parser")


@pytest.mark.parametrize(
    "line",
    ["make rum", "make run ARGS=--isolatet", "baldr upp", "commander-client --bean 1 status", "rm -rf ."],
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        check(shlex.split(line))


def test_a_wrong_request_would_be_found() -> None:
    with pytest.raises(RequestError):
        check(shlex.split("commander-client close_everything"))


def test_the_quick_start_is_two_commands() -> None:
    start = (ROOT / "README.md").read_text().split("## Quick start")[1].split("\n## ")[0]
    assert re.findall(r"^\$ (.*)$", start, re.MULTILINE) == ["make run", "make test"]


@each_page
def test_python_fits_the_interfaces(page: Path) -> None:
    values = {value.name for value in (*VALUES, *INSTRUMENT_VALUES)} | set(ENTRIES)
    ours = {*(c.tango_name for c in COMMANDS), *values, "for_beams", "State", "Status", "Init"}
    known = {
        "DeviceProxy": {*dir(DeviceProxy), *ours},
        "TelemetryFile": set(dir(TelemetryFile)),
    }
    kinds: dict[str, str] = {}
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                kinds.update(_constructed(node.targets[0], node.value))
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                kinds.update(_constructed(node.optional_vars, node.context_expr))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                kind = kinds.get(node.value.id, "")
                assert kind not in known or node.attr in known[kind], f"{kind} has no {node.attr}"


def _constructed(target: ast.expr, value: ast.expr) -> dict[str, str]:
    """Name of a variable and of the class that makes its value, if that is what it is."""
    if isinstance(target, ast.Name) and isinstance(value, ast.Call):
        return {target.id: getattr(value.func, "attr", getattr(value.func, "id", ""))}
    return {}


@each_page
def test_configuration_examples_load(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        load_runtime(file)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name}: no heading for {target}"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_listed_and_whole(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences"]
    assert f"decisions/{page.name}" in (ROOT / "docs" / "index.md").read_text(), "list it in docs/index.md"


def test_compatibility_tells_what_there_is_and_what_is_not() -> None:
    text = (ROOT / "docs" / "compatibility.md").read_text()
    missing = text.split("### Not there yet")[1].split("\n## ")[0]
    names = {name.lower() for name in COMMANDS.names()}
    there_now = [name for name in re.findall(r"`(\w+)`", missing) if name.lower() in names]
    assert there_now == [], "no longer missing; describe them in docs/compatibility.md"
    told = text.replace(missing, "")
    assert [name for name in COMMANDS.names() if f"`{name}`" not in told] == []
