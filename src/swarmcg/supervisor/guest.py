"""A process that makes slices in the bots unit by itself: ``swarmcg run``, whose command keeps its terminal."""

import contextlib
import os
import sys
from typing import Final

from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.home import Home
from swarmcg.errors import SwarmcgError
from swarmcg.keeper.wire import Wire
from swarmcg.supervisor.supervisor import Supervisor
from swarmcg.supervisor.unit import Unit, answer, being_stopped, connect, find_unit

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Guest", "be_guest"]


def be_guest() -> "Guest | None":
    """Registers this process with its user's unit. None where there is none, or where its children could not join
    slices there: that takes write access to ``cgroup.procs`` of the common ancestor of both (cgroups(7)).

    Raises HomeError when there is a unit that cannot be served.
    """
    unit, own = find_unit(), look().own
    if unit is None or own is None:
        return None
    if not os.access(f"{os.path.commonpath([own, unit.directory])}/cgroup.procs", os.W_OK):
        return None
    return Guest(unit)


class Guest:
    """The registration: the unit tells when it stops, and ends what this process is killed over."""

    def __init__(self, unit: Unit) -> None:
        self._unit: Final = unit
        self._stopping = False
        self._wire = _register(unit)

    @property
    def home(self) -> Home:
        """Where slices are to be made."""
        return self._unit.home

    def watch(self, supervisor: Supervisor) -> None:
        """Obeys the unit from now on, in the supervisor's turns. Raises HomeError when it is being stopped."""
        supervisor.poll.watch(self._wire.fileno(), lambda: self._hear(supervisor))
        self._hear(supervisor)  # what came with the last answer makes no descriptor readable
        if self._stopping and not supervisor.bots:
            raise being_stopped()

    def _hear(self, supervisor: Supervisor) -> None:
        for message, _ in self._wire.receive():
            if message["event"] == "stop":
                self._stopping = True
                for bot in list(supervisor.bots.values()):
                    bot.stop(min(message["grace"], bot.intent.grace))
        if self._wire.ended:
            supervisor.poll.ignore(self._wire.fileno())
            self._wire.close()
            self._return(supervisor)

    def _return(self, supervisor: Supervisor) -> None:
        """The process that served the unit is gone: registers with the one in its place, and goes on without."""
        if find_unit() == self._unit:
            with contextlib.suppress(SwarmcgError, OSError):
                self._wire = _register(self._unit)
                self.watch(supervisor)

    def close(self) -> None:
        """Ends the registration."""
        self._wire.close()


def _register(unit: Unit) -> Wire:
    wire = connect(unit)
    try:
        wire.send({"do": "guest"})
        answer(wire)
    except BaseException:
        wire.close()
        raise
    return wire
