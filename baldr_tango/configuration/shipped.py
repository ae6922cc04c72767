"""Find the configuration files that ship with the product."""

from __future__ import annotations

from pathlib import Path

from baldr_tango.errors import ConfigError


def shipped_config(name: str = "baldr.toml") -> Path:
    """Return the path of a configuration file that ships with the product.

    It is inside this package in an installed wheel, in ``config/`` of an editable checkout.
    Raises `ConfigError` when there is no such file.
    """
    package = Path(__file__).parents[1]
    places = (package / "_config", package.parent / "config")
    for directory in places:
        if (directory / name).is_file():
            return directory / name
    raise ConfigError(f"{name}: not shipped, looked in {' and '.join(map(str, places))}")
