"""Lists of processors and memory nodes, as cpuset spells them: ``0-3,7``."""

import re
from typing import Final

__all__ = ["Ranges", "is_within", "parse"]

Ranges = tuple[tuple[int, int], ...]
"""Closed ranges, sorted and apart; so that ``0-4294967295`` costs no more than ``0``."""

_RANGE: Final = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


def parse(text: str) -> Ranges:
    """The list as merged ranges; ValueError when it is none. An empty text is an empty list."""
    return _merged(sorted(_range(word) for word in text.split(","))) if text else ()


def is_within(inner: Ranges, outer: Ranges) -> bool:
    """Whether every number of the one is in the other."""
    return all(any(low <= first and last <= high for low, high in outer) for first, last in inner)


def _range(word: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(word)
    if not found:
        raise ValueError(f"{word!r} is neither a number nor a range of numbers")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise ValueError(f"the range {word!r} runs backwards")
    return first, last


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
