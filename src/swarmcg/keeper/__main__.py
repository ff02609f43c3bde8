"""The keeper's process: ``python -I -S …/keeper/__main__.py FD FILES HEIR``, with one end of a socketpair as FD,
the soft limit of open files that bots get as FILES, and a module of ours as HEIR.

Serves its owner's orders until there is no owner, no child and no slice left. When the owner vanishes while
slices are left, an heir is started: an ordinary interpreter that takes the slices over, and does what is to be
done with them. An owner may also leave descriptors and a note to its heir; then one is started in any case.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
import time

if __name__ == "__main__":
    # Last: what else lies there must not stand in for the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from swarmcg.keeper.keeper import Keeper
from swarmcg.keeper.spawn import Order
from swarmcg.keeper.wire import Wire

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_HEIR = (
    "import sys; {package!r} in sys.path or sys.path.insert(0, {package!r}); "
    "from {module} import main; main({fd})"
)
_HEIRS = 3
"""How often an heir is started before the slices are left to ``swarmcg clean``."""
_FAILURES = 10
_PAUSE_S = 0.1
"""So often it is tried again when an heir cannot be started, for want of descriptors or processes say; after such a
pause at first, and then after twice the one before: over 102 s.
"""
_SETTLED_S = 60.0
"""An heir that lived as long does not count: it did not die of what it found."""


class Service:
    """Serves one owner at a time over its wire."""

    def __init__(self, connection: socket.socket, open_files: int, heir: str) -> None:
        self._open_files = open_files
        self._heir = heir
        self._heir_pids: list[int] = []
        self._born = 0.0
        self._kept: list[int] = []
        self._note: dict[str, Any] = {}
        self._wire = Wire(connection)
        self._keeper = Keeper(self._tell)
        self._slices: dict[str, int] = {}
        self._heirs = 0
        self._failures = 0
        self._heir_at: float | None = None
        self._untold: list[tuple[dict[str, Any], list[int]]] = []

    def run(self) -> None:
        """Serves until nothing is left to do."""
        poll = select.poll()
        poll.register(self._keeper, select.POLLIN)
        while True:
            if self._heir_at is None:
                poll.register(self._wire, select.POLLIN | (select.POLLOUT if self._untold else 0))
            ready = {fd for fd, _ in poll.poll(self._timeout_ms())}
            if self._keeper.fileno() in ready:
                self._keeper.dispatch()
            if self._wire.fileno() in ready:
                self._serve()
                self._tell_rest()
            if self._wire.ended and self._heir_at is None:
                poll.unregister(self._wire)
                self._wire.close()
                self._tell_rest()  # to nobody, which closes their descriptors
                self._heir_at = time.monotonic()
            due = self._heir_at is not None and self._heir_at <= time.monotonic()
            if due and not ((self._slices or self._note) and self._bequeath()):
                return

    def _timeout_ms(self) -> "float | None":
        # One more: waking before the deadline would spin.
        return None if self._heir_at is None else max(0.0, self._heir_at - time.monotonic()) * 1000 + 1

    def _serve(self) -> None:
        for message, fds in self._wire.receive():
            if message["do"] == "spawn":
                self._spawn(message, fds)
            elif message["do"] == "forget":
                self._forget(message["key"])
            elif message["do"] == "keep":
                self._keep(message["note"], fds)

    def _keep(self, note: "dict[str, Any]", fds: "list[int]") -> None:
        """Holds these for an heir; an empty note says that none is wanted any more."""
        for fd in self._kept:
            os.close(fd)
        self._note, self._kept = note, fds

    def _forget(self, key: str) -> None:
        slice_fd = self._slices.pop(key, None)  # a keeper that replaces another one does not know its slices
        if slice_fd is not None:
            os.close(slice_fd)

    def _spawn(self, message: "dict[str, Any]", fds: "list[int]") -> None:
        slice_fd = fds.pop() if message["record"] else None
        if slice_fd is not None:
            self._slices[message["key"]] = slice_fd
        procs, *stdio = fds
        order = Order(
            message["argv"],
            message["env"],
            procs=procs,
            cwd=message["cwd"],
            stdio=(stdio[0], stdio[1], stdio[2]),
            oom_score_adj=message["oom_score_adj"],
            open_files=self._open_files,
        )
        self._keeper.spawn(message["key"], order, slice_fd)
        for fd in fds:
            os.close(fd)

    def _tell(self, event: "dict[str, Any]", fds: "list[int]") -> None:
        """Never blocks: an owner that is just giving orders itself, and so takes nothing in, would wait for us."""
        self._untold.append((event, fds))
        self._tell_rest()

    def _tell_rest(self) -> None:
        """In order, as far as the owner takes it in."""
        while self._untold and self._wire_takes():
            event, fds = self._untold.pop(0)
            try:
                self._wire.send(event, fds)
            except OSError:
                pass  # nobody listens: the attributes of the slice say the same to the heir
            finally:
                for fd in fds:
                    os.close(fd)

    def _wire_takes(self) -> bool:
        """Whether an event can be sent, or never will be. A socket that polls writable has room for three quarters
        of its buffer, more than any event takes (unix_writable in net/unix/af_unix.c, Linux 6.1).
        """
        if self._wire.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._wire, select.POLLOUT)
        return bool(poll.poll(0))

    def _bequeath(self) -> bool:
        """Starts an heir and gives it every slice, or tries that again later; False when it has been tried often
        enough.
        """
        if time.monotonic() - self._born > _SETTLED_S:
            self._heirs = 0
        self._heirs += 1
        if self._heirs > _HEIRS:
            return False
        try:
            self._start_heir()
        except OSError:
            self._heirs -= 1
            self._heir_at = time.monotonic() + _PAUSE_S * 2**self._failures
            self._failures += 1
            return self._failures <= _FAILURES
        self._heir_at, self._failures = None, 0
        return True

    def _start_heir(self) -> None:
        """Raises OSError, and has started nothing then."""
        legacy: list[tuple[dict[str, Any], list[int]]] = []
        try:
            self._gather(legacy)
            self._wire = self._heir_wire()
        except OSError:
            for _, fds in legacy:
                for fd in fds:
                    os.close(fd)
            raise
        for event, fds in legacy:
            self._tell(event, fds)

    def _heir_wire(self) -> Wire:
        """The keeper's end of a wire to an heir, which is started here. Raises OSError."""
        self._reap_heirs()
        ours, theirs = socket.socketpair()
        try:
            theirs.set_inheritable(True)
            program = _HEIR.format(package=_PACKAGE, fd=theirs.fileno(), module=self._heir)
            pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", program], os.environ)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._heir_pids.append(pid)
        self._born = time.monotonic()
        return Wire(ours)

    def _gather(self, legacy: "list[tuple[dict[str, Any], list[int]]]") -> None:
        """Adds what an heir is to be told, with copies of the descriptors. Raises OSError, when some were added."""
        for key, slice_fd in self._slices.items():
            pidfd = self._keeper.pidfd(key)
            path = os.readlink(f"/proc/self/fd/{slice_fd}")
            event = {"event": "bequeathed", "key": key, "path": path, "child": pidfd is not None}
            _add(legacy, event, [fd for fd in (slice_fd, pidfd) if fd is not None])
        _add(legacy, {"event": "bequeathed all", "note": self._note}, self._kept)

    def _reap_heirs(self) -> None:
        self._heir_pids = [pid for pid in self._heir_pids if not os.waitpid(pid, os.WNOHANG)[0]]


def _add(legacy: "list[tuple[dict[str, Any], list[int]]]", event: "dict[str, Any]", fds: "list[int]") -> None:
    copies: list[int] = []
    legacy.append((event, copies))
    for fd in fds:
        copies.append(os.dup(fd))  # noqa: PERF401  those before one that fails are there to be closed


def main() -> None:
    """The process, as started by a supervisor."""
    # Its owner's terminal is none of its business; an owner's end is told by the wire, not by a signal.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (most, most)
    )  # two descriptors a bot, and 1,024 is a usual limit
    gc.freeze()  # a look through what is here to stay would copy its pages after every fork
    Service(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]).run()


if __name__ == "__main__":
    main()
