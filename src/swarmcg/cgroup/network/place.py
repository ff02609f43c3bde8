"""Where a slice is, as nftables matches it and as its table's comment remembers it.

The kernel compares the id of a socket's cgroup, or of its ancestor at a level, with a number: the inode of
the slice's directory. Levels count from the root of the cgroup namespace since Linux 6.11 (7f3287db6543,
"netfilter: nft_socket: make cgroupsv2 matching work with namespaces"), from the real root before, so that in
a namespace on an older kernel the level cannot be known from inside.
"""

import os
import re
import sys
from typing import Final

import msgspec

from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.errors import NetworkError
from swarmcg.resources import Lack

if sys.platform != "linux":
    raise ImportError(f"{__name__} needs Linux")

__all__ = ["Label", "Place", "Shaped", "namespace_lack", "orphaned", "table_name"]

_INITIAL_NAMESPACE: Final = 0xEFFFFFFB
"""PROC_CGROUP_INIT_INO (include/linux/proc_ns.h)."""
_LEVELS_BY_NAMESPACE: Final = (6, 11)
_LABEL: Final = re.compile(r"([0-9]+) (?:-|([0-9]+):([0-9a-f]{8})) (-|/.*)", re.DOTALL)
_NAME: Final = re.compile(r"swarmcg-[0-9a-f]{16}")
_LONGEST_COMMENT: Final = 253
"""NFT_USERDATA_MAXLEN, 256 bytes, less the comment's type, its length, and the NUL that libnftnl wants at its end."""
_COMMENT: Final = 0  # NFTNL_UDATA_TABLE_COMMENT; nft 1.1 keeps other things there as well


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A slice's directory: its cgroup id, its level, and its path from the root of the cgroup ``namespace``."""

    cgroup_id: int
    level: int
    namespace: int
    path: str

    @classmethod
    def of(cls, slice_path: str, hierarchy: Hierarchy) -> "Place":
        """The place of a slice that exists. Raises NetworkError when it cannot be told, OSError when it is gone."""
        inside = _inside(slice_path, hierarchy)
        if inside is None:
            raise NetworkError(
                "The slice's place in the hierarchy cannot be told",
                path=slice_path,
                cause=f"cgroup2 is mounted at {hierarchy.mount}, and shows {hierarchy.root}",
                remedy="Name a home below the cgroup2 mount of the own cgroup namespace.",
            )
        return cls(
            cgroup_id=os.stat(slice_path).st_ino,
            level=inside.count("/"),
            namespace=_namespace(),
            path=inside,
        )


class Shaped(msgspec.Struct, frozen=True):
    """An HTB class of ours: the index of its interface, and its handle."""

    interface: int
    handle: int

    def __str__(self) -> str:
        return f"HTB class {self.handle >> 16:x}:{self.handle & 0xFFFF:x} on interface {self.interface}"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a table says of itself: whose it is, and which class goes with it.

    ``place`` is None when the comment does not tell it, so that nobody may call the table an orphan. Of a place
    that was read, only namespace and path are known.
    """

    place: Place | None
    shaped: Shaped | None = None
    read_name: str = ""

    @property
    def name(self) -> str:
        """The table's name."""
        return self.read_name or (table_name(self.place.path) if self.place else "")

    @property
    def user_data(self) -> bytes:
        """The table's user data: a comment, as nft shows it. A path that is too long is left out, and then nobody
        calls the table an orphan.
        """
        assert self.place is not None  # noqa: S101  only who makes a table asks
        shaped = f"{self.shaped.interface}:{self.shaped.handle:08x}" if self.shaped else "-"
        head, path = os.fsencode(f"{self.place.namespace} {shaped} "), os.fsencode(self.place.path)
        text = head + (path if len(head + path) <= _LONGEST_COMMENT else b"-")
        return bytes((_COMMENT, len(text) + 1)) + text + b"\0"

    @classmethod
    def read(cls, name: str, user_data: bytes | None) -> "Label | None":
        """The label of a table by its name and user data; None when the name is none of ours."""
        if not _NAME.fullmatch(name):
            return None
        found = _LABEL.fullmatch(_comment(user_data or b""))
        if found is None:
            return cls(place=None, read_name=name)
        known = found[4] != "-"
        place = Place(cgroup_id=0, level=0, namespace=int(found[1]), path=found[4]) if known else None
        shaped = Shaped(int(found[2]), int(found[3], 16)) if found[2] else None
        return cls(place=place, shaped=shaped, read_name=name)


def _comment(user_data: bytes) -> str:
    """The comment among the things that nft keeps with a table, each with a byte for its type and its length."""
    while len(user_data) > 1:
        kind, length = user_data[:2]
        value, user_data = user_data[2 : 2 + length], user_data[2 + length :]
        if kind == _COMMENT:
            return os.fsdecode(value.removesuffix(b"\0"))
    return ""


def table_name(slice_path: str) -> str:
    """The name of a slice's table, from the incarnation that ends the slice's own name."""
    return f"swarmcg-{slice_path.rpartition('.')[2]}"


def orphaned(label: Label, hierarchy: Hierarchy) -> bool:
    """Whether the table's slice is certainly gone: one that cannot be seen from here may well live."""
    if label.place is None or label.place.namespace != _namespace() or hierarchy.mount is None:
        return False
    root = hierarchy.root.rstrip("/")
    if not label.place.path.startswith(f"{root}/"):
        return False
    return not os.path.isdir(hierarchy.mount + label.place.path[len(root) :])


def namespace_lack(hierarchy: Hierarchy) -> Lack | None:
    """Why levels cannot be told from inside this cgroup namespace; None where they can."""
    if hierarchy.mount is None:
        return Lack("this host has no cgroup2", "mount -t cgroup2 none /sys/fs/cgroup")
    if hierarchy.root.startswith("/.."):
        return Lack(
            "the cgroup2 mount shows more than the own cgroup namespace",
            "Mount cgroup2 anew inside of the namespace.",
        )
    if _namespace() != _INITIAL_NAMESPACE and _kernel() < _LEVELS_BY_NAMESPACE:
        return Lack(
            "in a cgroup namespace, packets cannot be told by their cgroup before Linux 6.11",
            "Start swarmcg in the host's cgroup namespace (docker: --cgroupns=host), or use Linux 6.11.",
        )
    return None


def _inside(slice_path: str, hierarchy: Hierarchy) -> str | None:
    if hierarchy.mount is None or hierarchy.root.startswith("/.."):
        return None
    mount = hierarchy.mount.rstrip("/")
    if not slice_path.startswith(f"{mount}/"):
        return None
    return hierarchy.root.rstrip("/") + slice_path[len(mount) :]


def _namespace() -> int:
    return os.stat("/proc/self/ns/cgroup").st_ino


def _kernel() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)
