"""How this host mounts its cgroups, and where in them this process is. Read-only: nothing here changes the
host.
"""

import os
import re
import sys
from typing import Final

import msgspec

from swarmcg.cgroup.files import read_text
from swarmcg.resources.abilities import Lack, Mode

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["CONTROLLERS", "Hierarchy", "look"]

CONTROLLERS: Final = ("cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma")
"""The controllers that OCI resources speak of, in ``unified`` at least."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})", re.ASCII)
_OF_V1: Final = {"cpuacct": "cpu", "blkio": "io", "cpu": "cpu", "io": "io"}


class Hierarchy(msgspec.Struct, frozen=True, kw_only=True):
    """The cgroup2 mount and our place in it.

    ``mount`` is None when there is no cgroup2; ``root`` is the cgroup that is seen there, from the root of the
    cgroup namespace. ``own`` is this process's cgroup as a directory, None when it
    cannot be seen from here. ``v1`` are controllers that version 1 holds. ``systemd`` says whether systemd
    manages the host. ``options`` are the mount's.
    """

    mount: str | None
    writable: bool
    own: str | None
    v1: frozenset[str]
    systemd: bool
    root: str = "/"
    options: frozenset[str] = frozenset()

    @property
    def mode(self) -> Mode:
        """Unified is version 2 alone, hybrid is version 2 beside version 1, legacy is version 1 alone."""
        if self.mount is None:
            return "legacy" if self.v1 else "none"
        return "hybrid" if self.v1 else "unified"

    def pure(self) -> str:
        """The words on the kernel command line that leave this host version 2 alone."""
        return (
            "systemd.unified_cgroup_hierarchy=1 (or cgroup_no_v1=all)" if self.systemd else "cgroup_no_v1=all"
        )

    def lack(self, controller: str) -> Lack:
        """Why a controller is not offered at the top of this hierarchy, and what brings it."""
        if controller in self.v1:
            return Lack(
                why=f"this host is {self.mode}: cgroup v1 holds the {controller} controller",
                remedy=f"Boot with {self.pure()} on the kernel command line.",
            )
        if self.mount is None:
            return Lack(why="this host has no cgroup2", remedy="mount -t cgroup2 none /sys/fs/cgroup")
        return Lack(
            why=f"this kernel has no {controller} controller, or it is switched off",
            remedy=f"Remove cgroup_disable={controller} from the kernel command line, or use a kernel that has it.",
        )


def look(*, own: bool = True) -> Hierarchy:
    """The hierarchy as it is now. Raises nothing: what cannot be seen is absent, and so is our own place for those who
    do not ask for it.
    """
    # A host has hundreds of mounts, and a blank in a path is written otherwise (proc(5)).
    mounts = [_Mount.parse(line) for line in _lines("/proc/self/mountinfo") if " - cgroup" in line]
    unified = next((m for m in mounts if m.kind == "cgroup2"), None)
    return Hierarchy(
        mount=unified.target if unified else None,
        writable=unified is not None and not {"ro"} & unified.options,
        own=_own(unified) if unified and own else None,
        v1=frozenset().union(*(_controllers(m) for m in mounts if m.kind == "cgroup")),
        systemd=os.path.isdir("/run/systemd/system"),
        root=unified.root if unified else "/",
        options=unified.options if unified else frozenset(),
    )


class _Mount(msgspec.Struct, frozen=True):
    """One line of /proc/PID/mountinfo (proc(5))."""

    root: str
    target: str
    kind: str
    options: frozenset[str]

    @classmethod
    def parse(cls, line: str) -> "_Mount":
        before, _, after = line.partition(" - ")
        _, _, _, root, target, options, *_ = before.split()
        kind, _, superblock = after.split()[:3]
        flags = frozenset(options.split(",")) | frozenset(superblock.split(","))
        return cls(_unescape(root), _unescape(target), kind, flags)


def _unescape(field: str) -> str:
    return _ESCAPED.sub(lambda m: chr(int(m[1], 8)), field)


def _controllers(mount: _Mount) -> frozenset[str]:
    return frozenset(
        _OF_V1.get(name, name) for name in mount.options if _OF_V1.get(name, name) in CONTROLLERS
    )


def _own(mount: _Mount) -> str | None:
    """Our cgroup as a path below the mount, which may show a part of the tree only."""
    entry = next((line for line in _lines("/proc/self/cgroup") if line.startswith("0::")), None)
    if entry is None:
        return None
    path = entry.removeprefix("0::")
    root = mount.root.rstrip("/")
    if root and not f"{path}/".startswith(f"{root}/"):
        return None
    directory = (mount.target + path[len(root) :]).rstrip("/")
    return directory if os.path.isdir(directory) else None


def _lines(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError:
        return []
