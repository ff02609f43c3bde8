"""``pids`` of the OCI resources: the controller pids."""

from collections.abc import Iterator
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources.abilities import Abilities
from swarmcg.resources.rows import nonsense, written
from swarmcg.resources.spec import LinuxResources

__all__ = ["plan"]

# PID_MAX_LIMIT of 64-bit kernels; pids.max takes nothing above it.
_MOST: Final = 4_194_304


def plan(resources: LinuxResources, abilities: Abilities) -> Iterator[Row]:  # noqa: ARG001  every controller's signature
    """The rows of ``pids``."""
    limit = None if resources.pids is None else resources.pids.limit
    if limit is None:
        return
    if limit > _MOST:
        nonsense(
            "pids.limit", limit, f"the kernel counts {_MOST} tasks at most", "Give less, or -1 for no limit."
        )
    if limit < 0:
        yield written("pids.limit", "pids.max", "max", "negative: no limit")
    elif limit == 0:
        yield written(
            "pids.limit", "pids.max", 1, "0 would forbid the bot itself, which is one task; -1 is no limit"
        )
    else:
        yield written("pids.limit", "pids.max", limit, "tasks as given")
