"""What a value that is read back from a slice's attributes may be.

A bot of our own user, root's above all, can write the attributes of its slice. What is beyond these bounds was not
written by us: it counts as if nothing had been recorded.
"""

import sys
from typing import Annotated, Final

import msgspec

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "Count",
    "ExitCode",
    "LimitFile",
    "Limited",
    "Moment",
    "Pathname",
    "Pid",
    "Seconds",
    "SignalNumber",
    "tellable",
]

_LIMIT_FILE: Final = r"^((cpu|cpuset|memory|io|pids|hugetlb|rdma|misc)\.[A-Za-z0-9_.]+|cgroup\.max\.[a-z]+)$"

Moment = Annotated[float, msgspec.Meta(ge=0, lt=1 << 37)]
"""Seconds since 1970, until the year 6325: a date can be made of them, and shown."""
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1 << 32)]
Pid = Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
ExitCode = Annotated[int, msgspec.Meta(ge=0, lt=1 << 8)]
SignalNumber = Annotated[int, msgspec.Meta(gt=0, le=64)]
Pathname = Annotated[str, msgspec.Meta(pattern=r"^[^\0]+\Z")]
Limited = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+\Z")]
"""What a limit is on: an interface file of the slice's own directory, or a field that has no file. In a cgroup's
directory there is nothing else that could be read, no FIFO and no link."""
LimitFile = Annotated[str, msgspec.Meta(pattern=_LIMIT_FILE)]
"""A file that an update may write: none that moves processes."""


def tellable(*values: object) -> bool:
    """Whether a report can hold this: JSON's escapes can say halves of characters, which are no text."""
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError:
        return False
    return True
