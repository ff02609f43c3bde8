"""Looks at this host, without changing anything on it, and within a bound of some seconds."""

import sys

from swarmcg.doctor.look.places import kinds, look_at_places
from swarmcg.doctor.look.python import look_at_python
from swarmcg.doctor.seen import Linux, Seen

__all__ = ["look"]


def look(home: str | None = None) -> Seen:
    """This host as this user sees it; ``home`` names the cgroup for slices, else one is found. Raises nothing."""
    return Seen(
        platform=sys.platform,
        python=look_at_python(),
        places=look_at_places(kinds(_mountinfo())),
        linux=_linux(home),
    )


def _linux(home: str | None) -> Linux | None:
    if sys.platform != "linux":
        return None
    from swarmcg.doctor.look.linux import look_at_linux  # noqa: PLC0415  Linux only

    return look_at_linux(home)


def _mountinfo() -> list[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
            return f.read().splitlines()
    except OSError:
        return []
