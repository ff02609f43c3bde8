"""What a slice tells of itself to whoever takes it over, and the removal of one that tells nothing."""

import contextlib
import os
import sys
import time
from typing import Annotated, Final

import msgspec

from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import CgroupError
from swarmcg.keeper.spawn import start_time
from swarmcg.supervisor.incarnation import Intent, Main

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["erase", "exit_of", "home_of", "intent_of", "main_of"]

_ERASE_S: Final = 10.0


def home_of(held: Slice) -> Home:
    """The home that a slice was made in, as far as its successor needs it."""
    intent = intent_of(held)
    return Home(path=os.path.dirname(held.path), hierarchy=look(), ours=intent is not None and intent.ours)


def intent_of(held: Slice) -> Intent | None:
    """What was recorded at the making; None when the maker died before it could, or somebody garbled it."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(held.recall("intent"), Intent)
    return None


class Running(msgspec.Struct, frozen=True):
    """The attribute that the keeper writes before the program is executed."""

    pid: Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
    start_time: int
    at: Annotated[float, msgspec.Meta(ge=0, lt=1 << 40)]


class Exit(msgspec.Struct, frozen=True):
    """The attribute that the keeper writes before the main process is reaped."""

    exit_code: int | None
    signal: int | None
    at: float


def exit_of(held: Slice) -> Exit | None:
    """How the main process ended, as the keeper recorded it; None when it did not, or somebody garbled it."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(held.recall("exit"), Exit)
    return None


def main_of(held: Slice) -> Main | None:
    """The main process that the keeper recorded. Its pidfd is -1 when that process is gone or the pid is
    another's now.
    """
    try:
        running = msgspec.convert(held.recall("running"), Running)
    except msgspec.ValidationError:
        return None  # no bot ran yet, or somebody garbled it
    pid, at = running.pid, running.at
    main = Main(pid=pid, pidfd=-1, at=at, monotonic=time.monotonic() - (time.time() - at))
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        if held.holds(pid) and start_time(pid) == running.start_time:
            main.pidfd = pidfd
        else:
            os.close(pidfd)
    return main


def erase(held: Slice) -> None:
    """Kills whatever is in a slice that never got to run its command, and removes it; what resists is left
    for clean.
    """
    try:
        deadline = time.monotonic() + _ERASE_S
        while held.populated() and time.monotonic() < deadline:
            held.end_all()
            held.wait_empty(deadline - time.monotonic())
        held.remove()
    except (CgroupError, OSError):
        held.close()
