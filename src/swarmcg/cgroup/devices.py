"""The block devices and huge page sizes that this host has, for the io and hugetlb controllers."""

import contextlib
import os
import re
import sys

from swarmcg.cgroup.files import read_text
from swarmcg.resources import Disk
from swarmcg.resources.hugetlb import page_size

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["disks", "hugepages"]

_BLOCK = "/sys/dev/block"
_HUGE = "/sys/kernel/mm/hugepages"


def disks(mount: str | None) -> dict[str, Disk] | None:
    """Every block device by ``MAJ:MIN``, or None where sysfs is not to be had; ``mount`` is the top of cgroup2."""
    try:
        numbers = os.listdir(_BLOCK)
    except OSError:
        return None
    costed = _costed(mount)
    return {number: _disk(number, costed) for number in numbers}


def _costed(mount: str | None) -> frozenset[str]:
    """The disks on which io.cost is on: lines like ``8:0 enable=1 …`` of io.cost.qos, a file of the root alone."""
    lines = (_text(f"{mount}/io.cost.qos") or "").splitlines() if mount else []
    return frozenset(line.split()[0] for line in lines if "enable=1" in line.split())


def _disk(number: str, costed: frozenset[str]) -> Disk:
    directory = os.path.realpath(f"{_BLOCK}/{number}")
    # A partition's directory lies in its disk's; the io controller throttles whole disks only.
    disk = os.path.dirname(directory) if os.path.exists(f"{directory}/partition") else directory
    whole = _text(f"{disk}/dev") or number
    name = os.path.basename(directory)
    return Disk(name=name, whole=whole, scheduler=_scheduler(disk), iocost=whole in costed)


def _scheduler(disk: str) -> str | None:
    active = re.search(r"\[([^]]+)]", _text(f"{disk}/queue/scheduler") or "")
    return active[1] if active else None


def hugepages() -> frozenset[str]:
    """The huge page sizes as hugetlb names its files: ``2MB``, ``1GB``."""
    with contextlib.suppress(OSError):
        return frozenset(filter(None, map(page_size, os.listdir(_HUGE))))
    return frozenset()


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return read_text(path)
    return None
