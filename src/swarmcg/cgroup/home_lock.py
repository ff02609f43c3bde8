"""The lock of a home, which no other user can hold.

flock(2) asks for nothing but an open descriptor. A directory of ours can be opened by its user and root alone; one of
mode 0755, as systemd and mkdir(1) make it, by everybody, also before anybody could change its mode. There the lock is
on a cgroup of its own in the home, closed to others from the moment that it is made.
"""

import contextlib
import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from swarmcg.cgroup.files import cgroup_errors
from swarmcg.flock import WITHIN_S, hold

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["locked", "looking", "tidy"]

_NAME: Final = "swarmcg.lock"
_MODE: Final = 0o700
_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


@contextlib.contextmanager
def locked(home: str, how: int, within: float = WITHIN_S) -> Iterator[None]:
    """Holds the home's lock, waiting for at most ``within`` seconds. For who makes slices.

    Raises OSError: FileNotFoundError when the home is gone, BlockingIOError when the lock was held for too long;
    and CgroupError when what carries it cannot be made for a limit on cgroups.
    """
    fd = _take(home, how, within, _made)
    try:
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def looking(home: str, how: int, within: float = WITHIN_S) -> Iterator[None]:
    """The same for who looks at slices that he has seen there, or takes them over: makes nothing.

    A slice is made under the lock. So where nothing carries one, nobody makes a slice, and none that was seen before
    is still in the making. Raises OSError like :func:`locked`.
    """
    try:
        fd = _take(home, how, within, _carrier)
    except FileNotFoundError:
        os.stat(home)
        yield
        return
    try:
        yield
    finally:
        os.close(fd)


def tidy(home: str) -> bool:
    """Removes what :func:`locked` made in a home, unless somebody uses it; whether it is gone. For a home without
    slices.
    """
    place = f"{home}/{_NAME}"
    try:
        fd = _open(place)
        try:
            hold(fd, fcntl.LOCK_EX, 0)
            if _is(fd, place):
                os.rmdir(place)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _take(home: str, how: int, within: float, place_in: Callable[[str], str]) -> int:
    end = time.monotonic() + within
    while True:
        place = place_in(home)
        fd = _open(place)
        try:
            hold(fd, how, max(0.0, end - time.monotonic()) if within else 0)
            if _is(fd, place):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # it was removed before we had it: the lock of nothing


def _carrier(home: str) -> str:
    """The directory that carries the lock, or would. A home's mode must not change while somebody holds it."""
    return f"{home}/{_NAME}" if os.stat(home).st_mode & _OTHERS else home


def _made(home: str) -> str:
    """The same; makes it if need be."""
    place = _carrier(home)
    if place == home:
        return home
    try:
        os.mkdir(place, _MODE)
        _give(place, os.stat(home).st_uid)
    except FileExistsError:
        pass
    except OSError as e:
        if e.errno != errno.EAGAIN:  # which would look as if somebody held the lock
            raise
        with cgroup_errors("The home's lock cannot be made", place):
            raise
    return place


def _give(place: str, uid: int) -> None:
    """To the home's own user: what root made would keep him out of it."""
    if uid != os.geteuid() == 0:
        os.chown(place, uid, -1)


def _open(place: str) -> int:
    return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _is(fd: int, place: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(place, follow_symlinks=False))
    except FileNotFoundError:
        return False
