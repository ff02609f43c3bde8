"""Verdicts that every platform gets: itself, the interpreter, its packages."""

from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, fail, ok, warn
from swarmcg.doctor.seen import Seen

__all__ = ["packages", "platform", "python"]

_OLDEST_PYTHON: Final = (3, 11)


def platform(seen: Seen) -> Iterator[Check]:
    """Slices are cgroups, and those are Linux's."""
    if seen.linux is not None:
        return
    yield warn(
        "platform",
        f"{seen.platform} has no cgroups: bots run, nothing of them is limited, and what leaves its tree escapes",
        "For limits and proven ends, run bots on a Linux host with cgroup v2.",
    )


def python(seen: Seen) -> Iterator[Check]:
    """The interpreter that runs swarmcg, and nothing about the one that runs bots."""
    found = ".".join(map(str, seen.python.version))
    if seen.python.version >= _OLDEST_PYTHON:
        yield ok("python", f"Python {found} ({seen.python.executable})")
    else:
        yield fail(
            "python",
            f"Python {found} is older than 3.11, which swarmcg is written for",
            "apt-get install python3.11, and install swarmcg with it.",
        )


def packages(seen: Seen) -> Iterator[Check]:
    """What pip installs with swarmcg."""
    missing = seen.python.missing
    if missing:
        names = " ".join(missing)
        yield fail("packages", f"not installed: {names}", f"{seen.python.executable} -m pip install {names}")
    else:
        yield ok("packages", "every package that swarmcg requires is installed")
