"""One connection to the bots unit, and what it may ask for."""

import contextlib
import socket
import struct
import sys
from typing import Any, Final, Protocol

import msgspec

from swarmcg.bot import ExitReport
from swarmcg.cgroup.recorded import Seconds
from swarmcg.errors import StuckError, SwarmcgError
from swarmcg.keeper.wire import Wire
from swarmcg.supervisor.incarnation import Incarnation, Listener
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.service import Channel, Client, taken
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["SEND_TIMEOUT", "Peer", "Served"]

SEND_TIMEOUT: Final = struct.pack("ll", 5, 0)
"""SO_SNDTIMEO: a client that takes nothing in must not hold up all others."""


class Served(Protocol):
    """What a peer needs of the process that serves the unit."""

    @property
    def supervisor(self) -> Supervisor:
        """Who starts and ends its bots."""
        ...

    def admit(self, launch: Launch) -> None:
        """Raises HomeError for a bot that would only be born to be ended."""
        ...

    def receive_guest(self, peer: "Peer") -> None:
        """The peer makes slices in the unit by itself, and ends them when it is told to."""
        ...

    def stop(self, asker: "Peer", grace: float) -> None:
        """Ends everything in the unit, and tells the asker what is left."""
        ...

    def left(self, peer: "Peer") -> None:
        """The peer is gone."""
        ...


class Peer(Client):
    """One connection to the unit. The bots that it started and did not detach end with it."""

    def __init__(self, wire: Wire, pid: int, host: Served) -> None:
        self._host: Final = host
        self._bots: Final[dict[str, Incarnation]] = {}
        self._ends: Final[set[str]] = set()
        self._guest = False
        super().__init__(wire, pid, host.supervisor)

    def handle(self, message: dict[str, Any], fds: list[int]) -> None:
        """One order; a malformed one ends the connection."""
        match message["do"]:
            case "attach":
                channel = taken(fds)
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SEND_TIMEOUT)
                Channel(Wire(channel), self._host.supervisor, admit=self._host.admit, born=self._born)
            case "guest":
                self._guest = True
                self.tell({"event": "guest"})
                self._host.receive_guest(self)
            case "end":
                ids, grace = message["ids"], message["grace"]
                self.end(msgspec.convert(ids, list[str] | None), msgspec.convert(grace, Seconds | None))
            case "stop":
                self._host.stop(self, msgspec.convert(message["grace"], Seconds))

    def _born(self, bot: Incarnation) -> None:
        for key in self._bots.keys() - self._host.supervisor.bots.keys():
            del self._bots[key]  # ended: a client may start bots for months
        if not bot.intent.detached:
            self._bots[bot.key] = bot

    def end(self, ids: list[str] | None, grace: float | None) -> None:
        """Ends detached bots, all or those of these ids and incarnations, and tells of each, of what names none, and of
        the end of it all.
        """
        bots = self._host.supervisor.bots.values()
        detached = [bot for bot in bots if bot.intent.detached and bot.main is not None]
        if ids and not self._ends:  # a second order comes when some may have ended
            self._tell_unknown(set(ids), detached)
        for bot in detached:
            if not ids or not _names(bot).isdisjoint(ids):
                if bot.key not in self._ends:
                    self._ends.add(bot.key)
                    bot.listener = Witness(bot.listener, self)
                bot.stop(grace)
        if not self._ends:
            self.tell({"event": "done"})

    def _tell_unknown(self, ids: set[str], detached: list[Incarnation]) -> None:
        unknown = ids.difference(*map(_names, detached))
        if unknown:
            running = sorted({bot.intent.bot_id for bot in detached})
            self.tell({"event": "unknown", "ids": sorted(unknown), "detached": running})

    def saw(self, bot: Incarnation, event: dict[str, Any], *, last: bool) -> None:
        """Something became of a bot that is ended for this peer."""
        self.tell(event | {"slice": bot.slice.path})
        if last and bot.key in self._ends:
            self._ends.discard(bot.key)
            if not self._ends:
                self.tell({"event": "done"})

    def tell(self, message: dict[str, Any]) -> None:
        """Sends it to whom it may concern; one who is gone hears nothing, and one who takes nothing in hears nothing
        more: half of a message may be sent, and all others waited for that.
        """
        try:
            self._wire.send(message)
        except OSError:
            with contextlib.suppress(OSError):
                self._wire.finish()

    def hung_up(self) -> None:
        """A guest's slices are without an owner only once its process has ended, which its pidfd tells a bit later."""
        if self._guest and len(self._watched) > 1:
            self._host.supervisor.poll.ignore(self._watched.pop(0))
        else:
            self.leave()

    def leave(self) -> None:
        """It hung up, or its process ended: so do its bots."""
        if self.gone:
            return
        super().leave()
        self.ignore()
        for bot in self.alive():
            bot.stop()
        self._host.left(self)

    def alive(self) -> list[Incarnation]:
        """Its bots that have not ended."""
        return [bot for key, bot in self._bots.items() if self._host.supervisor.bots.get(key) is bot]

    def close(self) -> None:
        """The last of its bots is gone: whoever waits for the end of the connection sees it."""
        self._wire.close()


def _names(bot: Incarnation) -> set[str]:
    return {bot.intent.bot_id, bot.key}


class Witness:
    """Tells a peer what becomes of a bot, beside whoever else listens. A Listener."""

    def __init__(self, other: Listener, peer: Peer) -> None:
        self._other: Final = other
        self._peer: Final = peer
        self.started: Final = other.started
        self.failed: Final = other.failed

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""
        self._other.ended(bot, report, trouble)
        error = trouble.to_dict() if trouble else None
        event = {"event": "ended", "report": msgspec.to_builtins(report), "trouble": error}
        self._peer.saw(bot, event, last=True)

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""
        self._other.stuck(bot, error)
        self._peer.saw(bot, {"event": "stuck", "error": error.to_dict()}, last=bot.given_up)
