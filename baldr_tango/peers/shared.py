"""What a process has only once per address, however many use it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Objects by address, with the number of their users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, tuple[T, int]] = {}

    def acquire(self, address: str, make: Callable[[], T]) -> T:
        """Return the object at `address`, made now if there is none; each call needs one `release`."""
        with self._lock:
            item, users = self._users[address] if address in self._users else (make(), 0)
            self._users[address] = item, users + 1
            return item

    def release(self, address: str, item: T) -> bool:
        """Give up one use; True for the last one, who takes the object down."""
        with self._lock:
            present, users = self._users.get(address, (None, 0))
            if present is item and users > 1:
                self._users[address] = item, users - 1
                return False
            if present is item:
                del self._users[address]
            return True

    def items(self) -> dict[str, T]:
        """The objects in use by address."""
        with self._lock:
            return {address: item for address, (item, _) in self._users.items()}
