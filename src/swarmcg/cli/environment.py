"""The environment that ``swarmcg run`` passes on: all of ours, exactly, and what the flags add."""

import os
from collections.abc import Iterable, Mapping

from swarmcg.cli.parser import UsageError

__all__ = ["added", "inherited"]


def inherited() -> dict[str, str]:
    """The environment that this process was started with, byte for byte (as surrogate escapes).

    Not os.environ: in a C locale Python itself adds LC_CTYPE (PEP 538), which the command must not see.
    Entries without a name cannot be passed on by Python and are left out.
    """
    try:
        with open("/proc/self/environ", "rb") as f:
            entries = f.read().split(b"\0")
    except OSError:
        return dict(os.environ)
    pairs = (
        entry.partition(b"=") for entry in reversed(entries)
    )  # the first of a name wins, as in getenv(3)
    return {os.fsdecode(name): os.fsdecode(value) for name, equals, value in pairs if name and equals}


def added(words: Iterable[str], files: Iterable[str], ours: Mapping[str, str]) -> dict[str, str]:
    """What ``-e`` and ``--env-file`` add. ``NAME`` alone takes our value, or is nothing if we have none; later
    ones win, and ``-e`` wins over files.
    """
    lines = [line for path in files for line in _lines(path)]
    found: dict[str, str] = {}
    for place, entry in [*lines, *(("-e", word) for word in words)]:
        name, equals, value = entry.partition("=")
        _check(place, name, entry)
        if equals:
            found[name] = value
        elif name in ours:
            found[name] = ours[name]
    return found


def _check(place: str, name: str, entry: str) -> None:
    if not name or "\0" in entry or (place != "-e" and any(c.isspace() for c in name)):
        raise UsageError(
            f"{place} names no variable",
            value=entry,
            cause="a variable is NAME or NAME=VALUE, without spaces in its name",
            remedy="Correct it.",
        )


def _lines(path: str) -> list[tuple[str, str]]:
    """The lines of the file that say something, each after its place: no comments, no empty ones; space before a
    name is cut.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as f:
            lines = [line.rstrip("\r\n").lstrip() for line in f]
    except OSError as e:
        raise UsageError(
            "--env-file cannot be read", path=path, errno=e.errno, remedy="Name a file that can be read."
        ) from e
    return [
        (f"--env-file {path}, line {number}:", line)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]
