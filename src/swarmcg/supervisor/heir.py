"""The heir: started by a keeper whose owner died, it takes that owner's slices over, ends them by the ladder,
and reports.
"""

import select
import socket
import sys
import time
from typing import Any, Final, NamedTuple

from swarmcg.cgroup.find import home_of
from swarmcg.cgroup.slice import Slice
from swarmcg.journal import Journal
from swarmcg.journald import speak
from swarmcg.keeper.wire import Wire
from swarmcg.places import places
from swarmcg.supervisor.incarnation import Nobody
from swarmcg.supervisor.service import deafen, end_all
from swarmcg.supervisor.supervisor import Supervisor

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Legacy", "bequest", "end", "main"]


_BEQUEST_S: Final = 60.0
"""A keeper hands all over at once. One that was stopped meanwhile sees that its heir has ended, and starts another."""


class Legacy(NamedTuple):
    """A slice that a keeper hands over.

    ``pidfd`` is its main process while the keeper will yet tell how that ends; None when it has told all that it knows.
    """

    held: Slice
    pidfd: int | None


def main(fd: int) -> None:
    """Takes over what the keeper at the other end of ``fd`` bequeaths, and returns when nothing of it is
    left.
    """
    wire = Wire(socket.socket(fileno=fd))
    slices, _, _ = bequest(wire)
    end(wire, slices)


def end(wire: Wire, slices: list[Legacy]) -> None:
    """Ends all of them by the ladder."""
    deafen()
    speak()
    if not slices:
        return
    first = slices[0].held
    supervisor = Supervisor(home_of(first.path, first.recall("intent")), Journal(places().reports), wire=wire)
    for held, pidfd in slices:
        supervisor.adopt(held, Nobody(), pidfd=pidfd)
    supervisor.catch_up()
    end_all(supervisor)


def bequest(wire: Wire) -> tuple[list[Legacy], dict[str, Any], list[int]]:
    """Every slice that the keeper hands over, whose lock comes with its descriptor; its note, and what it held.

    Raises TimeoutError when the keeper has not handed over all within 60 s.
    """
    end = time.monotonic() + _BEQUEST_S
    slices: list[Legacy] = []
    poll = select.poll()
    poll.register(wire.fileno(), select.POLLIN)
    while not wire.ended:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError("the keeper does not hand over what it has: somebody stopped it")
        for message, fds in wire.receive():
            if message["event"] == "bequeathed all":
                return slices, message["note"], fds
            if message["event"] == "bequeathed":
                slices.append(_inherit(message, fds))
    return slices, {}, []


def _inherit(message: dict[str, Any], fds: list[int]) -> Legacy:
    # A unit's keeper outlives an upgrade, and an older one says nothing of a child.
    return Legacy(Slice(message["path"], fds[0]), fds[1] if message.get("child") else None)
