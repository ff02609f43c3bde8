"""The supervisor's process behind a Starter.

Its client sends one socket for each bot over the control connection FD; everything about that bot then goes
over its own socket, so that clients need no thread and no lock between bots. When the control connection
ends, the client's process is gone: every bot is ended by the ladder, and the supervisor after them.
"""

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from swarmcg.bot import ExitReport, check_bot_id, check_grace
from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.recorded import Seconds
from swarmcg.errors import ConfigError, StartError, StuckError, SwarmcgError
from swarmcg.journal import Journal
from swarmcg.journald import speak
from swarmcg.keeper.spawn import Order
from swarmcg.keeper.wire import Wire
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["MALFORMED", "Channel", "Client", "allow_many_files", "deafen", "end_all", "main", "taken"]

_T = TypeVar("_T")
_LOG: Final = logging.getLogger("swarmcg")
MALFORMED: Final = (LookupError, TypeError, ValueError, RecursionError, msgspec.MsgspecError)
"""What a message of a client with another version, or of somebody who plays, can raise."""


class Channel:
    """The connection about one bot: requests in, events out. A Listener.

    ``admit`` is called with each launch and raises a SwarmcgError to refuse it; ``born`` with each bot to come.
    """

    def __init__(
        self,
        wire: Wire,
        supervisor: Supervisor,
        *,
        admit: Callable[[Launch], None] = lambda _: None,
        born: Callable[[Incarnation], None] = lambda _: None,
    ) -> None:
        self._wire = wire
        self._supervisor = supervisor
        self._admit = admit
        self._born = born
        self._bot: Incarnation | None = None
        supervisor.poll.watch(wire.fileno(), self.serve)
        self.serve()  # the order comes right after the channel

    def serve(self) -> None:
        """Handles what the client sent; its hanging up changes nothing for the bot."""
        try:
            for message, fds in self._wire.receive():
                self._try(message, fds)
        except OSError as e:  # out of descriptors: that must end one start, and not every bot
            self._send({"event": "failed", "error": _refused(e).to_dict()})
        except MALFORMED as e:
            _LOG.error("a client was not understood: %r", e)
            self._hang_up()
            return
        if self._wire.ended:
            if self._bot is not None and self._bot.main is None:
                self._bot.stop(0)  # it gave the start up
            self._hang_up()

    def _try(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            self._handle(message, fds)
        except SwarmcgError as e:
            self._send({"event": "failed", "error": e.to_dict()})
        finally:
            for fd in fds:
                os.close(fd)

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["do"]:
            case "check":
                self._supervisor.check(self._admitted(_told(message, _Check).launch))
                self._send({"event": "possible"})
            case "start":
                self._start(_told(message, _Start), (fds[0], fds[1], fds[2]))
            case "drain":
                deadline = msgspec.convert(message["deadline"], Seconds | None)
                if self._bot is not None:  # else it has ended meanwhile
                    self._bot.drain(deadline)
            case "terminate":
                grace = msgspec.convert(message["grace"], Seconds | None)
                if self._bot is not None:
                    self._bot.stop(grace)
            case unknown:
                raise _unknown(unknown)

    def _admitted(self, launch: Launch) -> Launch:
        check_bot_id(launch.bot_id)
        check_grace(launch.grace)
        self._admit(launch)
        return launch

    def _start(self, asked: "_Start", stdio: tuple[int, int, int]) -> None:
        launch = self._admitted(asked.launch)
        order = Order(asked.argv, asked.env, procs=-1, cwd=asked.cwd, stdio=stdio, oom_score_adj=0)
        self._bot = self._supervisor.start(launch, order, self)
        self._born(self._bot)

    def started(self, bot: Incarnation) -> None:
        """See Listener."""
        pid = bot.main.pid if bot.main else None
        self._send({"event": "started", "pid": pid, "incarnation": bot.key, "slice": bot.slice.path})

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        """See Listener."""
        del bot
        self._bot = None
        self._send({"event": "failed", "error": error.to_dict()})

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""
        del bot
        self._bot = None
        error = trouble.to_dict() if trouble else None
        self._send({"event": "ended", "report": msgspec.to_builtins(report), "trouble": error})
        self._hang_up()

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""
        del bot
        self._send({"event": "stuck", "error": error.to_dict()})

    def _send(self, message: dict[str, Any]) -> None:
        if self._wire.fileno() < 0:
            return
        try:
            self._wire.send(message)
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._wire.fileno() >= 0:
            self._supervisor.poll.ignore(self._wire.fileno())
            self._wire.close()


class _Check(msgspec.Struct):
    launch: Launch


class _Start(msgspec.Struct):
    launch: Launch
    argv: list[str]
    env: dict[str, str]
    cwd: str | None


def _told(message: dict[str, Any], kind: type[_T]) -> _T:
    """Raises ConfigError for what is no such order: it was asked for by somebody's program, who can mend it."""
    try:
        return msgspec.convert(message, kind)
    except msgspec.ValidationError as e:
        raise ConfigError(
            "The order to start was not understood",
            cause=str(e),
            remedy="Give each field what its type says.",
        ) from e


def _unknown(request: object) -> StartError:
    """An upgrade leaves the unit's process as it is, with its bots: a newer client may ask it for something new."""
    return StartError(
        "The supervisor cannot do what it was asked for",
        step="supervisor",
        value=str(request),
        cause="it was started by an older swarmcg, and goes on as long as its bots",
        remedy="Restart swarmcg-bots.service when its bots may end: systemctl restart swarmcg-bots.service",
    )


def _refused(e: OSError) -> StartError:
    return StartError(
        "The supervisor could not serve the bot",
        step="supervisor",
        path=e.filename,
        errno=e.errno,
        remedy="Try again with fewer bots, or raise the limit that was met (ulimit -Hn for open files).",
    )


class Client:
    """The process that this supervisor works for. It is gone when its connection ends or its process does: a child
    that it forked may hold the connection open.
    """

    def __init__(self, wire: Wire, pid: int, supervisor: Supervisor) -> None:
        self.gone = False
        self._wire = wire
        self._supervisor = supervisor
        self._watched: list[int] = []
        try:
            pidfd = os.pidfd_open(pid)  # first: without a descriptor for it, nothing is watched
        except ProcessLookupError:
            pidfd = -1
        self._watch(wire.fileno(), self._serve)
        if pidfd >= 0:
            self._watch(pidfd, self.leave)
        else:
            self.leave()

    def _watch(self, fd: int, handle: Callable[[], None]) -> None:
        self._watched.append(fd)
        self._supervisor.poll.watch(fd, handle)

    def _serve(self) -> None:
        try:
            for message, fds in self._wire.receive():
                self._try(message, fds)
        except OSError as e:
            _LOG.error("a start was lost: %s", e)  # the kernel closed its channel, so the client knows
        except MALFORMED as e:
            _LOG.error("a client was not understood: %r", e)
            self.leave()
            return
        if self._wire.ended:
            self.hung_up()

    def _try(self, message: dict[str, Any], fds: list[int]) -> None:
        """What fails here must not keep the messages that came with it waiting."""
        try:
            self.handle(message, fds)
        except OSError as e:
            _LOG.error("an order was lost: %s", e)
        finally:
            for fd in fds:
                os.close(fd)

    def handle(self, message: dict[str, Any], fds: list[int]) -> None:
        """The client hands over its end of a channel for one bot. What is left in ``fds`` is closed."""
        del message
        Channel(Wire(taken(fds)), self._supervisor)

    def hung_up(self) -> None:
        """The connection ended."""
        self.leave()

    def leave(self) -> None:
        """There is nobody at the other end any more."""
        self.gone = True

    def ignore(self) -> None:
        """Listens no more: there is nobody."""
        for fd in self._watched:
            self._supervisor.poll.ignore(fd)
            if fd != self._wire.fileno():
                os.close(fd)
        self._watched.clear()


def taken(fds: list[int]) -> socket.socket:
    """The socket that is the first of these descriptors; it is the caller's from now on. Raises OSError for
    another kind of file, which stays.
    """
    found = socket.socket(fileno=fds[0])
    del fds[0]
    return found


def main(fd: int, home: str, journal: str, owner: str) -> None:
    """Serves the client at the other end of ``fd``, process ``owner``, until it is gone and its bots with it.

    Where ``home`` is null, one is found for this process, which is moved if need be, and the client is told.
    """
    deafen()
    speak()
    wire = Wire(socket.socket(fileno=fd))
    place = msgspec.json.decode(home, type=Home | None)
    if place is None and (place := _find_home(wire)) is None:
        return
    supervisor = Supervisor(place, Journal(journal))
    allow_many_files()
    client = Client(wire, int(owner), supervisor)
    while not client.gone:
        supervisor.turn()
    client.ignore()
    end_all(supervisor)


def _find_home(wire: Wire) -> Home | None:
    """A home for this process; None, and the client is told why, when there is none."""
    try:
        found = find_home(enter=True)
        wire.send({"event": "ready"})
    except SwarmcgError as e:
        with contextlib.suppress(OSError):
            wire.send({"event": "failed", "error": e.to_dict()})
    except BrokenPipeError:
        pass  # it is gone
    else:
        return found
    return None


def end_all(supervisor: Supervisor) -> None:
    """Walks the ladder for every bot that is left, and returns when all are gone or proven stuck."""
    for bot in list(supervisor.bots.values()):
        bot.stop()
    while any(not bot.given_up for bot in supervisor.bots.values()):
        supervisor.turn()
    supervisor.close()


def allow_many_files() -> None:
    """Raises the soft limit of open files to the hard one: a bot takes five, and 1,024 is a usual soft limit.

    To be called once a keeper can start: bots get the limit that was found, not this one.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def deafen() -> None:
    """A terminal's signals are for its users' programs: this process ends with its client, not by Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
