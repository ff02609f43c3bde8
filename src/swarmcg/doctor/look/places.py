"""The directories that swarmcg writes to, each looked at by a process of its own, all at once and within a bound."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from swarmcg.doctor.look import place
from swarmcg.doctor.seen import Place, Purpose
from swarmcg.places import places

__all__ = ["look_at_places"]

_WITHIN_S: Final = 5.0
_AT_LEAST_S: Final = 0.5
"""To take in an answer that is there, after somebody else's has used the time up."""
_AFTER_KILL_S: Final = 0.2

Looking = subprocess.Popen[str]


def look_at_places(mounts: Mapping[str, str], within: float = _WITHIN_S) -> tuple[Place, ...]:
    """State, runtime and cache directory. ``mounts`` maps mount points to the kind of their file systems.

    Whoever has not answered ``within`` seconds is told as such. Its process is killed and not waited for: it may sit in
    a state in which no signal reaches it.
    """
    here = places()
    wanted: tuple[tuple[Purpose, str], ...] = (
        ("state", here.state),
        ("runtime", here.runtime),
        ("cache", here.cache),
    )
    end = time.monotonic() + within
    asked = [(purpose, path, _ask(path)) for purpose, path in wanted]
    return tuple(
        Place(purpose=purpose, path=path, refused=str(looking))
        if isinstance(looking, OSError)
        else Place(purpose=purpose, path=path, **_answer(looking, end, mounts))
        for purpose, path, looking in asked
    )


def _ask(path: str) -> Looking | OSError:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", place.__file__, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError as e:
        return e


def _answer(looking: Looking, end: float, mounts: Mapping[str, str]) -> dict[str, Any]:
    try:
        text, _ = looking.communicate(timeout=max(_AT_LEAST_S, end - time.monotonic()))
        found: dict[str, Any] = json.loads(text)
    except (subprocess.TimeoutExpired, ValueError):
        _abandon(looking)
        return {"answered": False}
    return found | {"kind": kind_at(found["exists"], mounts)}


def _abandon(looking: Looking) -> None:
    looking.kill()
    if looking.stdout is not None:
        looking.stdout.close()
    try:
        looking.wait(_AFTER_KILL_S)
    except subprocess.TimeoutExpired:
        looking.returncode = 0  # nobody's any more: neither waited for nor complained about


def kind_at(path: str, mounts: Mapping[str, str]) -> str:
    """The kind of file system that a path lies on, by the longest mount point above it."""
    above = [mount for mount in mounts if f"{path.rstrip('/')}/".startswith(f"{mount.rstrip('/')}/")]
    return mounts[max(above, key=len)] if above else ""


def kinds(mountinfo: Iterable[str]) -> dict[str, str]:
    """Mount points and the kinds of their file systems, from the lines of /proc/self/mountinfo (proc(5))."""
    found = {}
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        volatile = kind == "overlay" and "volatile" in options.rstrip("\n").split(",")
        found[before.split()[4]] = "overlay,volatile" if volatile else kind
    return found
