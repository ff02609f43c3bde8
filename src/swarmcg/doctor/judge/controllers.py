"""Verdicts on what can be limited in a slice."""

from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, ok, warn
from swarmcg.doctor.seen import Linux

__all__ = ["controllers", "huge_pages", "swap_accounting"]

_LIMITS: Final = {
    "cpu": "processor time",
    "cpuset": "which processors and memory nodes are used",
    "hugetlb": "huge pages",
    "io": "disk I/O",
    "memory": "memory",
    "pids": "the number of processes",
    "rdma": "RDMA devices",
}


def controllers(host: Linux) -> Iterator[Check]:
    """Each controller of OCI resources: offered to slices, or who withholds it."""
    able = host.home.abilities
    for name, limits in _LIMITS.items():
        check, lack = f"controller.{name}", able.lacking.get(name)
        if name in able.controllers:
            yield ok(check, f"{limits} can be limited")
        elif not _is_wanted(name, host):
            yield ok(check, f"not offered, and this host has no {limits} to limit")
        else:
            why = lack.why if lack else f"the {name} controller is not to be had for slices here"
            yield warn(check, f"{limits} cannot be limited: {why}", lack.remedy if lack else None)


def _is_wanted(name: str, host: Linux) -> bool:
    """Whether the host has anything that the controller would limit."""
    if name == "hugetlb":
        return any(host.kernel.hugepages.values())
    return name != "rdma" or host.kernel.rdma


def swap_accounting(host: Linux) -> Iterator[Check]:
    """Without it a limit of memory is one of memory without swap."""
    files = host.cgroups.files
    if "memory" not in host.home.abilities.controllers or files is None or "memory.max" not in files:
        return  # no cgroup here has the controller yet, so there is nothing to look at
    if "memory.swap.max" in files:
        yield ok("swap-accounting", "swap is counted, and can be limited")
    elif not host.kernel.swap_bytes:
        yield ok("swap-accounting", "swap is not counted, and this host has none")
    else:
        yield warn(
            "swap-accounting",
            f"swap is not counted: a bot at its limit of memory goes on in {host.kernel.swap_bytes >> 20} MiB of swap",
            "Boot with swapaccount=1 and without swapaccount=0; or switch swap off: swapoff -a",
        )


def huge_pages(host: Linux) -> Iterator[Check]:
    """What there is of them."""
    if "hugetlb" not in host.home.abilities.controllers:
        return
    reserved = [f"{count} of {size}" for size, count in sorted(host.kernel.hugepages.items()) if count]
    yield ok("hugepages", f"reserved: {', '.join(reserved)}" if reserved else "none are reserved")
