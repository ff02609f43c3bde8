"""A slice: the cgroup of one incarnation of a bot, from its making to its proven removal.

Always two directories. The outer one carries the limits, the state attributes and the lock, and is frozen and
killed; the processes live in ``main`` below it, so that the rule against internal processes never stands in
the way of a bot that makes cgroups of its own.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from swarmcg.cgroup import device_filter, network
from swarmcg.cgroup.files import Cgroup, cgroup_errors, read_text, read_value, write_line
from swarmcg.errors import CgroupError
from swarmcg.flock import WITHIN_S, hold
from swarmcg.keeper.keeper import write_attribute
from swarmcg.resources import DeviceRules, NetworkPlan, Plan, Step, devices as device_field, settled

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["MODE", "Slice", "packet_rules", "recall"]

MODE: Final = 0o711
"""Of homes and slices: who may not open a directory cannot hold its lock. Files in it may be read by name."""

_LONG_PATH: Final = 2048  # of PATH_MAX, 4,096


class Slice:
    """One slice, held by its owner: the lock on its directory lives as long as somebody has the descriptor
    open.

    Made by :meth:`create`, or by :meth:`adopt` for one that exists. For one thread at a time. After
    :meth:`close` nothing but ``path`` may be used.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path: Final = path
        self.fd: Final = fd
        self.cgroup: Final = Cgroup(path)

    @classmethod
    def create(cls, path: str, intent: dict[str, Any]) -> "Slice":
        """Makes both directories, takes the lock and records the intent; all or nothing.

        Raises CgroupError, or FileNotFoundError when the home vanished meanwhile (make it again).
        """
        with cgroup_errors("The slice could not be made", path):
            try:
                os.mkdir(path, MODE)
            except FileNotFoundError as e:
                raise _HomeVanished from e
        try:
            with cgroup_errors("The slice could not be made", path):
                made = cls._open(path)
        except CgroupError:
            os.rmdir(path)
            raise
        try:
            with cgroup_errors("The slice could not be made", path):
                os.mkdir(f"{path}/main", MODE)
                made.remember("intent", intent)
        except CgroupError:
            made.discard()
            raise
        return made

    @classmethod
    def adopt(cls, path: str) -> "Slice | None":
        """The slice at a path if it has no owner; None if it has one or is gone. The caller owns it then."""
        try:
            return cls._open(path)
        except (BlockingIOError, FileNotFoundError):
            return None

    @staticmethod
    def is_unowned(path: str) -> bool:
        """Whether the slice is there and has no owner now; see the home's ``unowned`` and ``abandoned`` for who may
        ask. Raises OSError when it cannot be opened.
        """
        try:
            fd = _open_directory(path)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may be looking at the same time
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    @classmethod
    def visit(cls, path: str) -> "Slice":
        """The slice at a path, whoever owns it, for a look or under :meth:`changing`. The caller closes it.

        Raises OSError, FileNotFoundError when it is gone.
        """
        return cls(path, _open_directory(path))

    @classmethod
    def _open(cls, path: str) -> "Slice":
        fd = _open_directory(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return cls(path, fd)

    def close(self) -> None:
        """Lets the slice go, as it is."""
        os.close(self.fd)

    @contextlib.contextmanager
    def changing(self, within: float) -> Iterator[None]:
        """Keeps everybody else from changing the slice's limits meanwhile; needs no ownership of the slice.

        The lock is on ``main``, since the owner holds the one on the slice itself, and what takes slices over
        must not wait for an update. Raises OSError: EAGAIN when it is held for longer than ``within`` seconds,
        ENOENT when the slice is gone.
        """
        fd = _open_directory(f"{self.path}/main")
        try:
            hold(fd, fcntl.LOCK_EX, within)
            try:
                yield
            finally:
                # A child that was forked meanwhile may have the descriptor, too.
                fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keeps a part of the state on the slice's directory. Raises OSError."""
        write_attribute(self.fd, name, value)

    def forget(self, name: str) -> None:
        """Drops a part of the state, if it is there. Raises OSError."""
        for attribute in _kept(self.fd).intersection(_attributes(name)):
            try:
                os.removexattr(self.fd, attribute)
            except OSError as e:
                if e.errno not in {errno.ENODATA, errno.EPERM}:
                    raise

    def recall(self, name: str) -> dict[str, Any] | None:
        """What :meth:`remember` or the keeper kept, or None."""
        return recall(self.fd, name)

    def recall_all(self, *names: str) -> list[dict[str, Any] | None]:
        """The same of several names, for one look at which of them there are."""
        return _recalled(self.fd, names)

    def apply(self, plan: Plan) -> dict[str, str]:
        """Writes every step and reads it back, then the device rules and the packet rules; the values in force by
        file, or field.

        Raises CgroupError at the first one that the kernel refuses or takes differently; the caller removes
        the slice.
        """
        limits = {step.file: self._write(step) for step in plan.steps}
        if plan.devices is not None:
            self.apply_devices(plan.devices)
            limits[device_field.FIELD] = str(plan.devices)
        if plan.network is not None:
            self.filter(plan.network)
            limits |= plan.network.limits
        return limits

    def apply_devices(self, rules: DeviceRules | None) -> None:
        """Puts device rules in force in place of those that the slice has, at once and while processes live in
        it; None takes them away. Raises CgroupError; then the earlier ones are in force.
        """
        earlier = self.device_rules()
        device_filter.exchange(self.path, rules)
        try:
            with cgroup_errors("The device rules could not be recorded", self.path):
                if rules is None:
                    self.forget(device_field.FIELD)
                else:
                    self.remember(device_field.FIELD, device_field.recorded(rules))
        except CgroupError:
            device_filter.exchange(self.path, earlier)
            raise

    def device_rules(self) -> DeviceRules | None:
        """The device rules that were put in force last; None when there are none, or somebody garbled it."""
        return device_field.remembered(self.recall(device_field.FIELD))

    def filter(self, rules: NetworkPlan | None) -> None:
        """Puts exactly these packet rules in force and reads them back, or none. Raises CgroupError; then the
        earlier rules are in force, or none.
        """
        with cgroup_errors("The packet rules could not be recorded", self.path):
            if rules is None:
                network.remove(self.path)
                self.forget("network")
            else:
                # First, so that whoever ends the slice knows to look for them.
                self.remember("network", msgspec.to_builtins(rules))
                network.install(rules, self.path)

    def filtered(self) -> NetworkPlan | None:
        """The packet rules that were put in force last; None when there are none, or somebody garbled it: see
        :func:`packet_rules`.
        """
        return packet_rules(self.recall("network"))

    def _write(self, step: Step) -> str:
        path = f"{self.path}/{step.file}"
        with cgroup_errors(f"{step.field} could not be put in force", path, step.value):
            self.cgroup.files.set_property(step.file, step.value)
        return self.confirm(step.field, step.file, step.value)

    def confirm(self, field: str, file: str, value: str) -> str:
        """Reads back what was written. Raises CgroupError when the kernel took it differently."""
        path = f"{self.path}/{file}"
        with cgroup_errors(f"{field} could not be read back", path, value):
            shown = read_value(path)
        return self.accept(field, file, value, shown)

    def accept(self, field: str, file: str, value: str, shown: str) -> str:
        """What a file shows after a write. Raises CgroupError when that is not what was written."""
        if not settled(file, value, shown, page_size=os.sysconf("SC_PAGE_SIZE")):
            raise CgroupError(
                f"{field} was taken differently by the kernel",
                path=f"{self.path}/{file}",
                value=value,
                cause=f"it reads back {shown!r}",
                remedy="Ask for a value that this kernel can hold.",
            )
        return shown

    def procs(self) -> int:
        """An open descriptor of main's cgroup.procs, for a child to join by. The caller closes it."""
        with cgroup_errors("The slice cannot be joined", f"{self.path}/main/cgroup.procs"):
            return os.open(f"{self.path}/main/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def pids(self) -> list[int]:
        """The processes of the slice and of every cgroup below it, as of now; more may be born while it
        reads.
        """
        with contextlib.ExitStack() as held:
            return [pid for directory in self._tree(held) for pid in _pids(directory)]

    def populated(self) -> bool:
        """Whether any process is left in the slice or below it. False also when the slice is gone."""
        return self._event("populated")

    def frozen(self) -> bool:
        """Whether every process of the slice is frozen by now."""
        return self._event("frozen")

    def _event(self, key: str) -> bool:
        return bool(self.events().get(key))

    def events(self) -> dict[str, int]:
        """What cgroup.events says now: ``populated`` and ``frozen``, each 0 or 1. Empty when the slice is gone."""
        try:
            events: dict[str, int] = self.cgroup.files.events
        except FileNotFoundError:
            return {}
        return events

    def freeze(self) -> None:
        """Asks the kernel to freeze all; :meth:`frozen` tells when it has. Raises OSError."""
        write_line(f"{self.path}/cgroup.freeze", "1")

    def thaw(self) -> None:
        """Lets all go on, also in cgroups below that the bot froze by itself."""
        with contextlib.ExitStack() as held:
            for directory in self._tree(held):
                try:
                    write_line(f"{directory}/cgroup.freeze", "0")
                except OSError as e:
                    # ENODEV when it was removed between open and write (cgroup_kn_lock_live(), Linux 6.1): the bot
                    # makes and removes cgroups.
                    if e.errno not in {errno.ENOENT, errno.ENODEV}:
                        raise

    def can_kill(self) -> bool:
        """Whether this kernel kills whole cgroups (cgroup.kill, since Linux 5.14)."""
        return os.path.exists(f"{self.path}/cgroup.kill")

    def kill(self) -> None:
        """Kills every process at once, frozen, stopped and forking ones included. Raises OSError."""
        write_line(f"{self.path}/cgroup.kill", "1")

    def end_all(self) -> None:
        """Kills every process by the means of this kernel; newborns of a forking slice may need another call
        without cgroup.kill.
        """
        if self.can_kill():
            self.kill()
            return
        self.freeze()
        try:
            self.signal(signal.SIGKILL)
        finally:
            self.thaw()

    def wait_empty(self, timeout: float) -> bool:
        """Waits until no process is left, at most ``timeout`` seconds; whether that is so."""
        fd = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            end = time.monotonic() + timeout
            while b"populated 1" in os.pread(fd, 4096, 0) and (left := end - time.monotonic()) > 0:
                poll.poll(left * 1000)
            return b"populated 0" in os.pread(fd, 4096, 0)
        finally:
            os.close(fd)

    def signal(self, *numbers: int) -> None:
        """Sends the signals to every process of the slice, through pidfds, to none outside.

        In a frozen slice nobody is missed; in one that forks meanwhile newborns may be.
        """
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._signal(pid, numbers)

    def _signal(self, pid: int, numbers: Iterable[int]) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            # The pid may have been used anew between the listing and pidfd_open: look again, now that it is
            # held.
            if self.holds(pid):
                for number in numbers:
                    signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)

    def holds(self, pid: int) -> bool:
        """Whether the process is in this slice now."""
        try:
            where = read_text(f"/proc/{pid}/cgroup")
        except (FileNotFoundError, ProcessLookupError):
            return False
        except OSError as e:
            # The kernel cannot say a path beyond PATH_MAX (proc_cgroup_show, Linux 6.1); only a bot nests that deep.
            if e.errno == errno.ENAMETOOLONG:
                return True
            raise
        own = "/" + os.path.basename(self.path)
        paths = [line.split(":", 2)[2] for line in where.splitlines() if line.startswith("0::")]
        return any(f"{own}/" in f"{path}/" for path in paths)

    def remove(self, within: float = WITHIN_S) -> None:
        """Removes the packet rules, the slice and every cgroup below it, and lets it go. Raises CgroupError
        while it is populated, or somebody else changes packet rules for longer than ``within`` seconds.
        """
        if self.recall("network") is not None:
            network.remove(self.path, within)
        with cgroup_errors("The slice could not be removed", self.path, remedy="End what still lives in it."):
            if not self._remove_bare():
                self._remove_tree()
        self.close()

    def discard(self, within: float = WITHIN_S) -> None:
        """The same for a slice in which nothing ran and that cannot be used after all: one that resists is let go as it
        is, and found by clean as any without an owner. Raises nothing, so that the caller's own error is told.
        """
        try:
            self.remove(within)
        except (CgroupError, OSError):
            self.close()

    def _remove_bare(self) -> bool:
        """Removes a slice that has no cgroups but its own two, as most have; whether it was one."""
        try:
            os.rmdir(f"{self.path}/main")
            os.rmdir(self.path)
        except OSError:  # the longer way tells what is wrong
            return False
        return True

    def _remove_tree(self) -> None:
        with contextlib.ExitStack() as held:
            for directory in reversed(list(self._tree(held))):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(directory)

    def _tree(self, held: contextlib.ExitStack) -> Iterator[str]:
        """The slice and every cgroup below it, parents first; the names hold good for as long as ``held``."""
        pending = [self.path]
        while pending:
            directory = pending.pop()
            yield directory
            with contextlib.suppress(FileNotFoundError):
                pending.extend(_below(_shortened(directory, held)))


def recall(directory: int | str, name: str) -> dict[str, Any] | None:
    """A part of the state that is kept on a slice, be it held or not. None where there is none, or it was garbled:
    a bot of our own user may write it. Raises FileNotFoundError.
    """
    return _recalled(directory, (name,))[0]


def packet_rules(kept: dict[str, Any] | None) -> NetworkPlan | None:
    """The packet rules that are kept as the attribute ``network``; None when there are none, or somebody garbled it:
    then they count as not recorded.

    What is in force stays so then: the kernel's own table is not asked for it. An update that gives packet rules
    replaces it whole; one that only takes rules away finds none. It goes with the slice, whose removal looks for rules
    wherever the attribute is there and says anything, and else as any orphan's: with the next start or end that has
    packet rules, or by clean.
    """
    with contextlib.suppress(msgspec.ValidationError):
        return msgspec.convert(kept, NetworkPlan | None)
    return None


def _recalled(directory: int | str, names: Iterable[str]) -> list[dict[str, Any] | None]:
    kept = _kept(directory)
    return [_first(directory, [found for found in _attributes(name) if found in kept]) for name in names]


def _first(directory: int | str, attributes: Iterable[str]) -> dict[str, Any] | None:
    for attribute in attributes:
        try:
            found = json.loads(os.getxattr(directory, attribute))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _attributes(name: str) -> tuple[str, str]:
    """Where :func:`swarmcg.keeper.keeper.write_attribute` keeps it: as root, and otherwise."""
    return f"trusted.swarmcg.{name}", f"user.swarmcg.{name}"


def _kept(directory: int | str) -> frozenset[str]:
    """The attributes that count: those of the user can be written by whoever owns the directory, so they count on
    directories of our own alone. Trusted ones are listed for root. Raises FileNotFoundError.
    """
    try:
        listed = frozenset(os.listxattr(directory))
    except FileNotFoundError:
        raise
    except OSError:  # the file system has none
        return frozenset()
    untrusted = {name for name in listed if name.startswith("user.swarmcg.")}
    if untrusted and os.stat(directory).st_uid != os.geteuid():
        return listed - untrusted
    return listed


class _HomeVanished(Exception):  # noqa: N818  never leaves this room
    """The home was removed between looking and making."""


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _shortened(directory: str, held: contextlib.ExitStack) -> str:
    """Another name for the directory where its own grows long: a bot can nest cgroups deeper than a path can say."""
    if len(directory) <= _LONG_PATH:
        return directory
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    held.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _below(directory: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except PermissionError:
        # Rootless, and the bot took our rights away from a cgroup that belongs to the same user: take them
        # back.
        os.chmod(directory, stat.S_IRWXU)
        return [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]


def _pids(directory: str) -> list[int]:
    try:
        pids = [int(line) for line in read_text(f"{directory}/cgroup.procs").splitlines()]
    except OSError as e:
        # A threaded cgroup does not list processes; the domain above it lists them all.
        if e.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            return []
        raise
    return [pid for pid in pids if pid]  # 0 stands for a process of another pid namespace
