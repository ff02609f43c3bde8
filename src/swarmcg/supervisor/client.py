"""The library's side: connections to a supervisor process of our own, or to the bots unit. No thread is started here.

Everything may be used from any thread. A connection lives until it is closed, its process ends, or neither it
nor a bot of it that has not ended is in use any more.
"""

import contextlib
import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import msgspec

from swarmcg.cgroup.home import Home
from swarmcg.errors import StartError, from_dict
from swarmcg.keeper.wire import Wire
from swarmcg.ladder import FREEZE_S, KILL_S
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import LONGEST_POLL_S, SupervisedBot, lost

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Connection", "Connections", "UnitConnection"]

_START_S: Final = 60.0
"""How long a start may take: making the slice, forking, and exec from a slow disk."""
_REPORT_S: Final = 60.0
"""How long after the ladder's last rung reports may take, and the removal of slices, on a slow disk."""
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROGRAM: Final = (
    "import sys; {package!r} in sys.path or sys.path.insert(0, {package!r}); "
    "from swarmcg.supervisor.service import main; main({fd}, *sys.argv[1:])"
)


class Connections:
    """What connections to a supervisor have in common: bots are started over them, each with a socket of its own.

    ``control`` is the connection itself; its lock guards it and all counts.
    """

    _in_use: ClassVar[set["Connections"]] = set()
    """Connections with bots that have not ended: a bot must not be stopped because nobody kept a reference.
    """

    def __init__(self, control: Wire) -> None:
        self._lock: Final = threading.Lock()
        self._bots = 0
        self._starting = 0
        self._longest_grace = 0.0
        self._control: Final = control

    @property
    def alive(self) -> bool:
        """Whether the supervisor still serves, as far as is known."""
        return self._control.fileno() >= 0

    def close(self, timeout: float | None = None) -> None:
        """Ends the connection; waits until the bots that end with it have ended: at most ``timeout`` seconds, without
        one for as long as the longest grace period and the kill after it take. What goes on then goes on without us.
        """
        raise NotImplementedError

    def _patience(self) -> float:
        """For how long the ladders of all bots may take."""
        return self._longest_grace + FREEZE_S + KILL_S + _REPORT_S

    def reserve(self) -> Self:
        """Announces a :meth:`start`, so that nobody takes the connection for idle before it begins."""
        with self._lock:
            self._starting += 1
        return self

    @property
    def idle(self) -> bool:
        """Whether it has neither bots, as far as has been seen, nor starts under way."""
        with self._lock:
            return not self._bots and not self._starting

    def __del__(self) -> None:
        if hasattr(self, "_control"):
            self.close(timeout=5)

    def check(self, launch: Launch) -> None:
        """Asks whether a start of this launch would be refused by what it asks for, after :meth:`reserve`.

        Raises the SwarmcgError that :meth:`start` would raise for that. Nothing is made but the home.
        """
        try:
            wire = self._attach(launch.bot_id)
            try:
                with _owner_lost(launch.bot_id):
                    wire.send({"do": "check", "launch": msgspec.to_builtins(launch)})
                _outcome(wire, launch.bot_id)
            finally:
                wire.close()
        finally:
            with self._lock:
                self._starting -= 1

    def start(
        self,
        launch: Launch,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: str | None,
        stdio: tuple[int, int, int],
    ) -> SupervisedBot:
        """Starts a command in a slice of its own, after :meth:`reserve`.

        Raises a SwarmcgError when it does not run; nothing is left then.
        """
        order = {
            "do": "start",
            "launch": msgspec.to_builtins(launch),
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
        }
        try:
            wire = self._attach(launch.bot_id)
            try:
                with _owner_lost(launch.bot_id):
                    wire.send(order, stdio)
                told = _outcome(wire, launch.bot_id)
                with self._lock:
                    self._bots += 1
                    self._longest_grace = max(self._longest_grace, 0.0 if launch.detach else launch.grace)
                    self._in_use.add(self)
            except BaseException:
                wire.close()
                raise
        finally:
            with self._lock:
                self._starting -= 1
        return SupervisedBot(self, wire, launch, told)

    def _attach(self, bot_id: str) -> Wire:
        """Our end of a channel for one bot."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as e:
            raise StartError(
                f"Bot {bot_id!r} could not be started",
                step="socketpair",
                errno=e.errno,
                remedy="Close files in this process, or raise its limit (ulimit -n).",
            ) from e
        wire = Wire(ours)
        try:
            with theirs, _owner_lost(bot_id), self._lock:
                self._control.send({"do": "attach"}, [theirs.fileno()])
        except BaseException:
            wire.close()
            raise
        return wire

    def ended(self) -> None:
        """A bot of this connection was seen to have ended."""
        with self._lock:
            self._bots -= 1
            if not self._bots:
                self._in_use.discard(self)


class Connection(Connections):
    """A supervisor process that belongs to this one. It ends with this process, after ending its bots.

    Without a home, the supervisor finds one for itself, for which it may be moved, and this process is not.
    Raises HomeError then when there is none.
    """

    def __init__(self, home: Home | None, journal: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            program = _PROGRAM.format(package=_PACKAGE, fd=theirs.fileno())
            self._process: Final = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-c",
                    program,
                    msgspec.json.encode(home).decode(),
                    journal,
                    str(os.getpid()),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # whoever reads our output must not wait for the supervisor's end
                start_new_session=True,
                cwd="/",
            )
        super().__init__(Wire(ours))
        if home is None:
            try:
                _outcome(self._control, None)
            except BaseException:
                self.close(timeout=5)
                raise

    @property
    def alive(self) -> bool:
        """Whether the supervisor still serves."""
        return self._control.fileno() >= 0 and self._process.poll() is None

    def close(self, timeout: float | None = None) -> None:
        """Ends the connection: the supervisor ends its bots by the ladder, then itself; waits for that."""
        with self._lock:
            self._control.close()
            patience = self._patience()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience if timeout is None else timeout)
        self._in_use.discard(self)


class UnitConnection(Connections):
    """A connection to the bots unit. The bots started over it end with it or with this process, except detached
    ones.
    """

    @property
    def alive(self) -> bool:
        """Whether the process at the other end still serves; its heir has to be connected to anew."""
        with self._lock:
            if self._control.fileno() >= 0:
                for _ in self._control.receive():
                    pass
            return not self._control.ended

    def close(self, timeout: float | None = None) -> None:
        """Ends the connection: the unit ends the bots that were not detached, by the ladder; waits for that.

        Other threads are not kept waiting: what they ask of the connection meanwhile fails at once.
        """
        with self._lock:
            ending = _finished(self._control)
            patience = self._patience()
        if ending is not None:
            with ending:
                _wait_for_end(ending, patience if timeout is None else timeout)
        with self._lock:
            self._control.close()
        self._in_use.discard(self)


def _finished(control: Wire) -> socket.socket | None:
    """The connection once more, after it was told that no more will come: another thread may close the first one.

    None where there is nothing to wait for, or no descriptor to wait with.
    """
    if control.fileno() < 0:
        return None
    with contextlib.suppress(OSError):
        control.finish()
        return socket.socket(fileno=os.dup(control.fileno()))
    return None


def _wait_for_end(ending: socket.socket, timeout: float) -> None:
    """Waits until the other end hangs up, whatever it may have sent before."""
    poll = select.poll()
    poll.register(ending, select.POLLRDHUP)
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        if poll.poll(min(left, LONGEST_POLL_S) * 1000):
            return


def _outcome(wire: Wire, bot_id: str | None) -> dict[str, Any]:
    """Waits until the bot's program runs, or without an id until the supervisor serves. Raises the error that says
    why it does not.
    """
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN)
    end = time.monotonic() + _START_S
    while not wire.ended and (left := end - time.monotonic()) > 0:
        poll.poll(left * 1000)
        for message, _ in wire.receive():
            if message["event"] == "failed":
                raise from_dict(message["error"])
            return message
    if wire.ended:
        raise lost(bot_id)
    raise StartError(
        f"{'The supervisor' if bot_id is None else f'Bot {bot_id!r}'} could not be started in time",
        step="exec",
        cause=f"the program was not running after {_START_S:.0f} seconds",
        remedy="See what its file system waits for.",
    )


@contextlib.contextmanager
def _owner_lost(bot_id: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno == errno.E2BIG:
            raise StartError(
                f"Bot {bot_id!r} could not be started",
                step="exec",
                errno=e.errno,
                remedy="Shorten the arguments or the environment.",
            ) from e
        raise lost(bot_id) from e
