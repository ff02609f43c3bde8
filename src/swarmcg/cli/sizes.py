"""Numbers as people write them on a command line: ``512m``, ``1.5g``, ``90s``, ``1.5`` processors."""

import re
from decimal import Decimal
from typing import Final

from swarmcg.bot import check_grace
from swarmcg.cli.parser import UsageError
from swarmcg.errors import ConfigError

__all__ = ["cpus", "grace", "number", "size", "size_or_unlimited", "whole"]

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([bkmgtp])?(?:(?<=[kmgtp])i?b)?", re.ASCII | re.IGNORECASE)
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)([smh])?", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d+", re.ASCII)
_POWERS: Final = "bkmgtp"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_MOST_DIGITS: Final = 40


def size(flag: str, text: str) -> int:
    """Bytes, as docker reads them: units of 1024, in either case, a fraction of a byte cut off."""
    found = _SIZE.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if found is None:
        raise _wrong(flag, text, "it is no size", "Give bytes, or a number with a unit: 512m, 1.5g, 64k.")
    factor = 1024 ** _POWERS.index((found[2] or "b").lower())
    return int(Decimal(found[1]) * factor)


def size_or_unlimited(flag: str, text: str) -> int:
    """The same, and -1 for no limit."""
    return -1 if text == "-1" else size(flag, text)


def whole(flag: str, text: str) -> int:
    """A whole number; its range is judged where its meaning is known."""
    if len(text) > _MOST_DIGITS or not _WHOLE.fullmatch(text):
        raise _wrong(flag, text, "it is no whole number", "Give a whole number, as in 100.")
    return int(text)


def number(flag: str, text: str) -> Decimal:
    """A number that is not negative, with or without a fraction."""
    if len(text) > _MOST_DIGITS or not _NUMBER.fullmatch(text):
        raise _wrong(flag, text, "it is no number", "Give a number, as in 1.5.")
    return Decimal(text)


def cpus(flag: str, text: str, period: int) -> int:
    """A number of processors as the quota for one period, both in microseconds; 0 as docker has it: unset."""
    count = number(flag, text)
    quota = int(count * period)
    if count and quota < _LEAST_QUOTA:
        cause = f"the kernel gives no less than {_LEAST_QUOTA} microseconds in a period of {period}"
        raise _wrong(flag, text, cause, f"Give {Decimal(_LEAST_QUOTA) / period} or more.")
    return quota


_LEAST_QUOTA: Final = 1000  # kernel/sched/core.c, min_cfs_quota_period


def grace(flag: str, text: str) -> float:
    """Seconds, from ``180``, ``90s``, ``3m`` or ``1h``."""
    found = _TIME.fullmatch(text) if len(text) <= _MOST_DIGITS else None
    if found is None:
        raise _wrong(flag, text, "it is no time", "Give seconds, or a number with s, m or h: 180, 90s, 3m.")
    try:
        return check_grace(float(Decimal(found[1]) * _SECONDS[found[2] or "s"]))
    except ConfigError as e:
        raise _wrong(flag, text, e.cause or "", "Give a time in this range.") from None


def _wrong(flag: str, text: str, cause: str, remedy: str) -> UsageError:
    return UsageError(f"{flag} cannot be used", value=text, cause=cause, remedy=remedy)
