"""The parent of the bots: forks them, reaps them, and tells whoever owns them. Decides nothing."""

import contextlib
import errno
import json
import os
import select
import signal
import sys
import time

from swarmcg.keeper.refusal import fork_refused_by
from swarmcg.keeper.spawn import Birth, Order, birth, ignored_signals, start_time

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Tell = Callable[[dict[str, Any], list[int]], None]

__all__ = ["Keeper", "write_attribute"]


class Child:
    """One main process of a bot, from its fork until it is reaped."""

    def __init__(self, key: str, slice_fd: "int | None", born: Birth, pidfd: int) -> None:
        self.key = key
        self.slice_fd = slice_fd
        self.born = born
        self.pidfd = pidfd


class Keeper:
    """Children of one home. For one thread; no other thread may exist in its process. Which signals the process
    ignores may not change any more.

    ``tell`` is called with each event and its descriptors, from :meth:`spawn` or :meth:`dispatch`:

    - ``started`` {key, pid, start_time}: the program was executed; with a pidfd, which the callee owns.
    - ``failed`` {key, step, errno, cause, path}: nothing runs; the child, if there was one, is reaped.
    - ``ended`` {key, exit_code, signal, at, monotonic}: the main process is reaped, and had ended at that time since
      1970, and of the monotonic clock. Its slice may still hold others.

    State is in the slice before it is told: the attribute ``running`` before the program is executed,
    ``exit`` before the process is reaped. So whoever takes over from a dead owner finds both.
    """

    def __init__(self, tell: "Tell") -> None:
        self._tell = tell
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._children: dict[str, Child] = {}
        self._ignored = ignored_signals()

    def fileno(self) -> int:
        """A descriptor that polls readable when :meth:`dispatch` has something to do."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Forgets everything; children that still run go on."""
        for fd in list(self._watched):
            self._unwatch(fd)
        for child in self._children.values():
            os.close(child.pidfd)
        self._children.clear()
        self._epoll.close()

    def __len__(self) -> int:
        return len(self._children)

    def pidfd(self, key: str) -> "int | None":
        """The descriptor of a main process that is not reaped, and so will be told of; None when there is none."""
        child = self._children.get(key)
        return None if child is None else child.pidfd

    def spawn(self, key: str, order: Order, slice_fd: "int | None") -> None:
        """Starts ``order`` in the slice whose directory ``slice_fd`` is; the outcome is told. Takes no
        descriptor over.

        The keeper uses ``slice_fd`` until the child is reaped. It is None for a helper of the bot, whose
        state nobody needs.
        """
        try:
            born = birth(order, self._ignored)
        except OSError as e:
            cause, path = fork_refused_by() if e.errno == errno.EAGAIN else (None, None)
            self._tell(
                {
                    "event": "failed",
                    "key": key,
                    "step": "fork",
                    "errno": e.errno,
                    "cause": cause,
                    "path": path,
                },
                [],
            )
            return
        try:
            self._hold(key, born, slice_fd)
        except OSError as e:
            self._abort(born)
            self._tell(
                {
                    "event": "failed",
                    "key": key,
                    "step": "keep",
                    "errno": e.errno,
                    "cause": None,
                    "path": None,
                },
                [],
            )

    def dispatch(self) -> None:
        """Handles every event that is pending now. Does not block."""
        for fd, _ in self._epoll.poll(0):
            handle = self._watched.get(fd)
            if handle is not None:
                handle()

    def _hold(self, key: str, born: Birth, slice_fd: "int | None") -> None:
        started = start_time(born.pid)
        if slice_fd is not None:
            # By hand: json uses 40 pages, and until the child has executed each that we touch is copied first.
            record = b'{"pid": %d, "start_time": %d, "at": %f, "monotonic": %f}' % (
                born.pid,
                started,
                time.time(),
                time.monotonic(),
            )
            _set_attribute(slice_fd, "running", record)
        child = Child(key, slice_fd, born, os.pidfd_open(born.pid))
        try:
            self._watch(born.errors, lambda: self._settle(child, started))
        except OSError:
            os.close(child.pidfd)
            raise
        self._children[key] = child
        born.release()

    def _abort(self, born: Birth) -> None:
        os.kill(born.pid, signal.SIGKILL)
        os.waitpid(born.pid, 0)
        born.release()
        os.close(born.errors)

    def _settle(self, child: Child, started: int) -> None:
        """The error pipe spoke: the program runs, or a step failed."""
        self._unwatch(child.born.errors)
        trouble = child.born.trouble()
        if trouble is None:
            told = {"event": "started", "key": child.key, "pid": child.born.pid, "start_time": started}
            self._tell(told, [os.dup(child.pidfd)])
            # Edge-triggered: a zombie that another process traces is readable, but cannot be reaped before its tracer
            # lets go, which is an event again (kernel/ptrace.c, __ptrace_detach, Linux 6.1).
            self._watch(child.pidfd, lambda: self._reap(child), select.EPOLLIN | select.EPOLLET)
            return
        step, number = trouble
        ended = self._bury(child)
        cause = f"it was ended by signal {ended['signal']}" if ended["signal"] else None
        self._tell(
            {
                "event": "failed",
                "key": child.key,
                "step": step,
                "errno": number,
                "cause": cause,
                "path": None,
            },
            [],
        )

    def _reap(self, child: Child) -> None:
        status = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if status is None:
            return
        self._unwatch(child.pidfd)
        ended = {"at": time.time(), "monotonic": time.monotonic(), **_verdict(status)}
        if child.slice_fd is not None:
            with contextlib.suppress(OSError):  # the owner still learns it; only an heir would not
                write_attribute(child.slice_fd, "exit", ended)
        self._bury(child)
        self._tell({"event": "ended", "key": child.key, **ended}, [])

    def _bury(self, child: Child) -> "dict[str, Any]":
        status = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        os.close(child.pidfd)
        del self._children[child.key]
        assert status is not None  # noqa: S101  without WNOHANG there is always a status
        return _verdict(status)

    def _watch(self, fd: int, handle: "Callable[[], None]", events: int = select.EPOLLIN) -> None:
        self._epoll.register(fd, events)  # first: what raises is not watched
        self._watched[fd] = handle

    def _unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._epoll.unregister(fd)


def write_attribute(slice_fd: int, name: str, value: "dict[str, Any]") -> None:
    """Keeps a part of a slice's state on its directory: ``trusted.`` attributes as root, ``user.`` ones
    otherwise.

    Both kinds vanish with the directory. cgroupfs has user attributes since Linux 5.7, trusted ones since
    3.7.
    """
    _set_attribute(slice_fd, name, json.dumps(value).encode())


def _set_attribute(slice_fd: int, name: str, text: bytes) -> None:
    try:
        os.setxattr(slice_fd, f"trusted.swarmcg.{name}", text)
    except PermissionError:
        os.setxattr(slice_fd, f"user.swarmcg.{name}", text)


def _verdict(status: "Any") -> "dict[str, Any]":
    exited = status.si_code == os.CLD_EXITED
    return {
        "exit_code": status.si_status if exited else None,
        "signal": None if exited else status.si_status,
    }
