"""A request as a ROUTER socket receives it, and the way back to its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import zmq

from legacy_zmq.protocol import MAX_REQUEST_BYTES

_READABLE: Final = int(zmq.POLLIN)


@dataclass
class Request:
    """One request."""

    route: list[bytes]
    """The client's identity and its envelope up to the delimiter: where the reply goes."""
    payload: bytes
    source: str
    """Network address of the client, or empty."""
    refusal: str = ""
    """Why the request is not even looked at, or empty."""


def read_request(socket: zmq.Socket[bytes]) -> Request | None:
    """Take one request from a ROUTER socket, or None when there is none.

    After the identity come the frames of the client's envelope up to the first empty one, as REQ
    sends them and REP returns them, then the content, of which the last frame counts. A DEALER that
    leaves the delimiter out gets its reply without one. A content longer than `MAX_REQUEST_BYTES` is
    not copied.
    """
    # Unlike an attempt to receive, this question does not hand the interpreter over to another thread.
    if not int(socket.getsockopt(zmq.EVENTS)) & _READABLE:
        return None
    identity, frames = socket.recv(zmq.NOBLOCK), socket.recv_multipart(zmq.NOBLOCK, copy=False)
    behind = next((i for i, frame in enumerate(frames, 1) if len(frame) == 0), 0)
    route = [identity, *(frame.bytes for frame in frames[:behind])]
    content = frames[behind:]
    length = sum(len(frame) for frame in content)
    if length > MAX_REQUEST_BYTES:
        refusal = f"request of {length} bytes is too long; at most {MAX_REQUEST_BYTES} are accepted"
        return Request(route, b"", _address(frames[-1]), refusal)
    return Request(route, content[-1].bytes if content else b"", _address(frames[-1]))


def _address(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:  # a transport without addresses
        return ""
