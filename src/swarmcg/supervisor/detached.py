"""A command that is started in the bots unit and outlives whoever started it."""

import os
import sys
from collections.abc import Mapping, Sequence

import msgspec

from swarmcg.journald import stream
from swarmcg.supervisor.client import UnitConnection
from swarmcg.supervisor.launch import Launch
from swarmcg.supervisor.supervised import SupervisedBot
from swarmcg.supervisor.unit import no_unit, reach

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["start_detached"]


def start_detached(
    launch: Launch, argv: Sequence[str], env: Mapping[str, str], *, cwd: str | None
) -> SupervisedBot:
    """Starts it in a session of its own, without input; what it says goes to systemd's journal, or else nowhere.

    Raises HomeError when there is no unit, and what a start raises.
    """
    wire = reach()
    if wire is None:
        raise no_unit()
    connection = UnitConnection(wire)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    out = stream(launch.bot_id)
    said = null if out is None else out
    try:
        launch = msgspec.structs.replace(launch, detach=True, service=True)
        return connection.reserve().start(launch, argv, env, cwd=cwd or os.getcwd(), stdio=(null, said, said))
    finally:
        os.close(null)
        if out is not None:
            os.close(out)
