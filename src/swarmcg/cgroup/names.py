"""Bot ids and the directory names of their slices: one to one, and safe on cgroupfs and every other file
system.

A name is ``<readable>.<incarnation>``. A usual id (lower case letters, digits, dots and dashes, at most 64)
stands in it as it is. Any other id leaves only a readable prefix, then ``_`` and 128 bits of its SHA-256. A
usual id has no ``_``, so the two kinds never meet; upper case is unusual because some file systems fold it.
The name ends in hexadecimal digits, so it is no systemd unit and no interface file of the kernel
(``cpu.max``).
"""

import hashlib
import re
import secrets
import sys
from typing import Final

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["is_slice_name", "new_incarnation", "readable", "slice_name"]

_USUAL: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?")
_UNSAFE: Final = re.compile(r"[^a-z0-9-]+")
_SLICE_NAME: Final = re.compile(r"(?:[a-z0-9.-]{1,64}|[a-z0-9-]{0,40}_[0-9a-f]{32})\.[0-9a-f]{16}")
_PREFIX: Final = 40


def new_incarnation() -> str:
    """A name for one life of a bot, never used before: 64 random bits as 16 hexadecimal digits."""
    return secrets.token_hex(8)


def readable(bot_id: str) -> str:
    """The part of a slice's name that stands for the id; different ids give different parts."""
    if _USUAL.fullmatch(bot_id):
        return bot_id
    digest = hashlib.sha256(bot_id.encode()).hexdigest()[:32]
    return f"{_UNSAFE.sub('-', bot_id.lower())[:_PREFIX].strip('-')}_{digest}"


def slice_name(bot_id: str, incarnation: str) -> str:
    """The directory name of this incarnation's slice."""
    return f"{readable(bot_id)}.{incarnation}"


def is_slice_name(name: str) -> bool:
    """Whether a directory of a home was named by :func:`slice_name`, whoever made it."""
    return _SLICE_NAME.fullmatch(name) is not None
