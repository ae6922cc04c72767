"""The reference pages of the manual, written from the definitions that the product itself runs on.

``python -m devices.manual`` writes ``docs/reference``; with ``--check`` it says which pages are stale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from devices import pages
from devices.faults_page import faults_page
from devices.instrument_page import instrument_page
from devices.pages import WRITE_COMMAND
from devices.simulator_page import simulator_page

PAGES: Final[dict[str, Callable[[], str]]] = {
    "commands.md": pages.commands_page,
    "values.md": pages.values_page,
    "telemetry.md": pages.telemetry_page,
    "configuration.md": pages.configuration_page,
    "calibration.md": pages.calibration_page,
    "fields.md": pages.fields_page,
    "properties.md": pages.properties_page,
    "states.md": pages.states_page,
    "faults.md": faults_page,
    "instrument.md": instrument_page,
    "simulator.md": simulator_page,
}
"""Every reference page by file name."""


def write_pages(directory: Path) -> None:
    """Write every page into a directory, which is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (directory / name).write_text(page(), "utf-8")


def stale_pages(directory: Path) -> list[str]:
    """Return the names of pages that are missing or differ from what the source says."""
    return [
        name
        for name, page in PAGES.items()
        if not (directory / name).is_file() or (directory / name).read_text("utf-8") != page()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m devices.manual``; return its exit status, 1 when a checked page is stale."""
    parser = argparse.ArgumentParser(
        prog="python -m devices.manual", description="Write the reference pages of the manual."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(__file__).parents[1] / "docs" / "reference",
        help="where the pages are (default: docs/reference of this checkout)",
    )
    options = parser.parse_args(arguments)
    if not options.check:
        write_pages(options.directory)
        return 0
    stale = stale_pages(options.directory)
    if stale:
        sys.stderr.write(f"stale in {options.directory}: {', '.join(stale)}; run: {WRITE_COMMAND}\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
