"""What a value that is read back from a slice's attributes may be.

A bot of our own user, root's above all, can write the attributes of its slice. What is beyond these bounds was not
written by us: it counts as if nothing had been recorded.
"""

import re
import sys
from typing import Annotated, Final

import msgspec

from swarmcg.bot import Row

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = [
    "Count",
    "ExitCode",
    "InForce",
    "LimitFile",
    "Limited",
    "Moment",
    "NotInForce",
    "Pathname",
    "Pid",
    "Seconds",
    "SignalNumber",
    "is_limit_file",
    "tellable",
]

_LIMIT_FILE: Final = (
    r"^((cpu|cpuset|dmem|hugetlb|io|memory|misc|pids|rdma)\.[A-Za-z0-9_.-]+|cgroup\.(max\.[a-z]+|pressure))\Z"
)
_MOST_LIMITS: Final = 2048
_MOST_ROWS: Final = 1024
"""Twice what can be: a limit that is no file is one for packets, of which fewer than 1,024 fit into an attribute (64
KiB), as do fewer than 700 rows; and a cgroup has some hundred files.
"""

Moment = Annotated[float, msgspec.Meta(ge=0, lt=1 << 37)]
"""Seconds since 1970, until the year 6325: a date can be made of them, and shown."""
Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1 << 32)]
Pid = Annotated[int, msgspec.Meta(gt=0, lt=1 << 31)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
ExitCode = Annotated[int, msgspec.Meta(ge=0, lt=1 << 8)]
SignalNumber = Annotated[int, msgspec.Meta(gt=0, le=64)]
Pathname = Annotated[str, msgspec.Meta(pattern=r"^[^\0]+\Z")]
Limited = Annotated[str, msgspec.Meta(pattern=r"^[^/\0]{1,200}\Z")]
"""What a limit is on: an interface file of the slice's own directory, or a field that has no file. In a cgroup's
directory there is nothing else that could be read, no FIFO and no link."""
LimitFile = Annotated[str, msgspec.Meta(pattern=_LIMIT_FILE)]
"""A file that an update may write: none that moves processes. Its text is one record, and no list of processes."""
InForce = Annotated[dict[Limited, str], msgspec.Meta(max_length=_MOST_LIMITS)]
NotInForce = Annotated[tuple[Row, ...], msgspec.Meta(max_length=_MOST_ROWS)]


def is_limit_file(name: str) -> bool:
    """Whether this is a :data:`LimitFile`."""
    return re.match(_LIMIT_FILE, name) is not None


def tellable(*values: object) -> bool:
    """Whether a report can hold this: JSON's escapes can say halves of characters, which are no text."""
    try:
        msgspec.json.encode(values)
    except UnicodeEncodeError:
        return False
    return True
