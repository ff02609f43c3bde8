"""Whether this process lives in a slice of swarmcg itself, as a task does that calls ``swarmcg run``.

What it starts must end with that slice, so it gets a home inside. The slice's own directory holds no process
(they are in ``main``), and so can hand its controllers down to a home beside ``main``: limits of the inner
slices hold, and those of the outer one hold for all of them together.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.names import is_slice_name
from swarmcg.cgroup.slice import recall
from swarmcg.errors import HomeError

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["enclosing_slice", "home_inside", "slices_inside"]

_HOME: Final = "swarmcg"


def enclosing_slice(seen: Hierarchy) -> str | None:
    """The innermost slice that this process lives in, None when there is none to be seen from here."""
    path = seen.own
    while path is not None and path != seen.mount and len(path) > 1:
        if is_slice_name(os.path.basename(path)) and _ours(path):
            return path
        path = os.path.dirname(path)
    return None


def home_inside(outer: str) -> str:
    """Where slices are made by what lives in the slice ``outer``. Raises HomeError when its user may not make any."""
    if os.access(f"{outer}/cgroup.subtree_control", os.W_OK) and os.access(outer, os.W_OK):
        return f"{outer}/{_HOME}"
    raise HomeError(
        "This process lives in a slice of swarmcg, in which its user may not make others",
        path=outer,
        cause="the slice belongs to another user, and what is started elsewhere would outlive it",
        remedy="Start it from outside of the slice, or as the user who started the slice.",
    )


def slices_inside(outer: str) -> Iterator[str]:
    """The slices that what lives in the slice ``outer`` has made, and those in them; outer ones first."""
    pending = [outer]
    while pending:
        home = f"{pending.pop(0)}/{_HOME}"
        with contextlib.suppress(OSError):  # none was made, or it is gone
            inner = [f"{home}/{name}" for name in sorted(os.listdir(home)) if is_slice_name(name)]
            yield from inner
            pending += inner


def _ours(directory: str) -> bool:
    """Whether a directory that is named like a slice is one. Of another user's only the name can be seen: trusted
    attributes are for root's eyes (xattr(7)).
    """
    try:
        return recall(directory, "intent") is not None or os.stat(directory).st_uid != os.geteuid() != 0
    except OSError:
        return False
