"""The process that serves the bots unit: starts bots for whoever connects, and keeps those that are detached.

It is a supervisor with a keeper, as a Starter has one, for many clients. When it is killed, its keeper starts
another one, which takes the slices over and goes on; when the keeper is killed, it puts a new one there; when both
are, the next command of ours that finds the unit does.
"""

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from swarmcg.cgroup.recorded import Moment
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import HomeError, SwarmcgError
from swarmcg.flock import hold
from swarmcg.journal import Journal
from swarmcg.journald import speak
from swarmcg.keeper.wire import Wire
from swarmcg.ladder import FREEZE_S, KILL_S
from swarmcg.supervisor.heir import Legacy, bequest, end
from swarmcg.supervisor.incarnation import Nobody
from swarmcg.supervisor.keepers import Estate
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.peer import SEND_TIMEOUT, Peer
from swarmcg.supervisor.remains import intent_of
from swarmcg.supervisor.service import allow_many_files, deafen
from swarmcg.supervisor.supervisor import Supervisor
from swarmcg.supervisor.unit import Unit, being_stopped, credentials, may_command

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Host", "main", "serve"]

_LOG: Final = logging.getLogger("swarmcg")
_DEAF_S: Final = 1.0
"""Until connections are taken again when there was no descriptor for one."""
_LOCK_S: Final = 1.0
"""For as long another process may look whether somebody holds the lock."""
_SWEEP_AGAIN_S: Final = 0.5
"""Until slices without an owner are looked for again when somebody held the home's lock."""
_STEP_S: Final = 0.1
"""Between looks at the slices that others own, while the unit stops: rmdir tells nobody."""


class Host:
    """Accepts connections, and lives until it is told to stop. For one thread."""

    def __init__(self, unit: Unit, supervisor: Supervisor, listener: socket.socket) -> None:
        self.unit: Final = unit
        self.supervisor: Final = supervisor
        self._listener: Final = listener
        self._guests: Final[list[Peer]] = []
        self._leaving: Final[list[Peer]] = []
        self._stop: Stop | None = None
        self._deaf_until: float | None = None
        self._sweep_at: float | None = None
        supervisor.poll.watch(listener.fileno(), self._accept)

    def run(self) -> None:
        """Serves until the unit was stopped."""
        while self._stop is None or not self._stop.over(self.supervisor):
            self.supervisor.turn(self._until())
            self._dismiss()
            self._accept_again()
            self._sweep_again()
        self._end(self._stop)

    def _until(self) -> float | None:
        if self._stop is not None:
            return _STEP_S
        dues = [due for due in (self._deaf_until, self._sweep_at) if due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _accept(self) -> None:
        try:
            self._welcome()
        except BlockingIOError:
            return  # nobody is there after all
        except OSError as e:
            _LOG.error("no connection can be taken for %g s: %s", _DEAF_S, e)
            # Who waits there would make it readable for ever.
            self.supervisor.poll.ignore(self._listener.fileno())
            self._deaf_until = time.monotonic() + _DEAF_S

    def _accept_again(self) -> None:
        if self._deaf_until is not None and time.monotonic() >= self._deaf_until:
            self._deaf_until = None
            self.supervisor.poll.watch(self._listener.fileno(), self._accept)

    def _welcome(self) -> None:
        """Takes one connection. Raises OSError when it cannot be, for want of descriptors above all."""
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
        pid, uid = credentials(connection)
        wire = Wire(connection)
        if pid <= 0 or not may_command(uid):
            with contextlib.suppress(OSError):
                wire.send({"event": "failed", "error": _stranger(uid).to_dict()})
            wire.close()
            return
        try:
            peer = Peer(wire, pid, self)
        except OSError:
            wire.close()
            raise
        peer.tell({"event": "welcome"})

    def admit(self, launch: Launch) -> None:
        """Raises HomeError for a bot that would only be born to be ended."""
        del launch
        if self._stop is not None:
            raise being_stopped()

    def receive_guest(self, peer: Peer) -> None:
        """A peer makes slices here by itself, and ends them when it is told to."""
        if peer not in self._guests:
            self._guests.append(peer)
        if self._stop is not None:
            peer.tell(self._stop.order())

    def left(self, peer: Peer) -> None:
        """A peer is gone, and is let go when its bots are; what a killed guest could not end is ended here."""
        self._leaving.append(peer)
        if peer in self._guests:
            self._guests.remove(peer)
            self.sweep()

    def _dismiss(self) -> None:
        for peer in [peer for peer in self._leaving if not peer.alive()]:
            self._leaving.remove(peer)
            peer.close()

    def sweep(self) -> None:
        """Takes over every slice in the unit whose owner is gone. Where somebody holds the home's lock, or it cannot be
        opened, it is tried again later: all bots would wait for that, too.
        """
        first, self._sweep_at = self._sweep_at is None, None
        try:
            self.adopt(Legacy(held, None) for held in self.unit.home.ownerless(within=0))
        except (OSError, SwarmcgError) as e:
            self._sweep_at = time.monotonic() + _SWEEP_AGAIN_S
            if first:
                _LOG.warning("slices without an owner cannot be looked for yet, which is tried again: %s", e)

    def _sweep_again(self) -> None:
        if self._sweep_at is not None and time.monotonic() >= self._sweep_at:
            self.sweep()

    def adopt(self, slices: Iterable[Legacy]) -> None:
        """Takes slices over: a detached bot goes on, one that somebody waited for in vain is ended, and so is one
        whose ladder was begun.
        """
        for held, pidfd in slices:
            grace = _grace_left(held)
            bot = self.supervisor.adopt(held, Nobody(), pidfd=pidfd)
            if bot is None or bot.key not in self.supervisor.bots:
                continue
            if grace is not None or not bot.intent.detached or self._stop is not None:
                bot.stop(grace)

    def stop(self, asker: Peer, grace: float) -> None:
        """Ends everything in the unit, with grace periods of at most that many seconds, and then this process."""
        if self._stop is None:
            self._stop = Stop(self.unit, grace)
            for peer in self._guests:
                peer.tell(self._stop.order())
            self.sweep()
            for bot in list(self.supervisor.bots.values()):
                bot.stop(min(grace, bot.intent.grace))
        self._stop.askers.append(asker)

    def _end(self, stop: "Stop") -> None:
        for path in (self.unit.socket, self.unit.link):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self.supervisor.release()
        self.supervisor.close()
        left = self.unit.home.slices()
        for peer in stop.askers:
            peer.tell({"event": "stopped", "left": left})


class Stop:
    """The end of the unit: who asked for it, and when it is over."""

    def __init__(self, unit: Unit, grace: float) -> None:
        self.askers: Final[list[Peer]] = []
        self._unit: Final = unit
        self._grace: Final = grace
        self._deadline: Final = time.monotonic() + grace + FREEZE_S + KILL_S

    def order(self) -> dict[str, Any]:
        """What guests are told."""
        return {"event": "stop", "grace": self._grace}

    def over(self, supervisor: Supervisor) -> bool:
        """Whether nothing is left, or nothing that could be ended; kills what guests did not end in time."""
        if any(not bot.given_up for bot in supervisor.bots.values()):
            return False
        left = self._unit.home.slices()
        now = time.monotonic()
        if left and now > self._deadline:
            for path in left:
                with contextlib.suppress(OSError):
                    Slice(path, -1).kill()
        return not left or now > self._deadline + KILL_S


def _grace_left(held: Slice) -> float | None:
    """What is left of the grace period of a ladder that was begun; None where none was."""
    begun, intent = held.recall("stopping"), intent_of(held)
    if begun is None or intent is None:
        return None
    try:
        at = msgspec.convert(begun.get("at"), Moment)
    except msgspec.ValidationError:
        return 0.0
    return max(0.0, min(intent.grace, intent.grace - (time.time() - at)))  # a clock can be set back


def _stranger(uid: int) -> HomeError:
    return HomeError(
        "The bots unit serves root and its own user only",
        value=uid,
        cause=f"this is user {uid}, and the unit runs as user {os.geteuid()}",
        remedy="Use it as that user, or start a bots unit of your own: systemctl --user start swarmcg-bots",
    )


def serve(fd: int, unit: str) -> None:
    """Serves a unit that nobody serves, and tells so, or why not, at the other end of ``fd``."""
    if os.fork():
        os._exit(0)
    asker = Wire(socket.socket(fileno=fd))
    place = msgspec.json.decode(unit, type=Unit)
    try:
        lock = _lock(place)
        host = None if lock is None else _host(place, _listen(place), lock, None)
    except (SwarmcgError, OSError) as e:
        with contextlib.suppress(OSError):
            asker.send({"event": "failed", "error": _reason(e, place).to_dict()})
        return
    if host is not None:
        host.sweep()
    with contextlib.suppress(OSError):
        asker.send({"event": "ready"})
    asker.close()
    if host is not None:
        host.run()


def main(fd: int) -> None:
    """Takes over from one that was killed what its keeper, at the other end of ``fd``, held for it."""
    wire = Wire(socket.socket(fileno=fd))
    slices, note, fds = bequest(wire)
    if not note:  # it was stopping, and has left what would not end
        end(wire, slices)
        return
    listener, lock = fds
    _LOG.warning("the process that served the bots unit was killed; another one goes on")
    host = _host(msgspec.convert(note["unit"], Unit), socket.socket(fileno=listener), lock, wire, note)
    host.adopt(slices)
    host.supervisor.catch_up()
    host.sweep()
    host.run()


def _host(
    unit: Unit, listener: socket.socket, lock: int, wire: Wire | None, note: dict[str, Any] | None = None
) -> Host:
    deafen()
    speak()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to whatever ExecStop= has left
    os.umask(0o022)
    ours = Estate()
    note = note or {"unit": msgspec.to_builtins(unit), "open_files": ours.open_files}
    estate = Estate("swarmcg.supervisor.host", note, (listener.fileno(), lock), note["open_files"])
    supervisor = Supervisor(unit.home, Journal(unit.journal), wire=wire, estate=estate)
    allow_many_files()
    return Host(unit, supervisor, listener)


def _lock(unit: Unit) -> int | None:
    """Moves this process into the unit's leaf and locks that; None when somebody else has locked it."""
    unit.make_leaf()
    fd = os.open(unit.leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        hold(fd, fcntl.LOCK_EX, _LOCK_S)
    except BlockingIOError:
        os.close(fd)
        return None
    with open(f"{unit.leaf}/cgroup.procs", "w", encoding="ascii") as f:
        f.write("0")
    return fd


def _listen(unit: Unit) -> socket.socket:
    """The socket, for this user and root alone, and the link that leads to the unit."""
    os.makedirs(unit.runtime, mode=0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unit.socket)
    listener = socket.socket(socket.AF_UNIX)
    os.umask(0o177)
    listener.bind(unit.socket)
    listener.listen(socket.SOMAXCONN)
    listener.setblocking(False)
    partial = f"{unit.link}.{os.getpid()}"
    os.symlink(unit.directory, partial)
    os.replace(partial, unit.link)
    return listener


def _reason(e: SwarmcgError | OSError, unit: Unit) -> SwarmcgError:
    if isinstance(e, SwarmcgError):
        return e
    return HomeError(
        "The bots unit cannot be served",
        path=os.fsdecode(e.filename) if isinstance(e.filename, str | bytes) else unit.directory,
        errno=e.errno,
        cause=None if e.errno else str(e),
        remedy="See that the unit's cgroup and its runtime directory can be written.",
    )
