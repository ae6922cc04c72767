"""What libzmq does not check about an endpoint."""

from __future__ import annotations

import re


def check_endpoint(endpoint: str) -> None:
    """Raise `ValueError` for a TCP port above 65535, which libzmq would take modulo 65536."""
    port = re.fullmatch(r"tcp://.*:(\d+)", endpoint)
    if port is not None and int(port.group(1)) > 65535:
        raise ValueError(f"port {port.group(1)} is above 65535")
