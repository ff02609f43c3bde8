"""What went wrong with a start, in words for who must act."""

import errno
import sys
from typing import Any, Final

from swarmcg.errors import StartError
from swarmcg.keeper.spawn import Order

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["start_error"]


def start_error(event: dict[str, Any], order: Order) -> StartError:
    """What the keeper told, in words. The remedies are for the steps that users meet."""
    step, number = event["step"], event["errno"]
    subject = order.cwd if step == "chdir" else order.argv[0]
    return StartError(
        f"The command could not be started: {step} failed",
        step=step,
        path=event["path"] or subject,
        errno=number or None,
        cause=event["cause"],
        remedy=_REMEDIES.get((step, number or 0)) or _REMEDIES.get((step, 0)),
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
