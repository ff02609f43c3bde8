"""flock(2) with a bound: another process, whoever it is, may hold a lock for as long as it likes."""

import errno
import fcntl
import os
import sys
import time
from typing import Final

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["WITHIN_S", "hold"]

WITHIN_S: Final = 5.0
_STEP_S: Final = 0.01


def hold(fd: int, how: int, within: float = WITHIN_S) -> None:
    """Takes the lock, waiting for at most ``within`` seconds, with 0 not at all. Raises OSError with EAGAIN
    after that.

    The kernel tells nobody when a flock is released, short of blocking in it, so this asks again and again.
    """
    end = None
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            now = time.monotonic()
            end = now + within if end is None else end
            if now >= end:
                held = (
                    f"another process has held the lock for {within:g} s"
                    if within
                    else "another process holds the lock"
                )
                raise BlockingIOError(errno.EAGAIN, f"{os.strerror(errno.EAGAIN)}: {held}") from None
            time.sleep(_STEP_S)
        else:
            return
