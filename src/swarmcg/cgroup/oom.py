"""Whether the kernel's out-of-memory killer ended a main process, and whose limit was hit.

Exit status 137 proves nothing, and oom_kill of the slice counts children too. Two things prove it: the kernel
log names the pid, or the counter rose between the last look with the main process alive and its death.
"""

import contextlib
import errno
import os
import re
import sys
from typing import Final

import msgspec

from swarmcg.bot import Evidence, Reason
from swarmcg.cgroup.files import Cgroup, read_text

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Oom", "OomWatch", "kernel_log"]

_SIGKILL_BIT: Final = 1 << 8
_PF_EXITING: Final = 0x4
_INITIAL_PID_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO (include/linux/proc_ns.h); pids in the kernel log are this namespace's."""

_KILLED: Final = re.compile(r"(Memory cgroup out of memory|Out of memory): Killed process (\d+) ")
_SUMMARY: Final = re.compile(r"oom-kill:.*?(?:oom_memcg=(?P<memcg>[^,]*),)?task_memcg=.*?,pid=(?P<pid>\d+),")


class Oom(msgspec.Struct, frozen=True):
    """The verdict on one main process's death."""

    reason: Reason
    evidence: Evidence


class OomWatch:
    """Watches one slice from before its start. For one thread."""

    def __init__(self, path: str) -> None:
        self._slice: Final = Cgroup(path)
        self._counted: Final = self._slice.files.look("memory_events") is not None
        # The slice's counter asks for theirs; without it the log names whose limit it was, or nobody knows.
        self._ancestors: Final = (
            [(above, _local_ooms(above)) for above in _ancestors(path)] if self._counted else []
        )
        self._seen = 0

    def look(self, pid: int) -> None:
        """Notes the counter, if the main process is alive; to be called whenever memory.events changes.

        The kernel counts before it sends SIGKILL (mm/oom_kill.c, Linux 6.1), so a process with that signal
        pending or on its way out is not alive.
        """
        if not self._counted:
            return
        count = self._kills()
        if not _doomed(pid):
            self._seen = count

    def verdict(self, pid: int, since: float) -> Oom | None:
        """Whether the main process, found dead by SIGKILL, was the victim. ``since``: its start, on the
        monotonic clock.
        """
        counted = self._slice.files.look("memory_events")
        if counted is not None and not self._kills():
            return None  # nothing was killed here; without a counter there may still be a log
        found = kernel_log(pid, since)
        if found is not None:
            return Oom(self._whose(*found), "kmsg")
        if self._kills() > self._seen and not _log_covers(since):
            return Oom(self._whose(None, memcg=True), "counter")
        return None

    def starved(self) -> Reason | None:
        """Whose limit was hit when something was killed for want of memory here; None when nothing was. For a slice in
        which one process alone has lived.
        """
        return self._whose(None, memcg=True) if self._kills() else None

    def _kills(self) -> int:
        events = self._slice.files.look("memory_events") or {}
        return int(events.get("oom_kill", 0))

    def _whose(self, limit: str | None, memcg: bool) -> Reason:
        """Whose limit was hit: the path that the log names, or the counter of out-of-memory events that rose."""
        if not memcg:
            return "oom-host"
        if limit is not None:
            return (
                "oom-own-limit"
                if os.path.basename(self._slice.directory) in limit.split("/")
                else "oom-ancestor"
            )
        # memory.events counts the limits of the slice and of every cgroup that the bot made below it.
        if (self._slice.files.look("memory_events") or {}).get("oom"):
            return "oom-own-limit"
        return (
            "oom-ancestor"
            if any(_local_ooms(path) > before for path, before in self._ancestors)
            else "oom-host"
        )


def kernel_log(pid: int, since: float) -> tuple[str | None, bool] | None:
    """What the kernel log says of an out-of-memory kill of this process: the cgroup whose limit was hit, if
    it is named, and whether it was a cgroup's limit at all. None when the log does not name the process, or
    cannot be read.
    """
    if _pid_namespace() != _INITIAL_PID_NAMESPACE:
        return None
    limits: dict[int, str] = {}
    found = None
    for at, text in _records():
        if at < since - 1:
            continue
        if summary := _SUMMARY.search(text):
            limits[int(summary["pid"])] = summary["memcg"] or ""
        if (killed := _KILLED.search(text)) and int(killed[2]) == pid:
            found = limits.get(pid) or None, killed[1].startswith("Memory cgroup")
    return found


def _log_covers(since: float) -> bool:
    """Whether the kernel log can be read and goes back to before a start, so that its silence is a proof.

    The kernel logs a victim before that can get rid of its memory: __oom_kill_process() holds the task's lock
    over both signal and message (mm/oom_kill.c, Linux 6.1). So a dead process that is not named was no victim.
    """
    if _pid_namespace() != _INITIAL_PID_NAMESPACE:
        return False
    return any(at < since - 1 for at, _ in _records())


def _records() -> list[tuple[float, str]]:
    """Everything in the kernel's log buffer: seconds since boot, and text. Empty when this user may not read
    it.
    """
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return list(_read_records(fd))
    finally:
        os.close(fd)


def _read_records(fd: int) -> "list[tuple[float, str]]":
    records: list[tuple[float, str]] = []
    while True:
        try:
            record = os.read(fd, 8192).decode(errors="replace")
        except BlockingIOError:
            return records
        except OSError as e:
            if (
                e.errno == errno.EPIPE
            ):  # a record was overwritten while we read; the next read goes on after it
                continue
            return records
        if not record:  # containers may have put /dev/null in its place
            return records
        head, _, text = record.partition(";")
        fields = head.split(",")
        if len(fields) > 2 and fields[2].isdigit() and _by_kernel(fields[0]):  # noqa: PLR2004  priority, sequence, microseconds, flags
            records.append((int(fields[2]) / 1e6, text))


def _by_kernel(priority: str) -> bool:
    """Whether the kernel wrote the record: what a process writes to /dev/kmsg never has facility 0
    (kernel/printk/printk.c, devkmsg_write, Linux 6.1).
    """
    return priority.isdigit() and int(priority) < 8  # noqa: PLR2004  facility * 8 + level


def _pid_namespace() -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return None


def _doomed(pid: int) -> bool:
    """Whether a process is dead, dying, or has SIGKILL waiting for it."""
    try:
        status = read_text(f"/proc/{pid}/status")
        flags = int(read_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return True
    pending = [
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd:", "ShdPnd:"))
    ]
    state = next((line.split()[1] for line in status.splitlines() if line.startswith("State:")), "X")
    return state in "ZX" or bool(flags & _PF_EXITING) or any(mask & _SIGKILL_BIT for mask in pending)


def _ancestors(path: str) -> list[str]:
    """The cgroups above, nearest first, up to the mount."""
    found = []
    path = os.path.dirname(path)
    while os.path.exists(f"{path}/cgroup.procs"):
        found.append(path)
        path = os.path.dirname(path)
    return found


def _local_ooms(path: str) -> int:
    """How often the limit of this very cgroup was hit; 0 where the kernel does not count it."""
    events = Cgroup(path).files.look("memory_events_local") or {}
    return int(events.get("oom", 0))
