"""What a host can do for a slice, as a plain value: probed elsewhere, once, and passed in."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

__all__ = ["UNSEEN", "Abilities", "DeviceControl", "Disk", "Lack", "Networking"]

Mode = Literal["unified", "hybrid", "legacy", "none"]


class Lack(msgspec.Struct, frozen=True):
    """Why a controller is not to be had at the home, and the command or setting that brings it."""

    why: str
    remedy: str


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A block device, as the io controller sees it.

    ``whole`` is the ``MAJ:MIN`` of the disk that the kernel throttles: the device itself, or for a partition
    its disk. ``below`` are those of the disks that carry a mapped device (LVM, LUKS, RAID), which is throttled
    itself but has no scheduler; ``label`` is what people call one: ``LVM volume vg-root``. ``scheduler`` is the
    active one (``bfq``, ``mq-deadline``, ``none``); ``iocost`` whether io.cost is on.
    """

    name: str
    whole: str
    below: tuple[str, ...] = ()
    label: str | None = None
    scheduler: str | None = None
    iocost: bool = False

    @property
    def may_heed_weights(self) -> bool:
        """Whether it is a disk that gains by sharing its time: not memory, removable media, nor what hands its
        requests on to others.
        """
        return self.scheduler is not None and not self.name.startswith(_NO_DISKS)


_NO_DISKS: Final = ("loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md")


class Networking(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done here with the packets of a slice; looked at only for those who ask for it.

    ``lack`` says why packets cannot be told by the cgroup of their socket, None where they can. ``links`` maps
    the name of each network interface to the root qdisc that another program gave it (``htb 1:``), None where
    it has the kernel's own. ``default`` is the one interface of the default routes. ``ingress`` says why what is
    received cannot be limited although packets can be told.
    """

    lack: Lack | None = None
    ingress: Lack | None = None
    links: Mapping[str, str | None] = {}
    default: str | None = None


class DeviceControl(msgspec.Struct, frozen=True, kw_only=True):
    """What can be done here about the devices of a slice.

    ``lack`` says why no device program can be put on a slice, None where it can. ``above`` names cgroups which
    have device rules of their own, made by others: an access must be allowed by these, too.
    """

    lack: Lack | None = None
    above: tuple[str, ...] = ()


UNSEEN: Final = DeviceControl(
    lack=Lack(
        "nobody has looked whether a device program can be put on a slice here",
        "Pass what the host can do, in Abilities.devices.",
    )
)
"""Nobody has looked."""

_NETWORK_UNSEEN: Final = Networking(
    lack=Lack(
        "nobody has looked whether packets can be told by their cgroup here",
        "Pass what the host can do, in Abilities.network.",
    )
)


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel offers to a slice below one home.

    ``controllers`` can be enabled for slices; ``lacking`` explains each that cannot. ``files`` are the
    interface files a fresh slice has, or None when nobody could look (then a controller's ordinary files are
    assumed). ``hugepages`` are sizes as hugetlb spells them (``2MB``, ``1GB``). ``disks`` maps ``MAJ:MIN`` to
    block devices; None when they are not known. ``cpus`` and ``mems`` are the lists that the home may hand
    out, None when unknown. ``granted`` is what all ancestors of a slice grant it of ``memory.low`` and
    ``memory.min``, in bytes (None: unknown or unlimited). ``devices`` is what can be done about these,
    ``network`` what packet rules can do here.
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
    devices: DeviceControl = UNSEEN
    network: Networking = _NETWORK_UNSEEN
