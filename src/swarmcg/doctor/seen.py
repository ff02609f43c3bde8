"""What was seen of a host, as plain values: no judgement, and nothing that needs Linux to be imported."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from swarmcg.resources import Abilities, Networking
from swarmcg.resources.abilities import Mode

__all__ = ["Cgroups", "HomeSeen", "Kernel", "Linux", "Place", "Python", "Seen", "Systemd"]

Switch = Literal["on", "off", "absent"]
Purpose = Literal["state", "runtime", "cache"]


class Python(msgspec.Struct, frozen=True, kw_only=True):
    """The interpreter; ``missing`` are required packages that are not installed, by the name that pip takes."""

    version: tuple[int, int]
    executable: str
    missing: tuple[str, ...] = ()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that swarmcg writes to, or the nearest one above it that exists.

    ``answered`` is False when its file system did not answer in time, ``refused`` is why nobody could be sent to look;
    nothing else is known then. ``exists`` is the
    nearest existing path. ``syncs`` says that fsync(2) works there. ``free_bytes`` and ``free_files`` are what this
    user may still use (None: not told).
    """

    purpose: Purpose
    path: str
    answered: bool = True
    refused: str = ""
    exists: str = "/"
    directory: bool = True
    writable: bool = True
    kind: str = ""
    syncs: bool = True
    free_bytes: int | None = None
    free_files: int | None = None


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's own abilities, whatever the cgroups look like.

    ``pidfd``: pidfd_open(2) works. ``log``: /dev/kmsg can be read. ``bpf``: what a device program met when it was
    loaded, 0 or an errno. ``swap_bytes``: all swap of the host.
    ``open_files``: the hard limit of this process. ``rdma``: there is an RDMA device.
    """

    release: str
    version: tuple[int, int]
    pidfd: bool = True
    psi: Switch = "on"
    log: bool = True
    bpf: int = 0
    swap_bytes: int = 0
    open_files: int = 1 << 20
    rdma: bool = False
    hugepages: Mapping[str, int] = {}


class Cgroups(msgspec.Struct, frozen=True, kw_only=True):
    """How cgroups are mounted, and where this process is in them.

    ``root`` is the part of the tree that the mount shows. ``name`` is our own cgroup as the kernel calls it, ``own``
    the directory where it can be seen (None: nowhere). ``files`` are the interface files of cgroups that exist here
    (None: there are none). ``namespace`` and ``pid_namespace`` say that this process has one of its own, as in a
    container.
    """

    mode: Mode
    mount: str | None
    root: str = "/"
    options: frozenset[str] = frozenset()
    writable: bool = True
    own: str | None = None
    name: str | None = None
    v1: frozenset[str] = frozenset()
    files: frozenset[str] | None = None
    namespace: bool = False
    pid_namespace: bool = False


class HomeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Where slices would be made. ``path`` is None when there is no place, and then ``why`` and ``remedy`` tell.

    ``to_come`` says that systemd makes the place when something is started, ``missing`` that one which was named is not
    there and would be made then. ``served`` is None where the place is not
    the bots unit's, else whether a process of ours serves that. ``abilities`` are those of the place, or of
    where it would be. ``ownerless`` are slices that nobody owns (None: they cannot be looked at).
    """

    path: str | None
    why: str = ""
    remedy: str | None = None
    to_come: bool = False
    missing: bool = False
    served: bool | None = None
    abilities: Abilities
    ownerless: tuple[str, ...] | None = ()


class Systemd(msgspec.Struct, frozen=True, kw_only=True):
    """The systemd that runs here. ``version`` is None when it did not tell.

    ``delegated`` are the controllers that this user's manager has (None: no such manager runs; always None for root).
    ``bots_unit`` are properties of swarmcg-bots.service as ``systemctl show`` has them, empty when it did not answer.
    """

    version: int | None
    delegated: frozenset[str] | None = None
    bots_unit: Mapping[str, str] = {}


class Linux(msgspec.Struct, frozen=True, kw_only=True):
    """A Linux host, as seen by one user. ``systemd`` is None where it does not run, ``network`` is what packet rules
    can do.
    """

    uid: int
    kernel: Kernel
    cgroups: Cgroups
    home: HomeSeen
    network: Networking = Networking()
    systemd: Systemd | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A host. ``platform`` is Python's name for it; ``linux`` is None elsewhere."""

    platform: str
    python: Python
    places: tuple[Place, ...] = ()
    linux: Linux | None = None
