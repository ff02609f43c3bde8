"""Whether what the kernel shows is what was written, after the rounding that it is known to do."""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final

from swarmcg.resources import cpulist, quantity

__all__ = ["settled", "unit"]

# PAGE_COUNTER_MAX of 64-bit kernels is LONG_MAX pages' worth of bytes; all that is larger is shown as max.
_MOST_BYTES: Final = 2**63 - 1
_HUGETLB: Final = re.compile(r"hugetlb\.([0-9]+)([KMG])B\.(?:rsvd\.)?max", re.ASCII)
_PAGED: Final = re.compile(r"memory\.(?:min|low|high|max|(?:swap|zswap)\.(?:high|max))", re.ASCII)
_KEYED: Final = frozenset({"io.max", "io.latency", "rdma.max"})
_DEFAULTED: Final = frozenset({"io.weight", "io.bfq.weight", "misc.max", "dmem.max", "dmem.low", "dmem.min"})
_PERCENT: Final = frozenset({"cpu.uclamp.min", "cpu.uclamp.max"})
_LISTS: Final = frozenset({"cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive"})
# iops limits are 32 bits wide in the kernel, and its largest number stands for none (block/blk-throttle.c);
# rdma's largest int does the same (kernel/cgroup/rdma.c).
_UNLIMITED: Final = {
    "rbps": 2**64 - 1,
    "wbps": 2**64 - 1,
    "riops": 2**32 - 1,
    "wiops": 2**32 - 1,
    "hca_handle": 2**31 - 1,
    "hca_object": 2**31 - 1,
}


def settled(file: str, written: str, read: str, *, page_size: int = 4096) -> bool:
    """Whether ``read`` is how the kernel shows ``written`` in this file.

    Sizes may be rounded down to a page or huge page, lists and lines may be put differently, and other
    devices' lines do not count. Anything else means that the kernel took the value differently.
    """
    written, read = " ".join(written.split()), read.strip()
    if file in _KEYED:
        return _keyed(written, read)
    if file in _DEFAULTED:
        return _defaulted(written, read)
    read = " ".join(read.split())
    if page := unit(file, page_size):
        return _rounded(written, page) == read
    return _compared(file)(written, read)


def _compared(file: str) -> Callable[[str, str], bool]:
    """How the values of a file that holds a single line without sizes are compared."""
    if file in _LISTS:
        return _same_list
    if file in _PERCENT:
        return _same_percentage
    return _bandwidth if file == "cpu.max" else _same


def _same(written: str, read: str) -> bool:
    number = quantity.number(written)
    return written == read or (number is not None and number == quantity.number(read))


def unit(file: str, page_size: int) -> int | None:
    """The bytes to which the file's sizes are rounded; None when it holds no size."""
    if found := _HUGETLB.fullmatch(file):
        return int(found[1]) << (10 * (1 + "KMG".index(found[2])))
    return page_size if _PAGED.fullmatch(file) else None


def _rounded(written: str, unit: int) -> str | None:
    if written == "max":
        return written
    asked = quantity.size(written)
    if asked is None:
        return None
    most = _MOST_BYTES // unit * unit
    return "max" if asked // unit * unit >= most else str(asked // unit * unit)


def _bandwidth(written: str, read: str) -> bool:
    """A quota alone keeps the period that was there."""
    asked, shown = written.split(" "), read.split(" ")
    return len(shown) == len(("quota", "period")) and all(map(_same, asked, shown))


def _same_percentage(written: str, read: str) -> bool:
    """Shown with two digits after the point, and cut off to the 1024ths that the kernel counts in."""
    try:
        return written == read or abs(Decimal(written) - Decimal(read)) <= Decimal("0.1")
    except InvalidOperation:
        return False


def _same_list(written: str, read: str) -> bool:
    try:
        return cpulist.parse(written.replace(" ", "")) == cpulist.parse(read)
    except ValueError:
        return False


def _keyed(written: str, read: str) -> bool:
    """``DEVICE key=value …``: a key that is not shown, or a device that is not, has no limit."""
    device, _, asked = written.partition(" ")
    lines = (line.partition(" ") for line in read.split("\n"))
    shown = next((_pairs(rest) for name, _, rest in lines if name == device), {})
    return all(
        _limit(key, value) == _limit(key, shown.get(key, "max")) for key, value in _pairs(asked).items()
    )


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in text.split())}


def _limit(key: str, value: str) -> int | str:
    number = quantity.number(value)
    most = _UNLIMITED.get(key)
    if number is None:
        return value
    return "max" if most is not None and number >= most else number


def _defaulted(written: str, read: str) -> bool:
    """``NAME value`` by line, where a value without a name is the one for ``default``."""
    name, value = _named(written)
    shown = dict(_named(" ".join(line.split())) for line in read.split("\n") if line.strip())
    if value == "default":
        return name not in shown
    return name in shown and _same(value, shown[name])


def _named(line: str) -> tuple[str, str]:
    name, _, value = line.rpartition(" ")
    return name or "default", value
