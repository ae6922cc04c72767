"""A queue that wakes a thread sleeping in ``zmq.Poller``."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Items from any thread for the one thread that owns a ZMQ socket.

    A ZMQ socket belongs to one thread; its poller watches `fileno` beside the socket.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Descriptor that is readable while items, or a `wake`, are waiting."""
        return self._reader.fileno()

    def put(self, item: T) -> None:
        """Leave an item and wake the owner; after `close` the item is simply kept."""
        self._items.append(item)
        self.wake()

    def wake(self) -> None:
        """Wake the owner without an item."""
        # A full buffer means that the owner is being woken already; a closed one, that it is gone.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def take(self) -> list[T]:
        """Return all items, oldest first; called by the owner only.

        The owner looks at its stop flag after `take` and before it sleeps, or misses the wake-up.
        """
        # Descriptor first, items second: an item that arrives in between wakes the owner again.
        with contextlib.suppress(OSError):
            self._reader.recv(4096)
        items = []
        with contextlib.suppress(IndexError):
            while True:
                items.append(self._items.popleft())
        return items

    def close(self) -> None:
        """Close the descriptors."""
        self._reader.close()
        self._writer.close()
