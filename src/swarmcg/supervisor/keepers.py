"""How a supervisor reaches the keeper: in its own process, or in one that it starts and talks to."""

import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from swarmcg.errors import StartError
from swarmcg.keeper import __main__ as keeper_program
from swarmcg.keeper.keeper import Keeper
from swarmcg.keeper.spawn import Order
from swarmcg.keeper.wire import Wire

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Estate", "Keepers", "OwnKeeper", "Pauses", "RemoteKeeper", "Tell"]

_OPEN_FILES: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit that bots get: ours, before a supervisor raises its own."""

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 30.0
_SETTLED_S: Final = 60.0
"""A keeper that lived as long did not die of what keeps a new one from starting."""

Tell = Callable[[dict[str, Any], list[int]], None]
"""Called with each event of a keeper and its descriptors, which the callee owns; see :class:`Keeper`."""


class Estate:
    """What a keeper holds for its owner's heir beside the slices: ``note`` and descriptors, which stay the owner's.

    ``heir`` is the module whose ``main`` takes it over; without a note one is started only where slices are left.
    ``open_files`` is the soft limit that bots get.
    """

    def __init__(
        self,
        heir: str = "swarmcg.supervisor.heir",
        note: dict[str, Any] | None = None,
        fds: Sequence[int] = (),
        open_files: int = _OPEN_FILES,
    ) -> None:
        self.heir: Final = heir
        self.open_files: Final = open_files
        self.note: Final = note or {}
        self.fds: Final = tuple(fds)


class Keepers(Protocol):
    """What both have in common. For one thread."""

    def fileno(self) -> int:
        """A descriptor that polls readable when :meth:`dispatch` has something to do."""
        ...

    def dispatch(self) -> None:
        """Handles what is pending; does not block."""
        ...

    def spawn(self, key: str, order: Order, slice_fd: int | None) -> None:
        """Starts the order; the outcome is told."""
        ...

    def forget(self, key: str) -> None:
        """The slice is gone."""
        ...

    def restart(self) -> OSError | None:
        """After it was lost: a new one in its place, with another descriptor; what kept it from being started.

        Until it could be, :meth:`spawn` raises StartError with that reason.
        """
        ...

    def release(self) -> None:
        """No heir is wanted any more."""
        ...

    def close(self) -> None:
        """Lets the keeper go."""
        ...


class OwnKeeper:
    """The keeper inside a process that has one thread, as ``swarmcg run`` has."""

    def __init__(self, tell: Tell) -> None:
        self._keeper: Final = Keeper(tell)
        self.fileno = self._keeper.fileno
        self.dispatch = self._keeper.dispatch
        self.spawn = self._keeper.spawn
        self.close = self._keeper.close

    def forget(self, key: str) -> None:
        """Nothing to do: the slice's descriptor is the supervisor's own."""

    def restart(self) -> OSError | None:
        """Nothing to do: it cannot be lost without its process."""
        return None

    def release(self) -> None:
        """Nothing to do: it has no heir."""


class RemoteKeeper:
    """A keeper process of our own: small, and so cheap to fork. ``lost`` is called when it died without being
    told to.

    With a ``wire`` it is a keeper that runs already and was somebody else's before.
    """

    def __init__(
        self, tell: Tell, lost: Callable[[], None], wire: Wire | None = None, estate: Estate | None = None
    ) -> None:
        self._tell: Final = tell
        self._lost: Final = lost
        self._estate: Final = estate or Estate()
        self._trouble: OSError | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire
        if wire is None:
            self._process, self._wire = _start(self._estate)
        else:
            self._wire = wire

    def fileno(self) -> int:
        """See :class:`Keepers`."""
        return self._wire.fileno()

    def dispatch(self) -> None:
        """See :class:`Keepers`; a keeper that died is told as lost."""
        for event, fds in self._wire.receive():
            self._tell(event, fds)
        if self._wire.ended:
            self._lost()

    def restart(self) -> OSError | None:
        """Puts a new keeper in the place of one that was lost; :meth:`fileno` changes, and is -1 without one."""
        self.close()
        self._process = None
        try:
            self._process, self._wire = _start(self._estate)
        except OSError as e:
            self._trouble = e
        else:
            self._trouble = None
        return self._trouble

    def spawn(self, key: str, order: Order, slice_fd: int | None) -> None:
        """See :class:`Keepers`."""
        assert order.stdio is not None  # noqa: S101  a service never inherits ours
        if self._trouble is not None:
            raise _no_keeper(self._trouble)
        message = {
            "do": "spawn",
            "key": key,
            "argv": order.argv,
            "env": order.env,
            "cwd": order.cwd,
            "oom_score_adj": order.oom_score_adj,
            "record": slice_fd is not None,
        }
        fds = [order.procs, *order.stdio] + ([] if slice_fd is None else [slice_fd])
        try:
            self._wire.send(message, fds)
        except OSError as e:
            raise StartError(
                "The keeper could not be told to start the command",
                step="keeper",
                errno=e.errno,
                cause="it died or is out of descriptors",
                remedy="Start again: a new keeper takes its place.",
            ) from e

    def forget(self, key: str) -> None:
        """See :class:`Keepers`."""
        try:
            self._wire.send({"do": "forget", "key": key})
        except OSError:
            return  # it died; dispatch finds out

    def release(self) -> None:
        """See :class:`Keepers`."""
        with contextlib.suppress(OSError):
            self._wire.send({"do": "keep", "note": {}})

    def close(self) -> None:
        """Ends the connection; a keeper without slices exits at once, and is waited for."""
        self._wire.close()
        if self._process is None:
            return
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            # It has slices left and brings them to an heir, or the machine is busy. Whichever of us ends first.
            threading.Thread(target=self._process.wait, name="keeper's end", daemon=True).start()


class Pauses:
    """How long the next try to start a keeper has to wait: not at all for one whose predecessor had lived for a while,
    then longer and longer. Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._tries = 0
        self._last = float("-inf")

    def next(self, now: float) -> float:
        """The pause before the next try, which is taken for made when it is over."""
        if now - self._last > _SETTLED_S:
            self._tries = 0
        pause = min(_FIRST_PAUSE_S * 2 ** (self._tries - 1), _LONGEST_PAUSE_S) if self._tries else 0.0
        self._tries += 1
        self._last = now + pause
        return pause


def _no_keeper(e: OSError) -> StartError:
    return StartError(
        "The command could not be started: the keeper died, and a new one cannot be started yet",
        step="keeper",
        path=e.filename,
        errno=e.errno,
        remedy="Start again when that limit is raised (open files, processes, memory), or fewer bots run.",
    )


def _start(estate: Estate) -> tuple["subprocess.Popen[bytes]", Wire]:
    """Raises OSError, and leaves nothing then."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    try:
        with theirs:
            process = _keeper(estate, theirs)
        with contextlib.suppress(BrokenPipeError):  # it died already, as who listens to it finds out
            if estate.note:
                wire.send({"do": "keep", "note": estate.note}, estate.fds)
    except BaseException:
        wire.close()
        raise
    return process, wire


def _keeper(estate: Estate, theirs: socket.socket) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            keeper_program.__file__,
            str(theirs.fileno()),
            str(estate.open_files),
            estate.heir,
        ],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # whoever reads our output must not wait for the keeper's end
        cwd="/",
        env={name: value for name, value in os.environ.items() if name.startswith("SWARMCG_")},
    )
