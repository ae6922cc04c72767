"""Clients of the neighbouring servers: camera server, Multi Device Server (MDS), and what follows them."""

from baldr_tango.peers.camera import CameraClient
from baldr_tango.peers.camera_monitor import CameraMonitor, CameraState, camera_monitor
from baldr_tango.peers.connection import Connection, connection, health
from baldr_tango.peers.control import ControlClient
from baldr_tango.peers.health import ConnectionCounters, Health, PeerState
from baldr_tango.peers.mds import MdsClient
from baldr_tango.peers.operation import CancelledOperationError, Operation, Progress
from baldr_tango.peers.pending import LostConnectionError, NoReplyError

__all__ = [
    "CameraClient",
    "CameraMonitor",
    "CameraState",
    "CancelledOperationError",
    "Connection",
    "ConnectionCounters",
    "ControlClient",
    "Health",
    "LostConnectionError",
    "MdsClient",
    "NoReplyError",
    "Operation",
    "PeerState",
    "Progress",
    "camera_monitor",
    "connection",
    "health",
]
