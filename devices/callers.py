"""Who gives a command, for the log."""

from __future__ import annotations

from typing import Any


def caller(device: Any) -> str:
    """Return the client whose request `device` is serving, in words."""
    client = device.get_client_ident()
    if client is None:
        return "tango"
    place = client.client_ip.removeprefix("giop:tcp:")
    if place.startswith("collocated"):
        return "tango in this server"
    return f"tango process {client.client_pid} on {'this host' if place.startswith('giop:unix') else place}"
