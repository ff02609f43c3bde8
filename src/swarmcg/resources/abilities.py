"""What a host can do for a slice, as a plain value: probed elsewhere, once, and passed in."""

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["Abilities", "Disk", "Lack"]

Mode = Literal["unified", "hybrid", "legacy", "none"]


class Lack(msgspec.Struct, frozen=True):
    """Why a controller is not to be had at the home, and the command or setting that brings it."""

    why: str
    remedy: str


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A block device, as the io controller sees it.

    ``whole`` is the ``MAJ:MIN`` of the disk that the kernel throttles: the device itself, or for a partition
    its disk. ``scheduler`` is the active one (``bfq``, ``mq-deadline``, ``none``); ``iocost`` whether io.cost
    is on.
    """

    name: str
    whole: str
    scheduler: str | None = None
    iocost: bool = False


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel offers to a slice below one home.

    ``controllers`` can be enabled for slices; ``lacking`` explains each that cannot. ``files`` are the
    interface files a fresh slice has, or None when nobody could look (then a controller's ordinary files are
    assumed). ``hugepages`` are sizes as hugetlb spells them (``2MB``, ``1GB``). ``disks`` maps ``MAJ:MIN`` to
    block devices; None when they are not known. ``cpus`` and ``mems`` are the lists that the home may hand
    out, None when unknown. ``granted`` is what all ancestors of a slice grant it of ``memory.low`` and
    ``memory.min``, in bytes (None: unknown or unlimited).
    """

    mode: Mode
    controllers: frozenset[str] = frozenset()
    lacking: Mapping[str, Lack] = {}
    files: frozenset[str] | None = None
    kernel: tuple[int, int] = (0, 0)
    page_size: int = 4096
    hugepages: frozenset[str] = frozenset()
    disks: Mapping[str, Disk] | None = None
    cpus: str | None = None
    mems: str | None = None
    granted: Mapping[str, int] = {}
