"""Clients of the neighbouring servers: camera server and Multi Device Server (MDS)."""

from baldr_tango.peers.camera import CameraClient
from baldr_tango.peers.connection import Connection, ConnectionCounters, connection
from baldr_tango.peers.control import ControlClient
from baldr_tango.peers.mds import MdsClient

__all__ = [
    "CameraClient",
    "Connection",
    "ConnectionCounters",
    "ControlClient",
    "MdsClient",
    "connection",
]
