"""What went wrong with a start, in words for who must act."""

import errno
import sys
from typing import Any, Final

from swarmcg.bot import Reason
from swarmcg.errors import StartError
from swarmcg.keeper.spawn import Order

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["KILLED", "start_error"]

KILLED: Final = "killed before exec"
"""The step of a child that was killed between fork and exec."""


def start_error(
    event: dict[str, Any], order: Order, *, oom: Reason | None = None, memory_max: str | None = None
) -> StartError:
    """What the keeper told, in words. The remedies are for the steps that users meet.

    ``oom`` is for a child that was killed: whose limit was hit, if that is why; ``memory_max`` the slice's own limit.
    """
    step, number = event["step"], event["errno"]
    if step == KILLED:
        return _killed(event, order, oom, memory_max)
    subject = order.cwd if step == "chdir" else order.argv[0]
    return StartError(
        f"The command could not be started: {step} failed",
        step=step,
        path=event["path"] or subject,
        errno=number or None,
        cause=event["cause"],
        remedy=_REMEDIES.get((step, number or 0)) or _REMEDIES.get((step, 0)),
    )


def _killed(event: dict[str, Any], order: Order, oom: Reason | None, memory_max: str | None) -> StartError:
    cause, remedy = (
        event["cause"],
        "See who killed it: journalctl -k, and what watches processes on this host.",
    )
    if oom == "oom-own-limit":
        cause = f"memory.max {memory_max} is too small to start a program"
        remedy = "Give at least 1 MiB (-m 1m, or memory.limit 1048576), and what the program itself needs."
    elif oom is not None:
        cause = f"it was killed for want of memory, not by its own limit ({oom})"
        remedy = "Free memory on this host, or raise memory.max of the cgroups above the slice."
    return StartError(
        "The command could not be started: it was killed before its program was executed",
        step=KILLED,
        path=order.argv[0],
        cause=cause,
        remedy=remedy,
    )


_REMEDIES: Final = {
    (
        "exec",
        errno.ENOENT,
    ): "See that the program, and the interpreter that its first line names, exist and are in PATH.",
    ("exec", errno.EACCES): "Make it executable: chmod +x.",
    ("exec", errno.ENOEXEC): "Give the script a first line like #!/bin/sh, or name its interpreter.",
    ("exec", errno.E2BIG): "Shorten the arguments or the environment.",
    ("fork", errno.EAGAIN): "Raise that limit, or end some of what runs there.",
    ("chdir", errno.ENOENT): "Make the directory, or name another one.",
    ("join", 0): "See that the home is a domain cgroup of a writable cgroup2 mount.",
}
