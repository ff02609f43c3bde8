"""One epoll with a handler for each descriptor."""

import select
import sys
from collections.abc import Callable
from typing import Final

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Poll"]


class Poll:
    """Waits for descriptors and calls their handlers. For one thread."""

    def __init__(self) -> None:
        self._epoll: Final = select.epoll()
        self._handlers: Final[dict[int, Callable[[], None]]] = {}

    def close(self) -> None:
        """Forgets everything; the descriptors stay open."""
        self._epoll.close()

    def watch(self, fd: int, handle: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Calls ``handle`` whenever the descriptor polls ready; until :meth:`ignore`. Raises OSError at the kernel's
        limit of watches; then it does not.
        """
        self._epoll.register(fd, events)
        self._handlers[fd] = handle

    def ignore(self, fd: int) -> None:
        """Ends a :meth:`watch`; before the descriptor is closed."""
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def turn(self, timeout: float | None) -> None:
        """Waits for the next event, at most ``timeout`` seconds, and handles all that are there."""
        ready = [(fd, self._handlers[fd]) for fd, _ in self._epoll.poll(timeout)]
        for fd, handle in ready:
            # An earlier handler may have ignored it, or closed it and opened another one of the same number.
            if self._handlers.get(fd) is handle:
                handle()
