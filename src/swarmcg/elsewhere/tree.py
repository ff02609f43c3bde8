"""The processes of a bot as a tree, as far as they can be found without a cgroup.

A process belongs to it when its parent does, or when it is in the bot's session, which it keeps when its parent
dies. A process that makes a session of its own and whose parent has died (a daemon) is not found any more. There is
no event for a fork, so the tree is looked at whenever something is to be done to it.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import psutil

__all__ = ["Seen", "Tree", "members"]


class Seen(NamedTuple):
    """One process in a look at all of them. ``created`` is in seconds since 1970, ``session`` None where it is not
    known.
    """

    pid: int
    parent: int
    created: float
    session: int | None = None


def members(roots: Iterable[tuple[int, float]], seen: Iterable[Seen], session: int | None) -> set[int]:
    """The pids of all processes seen that descend from a root, or are in the session.

    A root is a pid and its time of creation: it may have ended, and still names the parent of its children (Windows
    keeps that) as long as no other process has taken its pid. A child is never older than its parent.
    """
    table = list(seen)
    now = {row.pid: row.created for row in table}
    parents = {pid: created for pid, created in roots if now.get(pid, created) == created}
    found = {
        row.pid for row in table if row.pid in parents or (session is not None and row.session == session)
    }
    parents |= {pid: now[pid] for pid in found}
    grown = True
    while grown:
        more = {
            row.pid
            for row in table
            if row.pid not in found and row.parent in parents and row.created >= parents[row.parent]
        }
        found |= more
        parents |= {pid: now[pid] for pid in more}
        grown = bool(more)
    return found


class Tree:
    """The tree below one main process. For one thread.

    ``own_session`` says that the main process leads a session of its own.
    """

    def __init__(self, pid: int, created: float, *, own_session: bool) -> None:
        self._roots: Final[set[tuple[int, float]]] = {(pid, created)}
        self._session: Final = pid if own_session and sys.platform != "win32" else None

    def add(self, pid: int, created: float) -> None:
        """Counts another process, and what descends from it, as part of the tree."""
        self._roots.add((pid, created))

    def look(self) -> list["psutil.Process"]:
        """Every process of the tree that lives now; what is seen once stays known."""
        running = {seen: process for process, seen in _look()}
        found = members(self._roots, running, self._session)
        self._roots.update((seen.pid, seen.created) for seen in running if seen.pid in found)
        return [process for seen, process in running.items() if seen.pid in found]

    def terminate(self) -> None:
        """SIGTERM to every process; on Windows TerminateProcess, which leaves it no choice."""
        self._each(lambda process: process.terminate())

    def kill(self) -> list[str]:
        """SIGKILL, or TerminateProcess, to every process; the names of those that were there."""
        return self._each(lambda process: process.kill())

    def _each(self, act: Callable[["psutil.Process"], None]) -> list[str]:
        import psutil  # noqa: PLC0415  tens of milliseconds

        names = []
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                names.append(process.name())
                act(process)  # psutil looks whether the pid is still the same process's
        return names


def _look() -> Iterator[tuple["psutil.Process", Seen]]:
    """Every process of this host that can be looked at and is no zombie."""
    import psutil  # noqa: PLC0415  tens of milliseconds

    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            with process.oneshot():
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield process, Seen(pid, process.ppid(), process.create_time(), _session(pid))


if sys.platform == "win32":

    def _session(pid: int) -> int | None:  # noqa: ARG001  the other platforms' signature
        """Windows has no sessions of this kind."""
        return None

else:

    def _session(pid: int) -> int | None:
        try:
            return os.getsid(pid)
        except OSError:
            return None
