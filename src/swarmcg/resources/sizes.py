"""Sizes, times and processors as people write them: ``512M``, ``1.5G``, ``25%``, ``100ms``, ``1.5``."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

__all__ = [
    "MOST_DIGITS",
    "UnreadableError",
    "cpus",
    "memory",
    "microseconds",
    "number",
    "or_unlimited",
    "rate",
    "size",
    "whole",
]

_UNLIMITED: Final = frozenset({"-1", "max"})
"""How people write that there is no limit."""

MOST_DIGITS: Final = 40

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([bkmgtp])?(?:(?<=[kmgtp])i?b)?", re.ASCII | re.IGNORECASE)
_BITS: Final = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt])?(i)?bits?(?:/s|ps)?", re.ASCII | re.IGNORECASE)
_SHARE: Final = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)?", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?|\.\d+", re.ASCII)
_WHOLE: Final = re.compile(r"[+-]?\d+", re.ASCII)
_POWERS: Final = "bkmgtp"
_MICROSECONDS: Final = {"us": 1, "ms": 1000, "s": 1_000_000}
_WHOLE_SHARE: Final = 100
_LEAST_QUOTA: Final = 1000  # kernel/sched/core.c, min_cfs_quota_period


class UnreadableError(ValueError):
    """The text is none of these; ``cause`` says why, ``remedy`` what to write."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.cause: Final = cause
        self.remedy: Final = remedy


def or_unlimited(text: str, read: Callable[[str], int]) -> int:
    """What ``read`` makes of the text, and -1 for no limit; the error of another text says how to write that."""
    if text in _UNLIMITED:
        return -1
    try:
        return read(text)
    except UnreadableError as e:
        raise UnreadableError(e.cause, f"{e.remedy} -1 or max: without limit.") from None


def size(text: str) -> int:
    """Bytes, as docker reads them: units of 1024, in either case, a fraction of a byte cut off."""
    found = _SIZE.fullmatch(text) if len(text) <= MOST_DIGITS else None
    if found is None:
        why = "no percentage is possible here" if text.endswith("%") else "it is not a size in bytes"
        raise UnreadableError(why, "Give bytes, or a number with a unit: 512m, 1.5g, 64k.")
    factor = 1024 ** _POWERS.index((found[2] or "b").lower())
    return int(Decimal(found[1]) * factor)


def rate(text: str) -> int:
    """Bytes a second, as :func:`size` reads them. Many programs count bits there, so the cure counts them over."""
    try:
        return size(text)
    except UnreadableError as e:
        cause = e.cause
    found = _BITS.fullmatch(text) if len(text) <= MOST_DIGITS else None
    if found is None:
        raise UnreadableError(
            cause, "Give bytes a second: 1250000, 512k, 10m. A million bits are 125000 bytes."
        )
    bits = Decimal(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index((found[2] or " ").lower())
    raise UnreadableError(
        "it counts bits, and a rate is in bytes a second", f"Give {math.ceil(bits / 8)} for {text}."
    )


def memory(text: str, total: Callable[[], int]) -> int:
    """The same, and a percentage of the host's memory, which ``total`` tells in bytes when it is asked for."""
    found = _SHARE.fullmatch(text) if len(text) <= MOST_DIGITS else None
    if found is None:
        if text.endswith("%"):
            raise UnreadableError("it is no percentage", "Give one such as 25% or 12.5%.")
        return size(text)
    share = Decimal(found[1])
    if not 0 < share <= _WHOLE_SHARE:
        raise UnreadableError(
            "it is not more than 0% and at most 100% of the host's memory",
            "Give a percentage in between, as in 25%, or a size, as in 512m.",
        )
    return int(share * total() / _WHOLE_SHARE)


def whole(text: str) -> int:
    """A whole number; its range is judged where its meaning is known."""
    if len(text) > MOST_DIGITS or not _WHOLE.fullmatch(text):
        raise UnreadableError("it is no whole number", "Give a whole number, as in 100.")
    return int(text)


def number(text: str) -> Decimal:
    """A number that is not negative, with or without a fraction."""
    if len(text) > MOST_DIGITS or not _NUMBER.fullmatch(text):
        raise UnreadableError("it is no number of 0 or more", "Give one, as in 1.5.")
    return Decimal(text)


def microseconds(text: str) -> int:
    """A length of time in whole microseconds: a number of them, or one with ``us``, ``ms`` or ``s``."""
    found = _TIME.fullmatch(text) if len(text) <= MOST_DIGITS else None
    length = Decimal(found[1]) * _MICROSECONDS[found[2] or "us"] if found else None
    if length is None or length != int(length):
        why = "it is no whole number of microseconds"
        raise UnreadableError(why, "Give microseconds, or a number with us, ms or s: 50000, 50ms.")
    return int(length)


def cpus(text: str, period: int) -> int:
    """A number of processors as the quota for one period, both in microseconds; 0 is 0, no limit -1."""
    return or_unlimited(text, lambda text: _quota(text, period))


def _quota(text: str, period: int) -> int:
    if text.endswith("%"):
        why = "a percentage could be one of a processor or of the whole host"
        raise UnreadableError(why, "Give a number of processors, as in 0.5.")
    count = number(text)
    quota = int(count * period)
    if count and quota < _LEAST_QUOTA:
        why = f"the kernel gives no less than {_LEAST_QUOTA} microseconds in a period of {period}"
        raise UnreadableError(why, f"Give {Decimal(_LEAST_QUOTA) / period} or more.")
    return quota
