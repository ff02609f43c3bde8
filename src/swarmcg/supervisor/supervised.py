"""A bot of a supervisor, as the process sees it that had it started. No thread is started here."""

import contextlib
import logging
import select
import sys
import threading
import time
from typing import Any, Final, Protocol

import msgspec

from swarmcg.bot import ExitReport, Resources, check_grace
from swarmcg.cgroup.update import update
from swarmcg.errors import ConfigError, OwnerLostError, SwarmcgError, WaitTimeout, from_dict
from swarmcg.keeper.wire import Wire
from swarmcg.resources import LinuxResources
from swarmcg.supervisor.launch import Launch

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["LONGEST_POLL_S", "Origin", "SupervisedBot", "lost"]

_LOG: Final = logging.getLogger("swarmcg")
LONGEST_POLL_S: Final = 86400.0
"""poll(2) takes an int of milliseconds; who waits longer asks again."""


class Origin(Protocol):
    """The connection that a bot was started over, which lives at least as long as the bot is in use."""

    def ended(self) -> None:
        """A bot of this connection was seen to have ended."""
        ...


class SupervisedBot:
    """A bot in a slice of its own; see :class:`swarmcg.Bot`. Made by ``Connections.start`` only.

    ``pid`` is its main process, ``incarnation`` names this life of it, ``slice`` is its cgroup's directory.
    ``trouble`` is what went wrong after its end, if anything did.
    """

    def __init__(self, connection: Origin, wire: Wire, launch: Launch, told: dict[str, Any]) -> None:
        self.bot_id: Final = launch.bot_id
        self.pid: Final[int] = told["pid"]
        self.incarnation: Final[str] = told["incarnation"]
        self.slice: Final[str] = told["slice"]
        self._connection: Final = connection
        self._policy: Final = launch.on_unenforceable
        self._wire: Final = wire
        self._lock: Final = threading.Lock()
        self._waiting = 0
        self._report: ExitReport | None = None
        self._lost: OwnerLostError | None = None
        self._stuck: SwarmcgError | None = None
        self.trouble: SwarmcgError | None = None

    def __repr__(self) -> str:
        return f"<bot {self.bot_id!r} pid {self.pid} in {self.slice}>"

    def wait(self, timeout: float | None = None) -> ExitReport:
        """Blocks until the slice is empty and returns the report, the same one every time.

        Raises WaitTimeout (also a TimeoutError) when ``timeout`` seconds pass first, OwnerLostError when the
        supervisor died: the bot is ended then by its keeper, and its report is in the journal. When the report
        could not be kept in the journal, or the slice not removed, ``trouble`` says why.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (done := self._outcome()) is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            self._listen(left)  # also when no time is left: the news may be there
            if left == 0 and self._outcome() is None:
                raise WaitTimeout(
                    f"Bot {self.bot_id!r} has not ended",
                    value=timeout,
                    cause=f"it was waited for {timeout} seconds",
                    remedy="Wait longer, or terminate it.",
                )
        return done

    def drain(self, deadline: float | None = None) -> None:
        """Asks the bot to finish its task and end; see :meth:`swarmcg.Bot.drain`."""
        self._tell({"do": "drain", "deadline": None if deadline is None else check_grace(deadline)})

    def terminate(self, grace: float | None = None) -> None:
        """Starts what :meth:`terminate_or_kill` does, and returns at once."""
        self._stuck = None
        self._tell({"do": "terminate", "grace": None if grace is None else check_grace(grace)})

    def terminate_or_kill(self, grace: float | None = None) -> None:
        """Terminates, then kills, and blocks until the bot is proven gone; see
        :meth:`swarmcg.Bot.terminate_or_kill`.
        """
        self.terminate(grace)
        while self._outcome() is None:
            if self._stuck is not None:
                raise self._stuck
            self._listen(None)

    def update(self, resources: Resources) -> None:
        """Changes the limits that the resources name; see :meth:`swarmcg.Bot.update`.

        The files are written by this process, which needs the rights to. What the policy at the start was,
        ``refuse`` or ``report``, holds here, too.
        """
        if not isinstance(resources, LinuxResources):
            raise ConfigError(
                "The resources are no LinuxResources",
                value=repr(resources),
                remedy="Make them with LinuxResources.from_json(text).",
            )
        update([self.slice], resources, policy=self._policy)

    def _outcome(self) -> ExitReport | None:
        with self._lock:
            if self._lost is not None:
                raise self._lost
            return self._report

    def _tell(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._report is None and self._lost is None:
                with contextlib.suppress(OSError):  # it has ended or its supervisor died: wait() says which
                    self._wire.send(message)

    def _listen(self, timeout: float | None) -> None:
        """Waits for news, at most ``timeout`` seconds. Any number of threads may; one of them takes the news
        in.
        """
        with self._lock:
            if self._report is not None or self._lost is not None:
                return
            fd = self._wire.fileno()
            self._waiting += 1
        try:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(None if timeout is None else min(max(0, timeout), LONGEST_POLL_S) * 1000)
        finally:
            with self._lock:
                self._waiting -= 1
                self._take_in()

    def _take_in(self) -> None:
        if not self._wire.ended:
            for message, _ in self._wire.receive():
                self._note(message)
        if self._wire.ended and self._report is None and self._lost is None:
            self._lost = lost(self.bot_id)
            self._connection.ended()
        if (self._report is not None or self._lost is not None) and not self._waiting:
            self._wire.close()

    def _note(self, message: dict[str, Any]) -> None:
        if message["event"] == "stuck":
            self._stuck = from_dict(message["error"])
        elif message["event"] == "ended":
            self._report = msgspec.convert(message["report"], ExitReport)
            self.trouble = from_dict(message["trouble"]) if message["trouble"] else None
            if self.trouble is not None:
                _LOG.error("%s", self.trouble)
            self._connection.ended()

    def __del__(self) -> None:
        if hasattr(self, "_wire") and self._wire.fileno() >= 0:
            self._wire.close()


def lost(bot_id: str | None) -> OwnerLostError:
    """Why nothing is known of a bot any more; without an id, of any bot of its supervisor."""
    return OwnerLostError(
        f"The supervisor{'' if bot_id is None else f' of bot {bot_id!r}'} died",
        cause="its process was ended by somebody, or had a fault",
        remedy="The keeper ends the bot by the stop ladder and reports it in the journal; "
        "'swarmcg clean' shows what is left.",
    )
