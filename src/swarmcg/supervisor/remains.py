"""What a slice tells of itself to whoever takes it over, and the removal of one that tells nothing."""

import contextlib
import errno
import functools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from swarmcg.cgroup.files import read_text
from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.names import is_slice_name, slice_name
from swarmcg.cgroup.recorded import Count, ExitCode, Moment, Pid, SignalNumber, tellable
from swarmcg.cgroup.slice import Slice, recall
from swarmcg.errors import CgroupError, ConfigError
from swarmcg.keeper.spawn import start_time
from swarmcg.supervisor.incarnation import Intent, Main

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "erase",
    "exit_of",
    "intent_of",
    "main_of",
    "owner_of",
    "record_owner",
    "recordable",
    "work_directories",
]

_ERASE_S: Final = 10.0
_WANT: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def intent_of(held: Slice) -> Intent | None:
    """What was recorded at the making; None when the maker died before it could, or somebody garbled it: what it says
    of whose slice it is must be what the directory's name says, which nobody can change.
    """
    with contextlib.suppress(msgspec.ValidationError):
        intent = msgspec.convert(held.recall("intent"), Intent)
        told = intent.bot_id, intent.limits, intent.unenforced
        if tellable(told) and slice_name(intent.bot_id, intent.incarnation) == os.path.basename(held.path):
            return intent
    return None


def recordable(intent: Intent) -> dict[str, Any]:
    """What is recorded at the making, once it is known that :func:`intent_of` will take it for what it is.

    Raises ConfigError for one that nobody could read back: who ends the bot would not know how, nor where to report it.
    """
    record: dict[str, Any] = msgspec.to_builtins(intent)
    try:
        msgspec.convert(record, Intent)
    except msgspec.ValidationError as e:
        raise ConfigError(
            "The start asks for what cannot be recorded with the slice",
            cause=str(e),
            remedy="Name paths without NUL, and a grace period that ends.",
        ) from e
    return record


def work_directories(top: str | None = None) -> frozenset[str] | None:
    """The work directories that slices anywhere on this host name, owned or not, as far as this user can own them.

    Slices are looked for below ``top``, or in the whole cgroup2 mount. None when there is one that has processes and
    does not tell its intent, since somebody garbled it: it may use any directory. None also when not all could be
    looked at for want of descriptors or memory.
    """
    top = look().mount if top is None else top
    found: set[str] = set()
    try:
        paths = list(_slices(top)) if top is not None else []
    except OSError:
        return None
    for path in paths:
        try:
            intent = msgspec.convert(recall(path, "intent"), Intent)
        except FileNotFoundError:
            continue
        except msgspec.ValidationError:
            if _may_be_ours(path):
                return None
            continue
        if intent.work_directory is not None:
            found.add(intent.work_directory)
    return frozenset(found)


def _slices(top: str) -> Iterator[str]:
    """Every directory below the top that is named as a slice, also those within another one. Raises OSError when we
    lack what it takes to look; one that is gone, or another user's, is left out.
    """
    pending = [top]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                directories = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as e:
            if e.errno in _WANT:
                raise
            continue
        pending.extend(entry.path for entry in directories)
        yield from (entry.path for entry in directories if is_slice_name(entry.name))


def _may_be_ours(path: str) -> bool:
    """Whether a slice without an intent has processes, and this user may have started them."""
    with contextlib.suppress(OSError):
        mine = os.geteuid() in {0, os.stat(path).st_uid}
        return mine and "populated 1" in read_text(f"{path}/cgroup.events").splitlines()
    return False


class Running(msgspec.Struct, frozen=True):
    """The attribute that the keeper writes before the program is executed."""

    pid: Pid
    start_time: Count
    at: Moment
    monotonic: Moment | None = None
    """None by an older keeper."""


class Exit(msgspec.Struct, frozen=True):
    """The attribute that the keeper writes before the main process is reaped."""

    exit_code: ExitCode | None
    signal: SignalNumber | None
    at: Moment
    monotonic: Moment | None = None
    """None by an older keeper."""


class Owner(msgspec.Struct, frozen=True):
    """The attribute that the process writes which holds the slice's lock."""

    pid: Pid
    start_time: Count


def record_owner(held: Slice) -> None:
    """Says on the slice that this process owns it, for whoever looks at it: nothing is decided by it."""
    with contextlib.suppress(OSError):
        held.remember("owner", _owner(os.getpid()))


@functools.cache
def _owner(pid: int) -> dict[str, int]:
    return {"pid": pid, "start_time": start_time(pid)}


def owner_of(held: Slice) -> int | None:
    """The process that owns the slice; None when the one that said so is gone, or somebody garbled it."""
    with contextlib.suppress(msgspec.ValidationError, OSError):
        owner = msgspec.convert(held.recall("owner"), Owner)
        if start_time(owner.pid) == owner.start_time:
            return owner.pid
    return None


def exit_of(held: Slice) -> Exit | None:
    """How the main process ended, as the keeper recorded it; None when it did not, or somebody garbled it."""
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(held.recall("exit"), Exit)
    return None


def main_of(held: Slice, pidfd: int | None = None) -> Main | None:
    """The main process that the keeper recorded, with the pidfd that the keeper still has, which is taken over.

    Without that its pidfd is -1 when that process is gone or the pid is another's now.
    """
    try:
        running = msgspec.convert(held.recall("running"), Running)
    except msgspec.ValidationError:
        if pidfd is not None:
            os.close(pidfd)
        return None  # no bot ran yet, or somebody garbled it
    pid, at = running.pid, running.at
    began = running.monotonic
    main = Main(
        pid=pid, pidfd=-1, at=at, monotonic=time.monotonic() - (time.time() - at) if began is None else began
    )
    if pidfd is not None:
        main.pidfd = pidfd
        return main
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
