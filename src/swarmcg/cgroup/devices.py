"""The block devices and huge page sizes that this host has, for the io and hugetlb controllers."""

import contextlib
import os
import re
import sys

from swarmcg.cgroup.files import read_text
from swarmcg.resources import Disk

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["disks", "hugepages"]

_BLOCK = "/sys/dev/block"
_HUGE = "/sys/kernel/mm/hugepages"


def disks() -> dict[str, Disk] | None:
    """Every block device by ``MAJ:MIN``, or None where sysfs is not to be had."""
    try:
        numbers = os.listdir(_BLOCK)
    except OSError:
        return None
    return {number: _disk(number) for number in numbers}


def _disk(number: str) -> Disk:
    directory = os.path.realpath(f"{_BLOCK}/{number}")
    # A partition's directory lies in its disk's; the io controller throttles whole disks only.
    disk = os.path.dirname(directory) if os.path.exists(f"{directory}/partition") else directory
    return Disk(
        name=os.path.basename(directory), whole=_text(f"{disk}/dev") or number, scheduler=_scheduler(disk)
    )


def _scheduler(disk: str) -> str | None:
    active = re.search(r"\[([^]]+)]", _text(f"{disk}/queue/scheduler") or "")
    return active[1] if active else None


def hugepages() -> frozenset[str]:
    """The huge page sizes as hugetlb names its files: ``2MB``, ``1GB``."""
    with contextlib.suppress(OSError):
        sizes = [re.fullmatch(r"hugepages-(\d+)kB", name) for name in os.listdir(_HUGE)]
        return frozenset(_spelled(int(size[1])) for size in sizes if size)
    return frozenset()


def _spelled(kilobytes: int) -> str:
    for unit, factor in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kilobytes >= factor:
            return f"{kilobytes // factor}{unit}"
    return f"{kilobytes}KB"


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return read_text(path)
    return None
