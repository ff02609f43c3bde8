"""Numbers as people write them on a command line: ``512m``, ``25%``, ``90s``, ``1.5`` processors."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeVar

from swarmcg.bot import check_grace
from swarmcg.cli.parser import UsageError
from swarmcg.errors import ConfigError
from swarmcg.resources import sizes

__all__ = [
    "cpus",
    "grace",
    "host_memory",
    "memory",
    "memory_or_unlimited",
    "microseconds",
    "quota",
    "rate",
    "whole",
    "whole_or_unlimited",
]

T = TypeVar("T")

_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smh])?", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


def rate(flag: str, text: str) -> int:
    """Bytes a second, as docker reads them: units of 1024, in either case, a fraction of a byte cut off."""
    return _read(flag, text, sizes.rate)


def memory(flag: str, text: str) -> int:
    """Bytes, likewise, or a percentage of the host's memory."""
    return _read(flag, text, _memory)


def memory_or_unlimited(flag: str, text: str) -> int:
    """The same, and -1 for no limit, which people write ``-1`` or ``max``."""
    return _read(flag, text, lambda text: sizes.or_unlimited(text, _memory))


def host_memory() -> int:
    """The bytes of memory that this host has."""
    import psutil  # noqa: PLC0415  slow to import, and seldom needed

    return int(psutil.virtual_memory().total)


def whole(flag: str, text: str) -> int:
    """A whole number; its range is judged where its meaning is known."""
    return _read(flag, text, sizes.whole)


def whole_or_unlimited(flag: str, text: str) -> int:
    """The same, and -1 for ``max``."""
    return _read(flag, text, lambda text: sizes.or_unlimited(text, sizes.whole))


def microseconds(flag: str, text: str) -> int:
    """A length of time in microseconds, from ``50000``, ``50ms`` or ``1s``."""
    return _read(flag, text, sizes.microseconds)


def quota(flag: str, text: str) -> int:
    """The same, and -1 for no limit; OCI takes every negative quota for that."""
    read = sizes.whole if text.startswith("-") else sizes.microseconds
    return _read(flag, text, lambda text: sizes.or_unlimited(text, read))


def cpus(flag: str, text: str, period: int) -> int:
    """A number of processors as the quota for one period, both in microseconds; 0 as docker has it: unset."""
    return _read(flag, text, lambda text: sizes.cpus(text, period))


def grace(flag: str, text: str) -> float:
    """Seconds, from ``180``, ``90s``, ``3m`` or ``1h``."""
    found = _TIME.fullmatch(text) if len(text) <= sizes.MOST_DIGITS else None
    if found is None:
        raise _wrong(
            flag,
            text,
            "it is not a length of time",
            "Give seconds, or a number with s, m or h: 180, 90s, 3m.",
        )
    try:
        return check_grace(float(Decimal(found[1]) * _SECONDS[found[2] or "s"]))
    except ConfigError as e:
        raise _wrong(flag, text, e.cause or "", "Give a time in this range.") from None


def _memory(text: str) -> int:
    return sizes.memory(text, host_memory)


def _read(flag: str, text: str, read: Callable[[str], T]) -> T:
    try:
        return read(text)
    except sizes.UnreadableError as e:
        raise _wrong(flag, text, e.cause, e.remedy) from None


def _wrong(flag: str, text: str, cause: str, remedy: str) -> UsageError:
    return UsageError(f"{flag} cannot be used", value=text, cause=cause, remedy=remedy)
