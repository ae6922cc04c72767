"""Where this server listens: what names its devices have for a client when there is no database."""

from __future__ import annotations

import struct
from typing import Final

import tango

from baldr_tango.errors import BackendError

_IIOP: Final = 0
"""Tag of a profile with a TCP address."""


def full_name(device: str) -> str:
    """Return the name under which a client in this process finds a device of the same Tango control system.

    Without a database that is a device of this server. A name that says where the device is stays as it is.
    Raises `BackendError` while the server does not listen yet.
    """
    util = tango.Util.instance()
    if "://" in device or (tango.Util._UseDb and not tango.Util._FileDb):
        return device
    host, port = endpoint_of(util.get_dserver_ior(util.get_dserver_device()))
    return f"tango://{host}:{port}/{device}#dbase=no"


def endpoint_of(ior: str) -> tuple[str, int]:
    """Return host and TCP port out of a CORBA object reference ``IOR:...`` (CORBA 3.3, part 2, 7.6.2).

    Raises `BackendError` for text that is none.
    """
    try:
        data = bytes.fromhex(ior.removeprefix("IOR:"))
        order = "<" if data[0] else ">"
        (length,) = struct.unpack_from(f"{order}I", data, 4)
        place = _aligned(8 + length) + 4
        (count,) = struct.unpack_from(f"{order}I", data, place - 4)
        for _ in range(count):
            tag, length = struct.unpack_from(f"{order}II", data, place)
            body = data[place + 8 : place + 8 + length]
            if tag == _IIOP:
                return _iiop(body)
            place = _aligned(place + 8 + length)
    except (ValueError, IndexError, struct.error) as error:
        raise BackendError(f"object reference {ior!r}: {error}") from None
    raise BackendError(f"object reference {ior!r}: no TCP address in it")


def _iiop(body: bytes) -> tuple[str, int]:
    order = "<" if body[0] else ">"
    (length,) = struct.unpack_from(f"{order}I", body, 4)
    host = body[8 : 8 + length].rstrip(b"\0").decode("ascii")
    port_at = 8 + length + length % 2
    (port,) = struct.unpack_from(f"{order}H", body, port_at)
    return host, port


def _aligned(place: int) -> int:
    return (place + 3) // 4 * 4
