"""Placeholders in names and paths of the runtime file: {state}, {config}, {beam}."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from baldr_tango.configuration.document import absolute, expand_home
from baldr_tango.configuration.schema import fault


def check_placeholders(file: Path, name: str, value: Path | str, allowed: Iterable[str]) -> None:
    """Refuse a placeholder that does not exist there, and a brace that belongs to none."""
    known = [f"{{{word}}}" for word in allowed]
    for brace in re.findall(r"\{[^{}]*\}?|\}", str(value)):
        if brace not in known:
            raise fault(file, name, str(value), f"no placeholder but {', '.join(known)}")


def fill_path(value: Path | str, *, config: Path, state: Path | None, beam: int | None) -> Path:
    """Return a path with its placeholders filled in, absolute; relative ones start at `config`.

    Parameters
    ----------
    config : directory of the runtime file.
    state, beam : None leaves that placeholder in.
    """
    text = str(value).replace("{config}", str(config))
    if state is not None:
        text = text.replace("{state}", str(state))
    if beam is not None:
        text = text.replace("{beam}", str(beam))
    return absolute(config / expand_home(text))


def fill_name(value: str, beam: int) -> str:
    """Return the name of a stream of one beam."""
    return value.replace("{beam}", str(beam))
