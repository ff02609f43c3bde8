"""The heir: started by a keeper whose owner died, it takes that owner's slices over, ends them by the ladder,
and reports.
"""

import select
import socket
import sys
from typing import Any

from swarmcg.bot import ExitReport
from swarmcg.cgroup.home import home_of
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import StuckError, SwarmcgError
from swarmcg.journal import Journal
from swarmcg.keeper.wire import Wire
from swarmcg.places import places
from swarmcg.supervisor.incarnation import Incarnation
from swarmcg.supervisor.service import deafen, end_all
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["main"]


class Nobody:
    """The Listener of slices whose owner is gone: the journal has the report."""

    def started(self, bot: Incarnation) -> None:
        """See Listener."""

    def failed(self, bot: Incarnation, error: SwarmcgError) -> None:
        """See Listener."""

    def ended(self, bot: Incarnation, report: ExitReport, trouble: SwarmcgError | None) -> None:
        """See Listener."""

    def stuck(self, bot: Incarnation, error: StuckError) -> None:
        """See Listener."""


def main(fd: int) -> None:
    """Takes over what the keeper at the other end of ``fd`` bequeaths, and returns when nothing of it is
    left.
    """
    deafen()
    wire = Wire(socket.socket(fileno=fd))
    slices = _bequest(wire)
    if not slices:
        return
    supervisor = Supervisor(home_of(slices[0]), Journal(places().reports), wire=wire)
    for held in slices:
        supervisor.adopt(held, Nobody(), orphan=False)
    end_all(supervisor)


def _bequest(wire: Wire) -> list[Slice]:
    """Every slice that the keeper hands over; the lock on each comes with its descriptor."""
    slices: list[Slice] = []
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN)
    while not wire.ended:
        poll.poll()
        for message, fds in wire.receive():
            if message["event"] == "bequeathed all":
                return slices
            slices.append(_inherit(message, fds))
    return slices


def _inherit(message: dict[str, Any], fds: list[int]) -> Slice:
    return Slice(message["path"], fds[0])
