"""The block devices and huge page sizes that this host has, for the io and hugetlb controllers."""

import contextlib
import os
import re
import sys
from typing import Final

from swarmcg.cgroup.files import read_text
from swarmcg.resources import Disk
from swarmcg.resources.hugetlb import page_size

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["disks", "hugepages"]

_BLOCK = "/sys/dev/block"
_HUGE = "/sys/kernel/mm/hugepages"


def disks(mount: str | None, *, block: str = _BLOCK) -> dict[str, Disk] | None:
    """Every block device by ``MAJ:MIN``, or None where sysfs is not to be had; ``mount`` is the top of cgroup2.

    ``block`` is sysfs' directory with a link ``MAJ:MIN`` for each. A device that comes or goes meanwhile may be
    there or not.
    """
    try:
        numbers = os.listdir(block)
    except OSError:
        return None
    costed = _costed(mount)
    return {number: _disk(number, os.path.realpath(f"{block}/{number}"), costed) for number in numbers}


def _costed(mount: str | None) -> frozenset[str]:
    """The disks on which io.cost is on: lines like ``8:0 enable=1 …`` of io.cost.qos, a file of the root alone."""
    lines = (_text(f"{mount}/io.cost.qos") or "").splitlines() if mount else []
    return frozenset(line.split()[0] for line in lines if "enable=1" in line.split())


def _disk(number: str, directory: str, costed: frozenset[str]) -> Disk:
    disk = _whole(directory)
    whole = _text(f"{disk}/dev") or number
    return Disk(
        name=os.path.basename(directory),
        whole=whole,
        below=tuple(sorted(_carriers(disk))),
        label=_label(disk),
        scheduler=_scheduler(disk),
        iocost=whole in costed,
    )


def _whole(directory: str) -> str:
    """A partition's directory lies in its disk's; the io controller throttles whole disks only."""
    return os.path.dirname(directory) if os.path.exists(f"{directory}/partition") else directory


def _carriers(disk: str) -> set[str]:
    """The ``MAJ:MIN`` of the disks at the bottom of a mapped device; none for a disk that stands by itself."""
    carriers = set()
    for slave in _names(f"{disk}/slaves"):
        whole = _whole(os.path.realpath(f"{disk}/slaves/{slave}"))
        carriers |= _carriers(whole) or {_text(f"{whole}/dev") or slave}
    return carriers


_KINDS: Final = {"LVM": "LVM volume", "CRYPT": "encrypted device", "mpath": "multipath device"}


def _label(disk: str) -> str | None:
    """``uuid`` begins with the word of the program that set the mapping up: ``LVM-…``, ``CRYPT-LUKS2-…``."""
    if name := _text(f"{disk}/dm/name"):
        kind = (_text(f"{disk}/dm/uuid") or "").partition("-")[0]
        return f"{_KINDS.get(kind, 'mapped device')} {name}"
    return f"RAID {os.path.basename(disk)}" if os.path.exists(f"{disk}/md") else None


def _names(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


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
