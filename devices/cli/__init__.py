"""``baldr``: the operator's command line."""

from __future__ import annotations

from devices.cli.main import main

__all__ = ["main"]
