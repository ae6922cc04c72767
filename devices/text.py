"""Text on its way to Tango, whose strings are Latin-1."""

from __future__ import annotations

import json
from typing import Any

from legacy_zmq.protocol import to_json


def tango_text(text: object) -> str:
    """Return `text` with characters that Tango cannot carry replaced by ``?``."""
    return str(text).encode("latin-1", "replace").decode("latin-1").replace("\0", "")


def json_text(value: Any) -> str:
    """Return the JSON text of a command's reply, keys in the commander's order.

    Characters outside ASCII are escaped, so that nothing is lost in a Tango string.
    """
    return json.dumps(to_json(value), sort_keys=True, allow_nan=False)
