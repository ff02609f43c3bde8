"""What stands between a value and its file on one host."""

from collections.abc import Callable
from typing import Final

from swarmcg.bot import Row
from swarmcg.resources import quantity
from swarmcg.resources.abilities import Abilities, Lack

__all__ = ["obstacle"]

# The kernel that brought the file (Documentation/admin-guide/cgroup-v2.rst and the commits that added it).
_SINCE: Final = {
    "cgroup.pressure": (6, 1),
    "cpu.idle": (5, 15),
    "cpu.max.burst": (5, 14),
    "memory.oom.group": (4, 19),
    "memory.reclaim": (5, 19),
    "memory.swap.high": (5, 8),
    "memory.zswap.max": (5, 19),
}
_PROTECTIONS: Final = frozenset({"memory.low", "memory.min"})
_BOOT_UNIFIED: Final = (
    "Boot with cgroup_no_v1=all, or under systemd with systemd.unified_cgroup_hierarchy=1, "
    "so that the host has cgroup v2 alone."
)


def obstacle(row: Row, abilities: Abilities) -> Lack | None:
    """Why this host cannot take the row's value into its file; None when nothing is known to hinder it.

    Of a row that cannot be put in force anyway, whether even the controller is missing.
    """
    if row.file is None or row.value is None:
        return None
    for find in _OBSTACLES if row.enforceable else (_no_controller,):
        if lack := find(row, row.file, abilities):
            return lack
    return None


def _no_controller(_: Row, file: str, abilities: Abilities) -> Lack | None:
    controller = file.partition(".")[0]
    if lack := abilities.lacking.get(controller):
        return lack
    if controller == "cgroup" or controller in abilities.controllers:
        return None
    remedy = {
        "unified": f"Enable it in cgroup.subtree_control of every ancestor: echo +{controller}.",
        "hybrid": _BOOT_UNIFIED,
        "legacy": _BOOT_UNIFIED,
        "none": "Run it on a Linux host with cgroup v2.",
    }[abilities.mode]
    return Lack(f"the {controller} controller is not to be had for slices here", remedy)


def _old_kernel(_: Row, file: str, abilities: Abilities) -> Lack | None:
    since = _SINCE.get(file)
    if since is None or (abilities.kernel >= since or abilities.kernel == (0, 0)):
        return None
    if abilities.files is not None and file in abilities.files:
        return None  # a distribution brought it to an older kernel
    return Lack(
        f"the kernel is older than {_dotted(since)}, which brought {file}",
        f"Use Linux {_dotted(since)} or later.",
    )


def _no_file(row: Row, file: str, abilities: Abilities) -> Lack | None:
    if abilities.files is None or file in abilities.files:
        return None
    if file.startswith("memory.swap."):
        return Lack(
            f"there is no {file}: the kernel counts no swap for cgroups",
            "Boot with swapaccount=1 and without cgroup_disable=memory, on a kernel with CONFIG_SWAP.",
        )
    if row.field.startswith("unified.") and file not in _SINCE:
        return None  # the caller knows a file that we do not: the kernel shall answer
    return Lack(f"the kernel has no {file}", "Use a kernel that has it, or leave the field out.")


def _not_granted(row: Row, file: str, abilities: Abilities) -> Lack | None:
    granted = abilities.granted.get(file) if file in _PROTECTIONS else None
    asked = quantity.size(row.value or "")
    if granted is None or (asked is not None and asked <= granted):
        return None
    return Lack(
        f"{file} protects no more than every ancestor has of it, and they have {granted} bytes",
        f"Raise {file} of the home and of every cgroup above it (systemd: {_SETTINGS[file]}=).",
    )


_SETTINGS: Final = {"memory.low": "MemoryLow", "memory.min": "MemoryMin"}
_OBSTACLES: Final[tuple[Callable[[Row, str, Abilities], Lack | None], ...]] = (
    _no_controller,
    _old_kernel,
    _no_file,
    _not_granted,
)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
