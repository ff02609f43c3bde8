"""Numbers as the kernel reads and shows them."""

import re
from typing import Final

__all__ = ["number", "size"]

_NUMBER: Final = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]{1,64}|[0-9]{1,64})", re.ASCII)
_SIZE: Final = re.compile(r"(0[xX][0-9a-fA-F]{1,64}|[0-9]{1,64})([kKmMgGtTpPeE]?)", re.ASCII)


def number(text: str) -> int | None:
    """The number that kstrtoll reads with base 0 (octal after ``0``, hexadecimal after ``0x``); else None."""
    if not _NUMBER.fullmatch(text):
        return None
    unsigned = text.lstrip("+-")
    return (-1 if text.startswith("-") else 1) * _unsigned(unsigned)


def size(text: str) -> int | None:
    """The bytes that memparse reads, as in ``64M``; None for anything else, ``max`` among it."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        return None
    power = " kmgtpe".index(found[2].lower() or " ")
    return _unsigned(found[1]) << (10 * power)


def _unsigned(digits: str) -> int:
    if digits[:2].lower() == "0x":
        return int(digits, 16)
    octal = len(digits) > 1 and digits[0] == "0" and not set(digits) & {"8", "9"}
    return int(digits, 8 if octal else 10)
