"""A bounded queue between two threads that keeps the newest items, or makes the producer wait."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["NewestQueue"]

T = TypeVar("T")


class NewestQueue(Generic[T]):
    """Passes items from one thread to another in bounded memory.

    Args:
        capacity: items held at most.
        lossless: `put` waits for room; otherwise it removes the oldest item, which `lost` counts.
    """

    def __init__(self, capacity: int, *, lossless: bool = False) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._lossless = lossless
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self.closed = False
        self.lost = 0

    def put(self, item: T) -> None:
        """Add an item; dropped where the queue is closed."""
        with self._changed:
            while self._lossless and len(self._items) >= self._capacity and not self.closed:
                self._changed.wait()
            if self.closed:
                return
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.lost += 1
            self._items.append(item)
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def get(self, timeout_s: float | None = None) -> T | None:
        """Remove the oldest item; None after `timeout_s` without one, or where the queue is closed and empty."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._items and not self.closed:
                rest_s = None if until_s is None else until_s - time.monotonic()
                if rest_s is not None and rest_s <= 0:
                    return None
                self._changed.wait(rest_s)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def clear(self) -> None:
        """Remove every item; they do not count as lost."""
        with self._changed:
            self._items.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Accept no more items and wake every waiting thread; items that are left can still be taken."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` after every item and at the end, in the producer's thread, while the block runs."""
        with self._changed:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)
