"""Verdicts on disks: whether weights of I/O mean anything there."""

from collections.abc import Iterator
from typing import Final

from swarmcg.doctor.check import Check, ok, warn
from swarmcg.doctor.seen import Linux
from swarmcg.resources import Disk

__all__ = ["schedulers"]

_NO_DISKS: Final = ("loop", "ram", "zram", "sr", "fd", "nbd", "dm-", "md")
"""Memory, removable media, and devices that hand their requests on to others."""


def schedulers(host: Linux) -> Iterator[Check]:
    """io.weight is heeded by BFQ and by io.cost, and by nothing else; io.max by every disk."""
    if "io" not in host.home.abilities.controllers:
        return
    disks = host.home.abilities.disks or {}
    for number, disk in sorted(disks.items(), key=lambda item: item[1].name):
        if disk.whole == number and disk.scheduler is not None and not disk.name.startswith(_NO_DISKS):
            yield _judged(disk)


def _judged(disk: Disk) -> Check:
    check = f"disk.{disk.name}"
    if disk.iocost:
        return ok(check, "weights are heeded, by io.cost")
    if disk.scheduler == "bfq":
        return ok(check, "weights are heeded, by BFQ")
    return warn(
        check,
        f"scheduler {disk.scheduler}, no io.cost: weights of I/O do nothing on {disk.name}; limits hold",
        f"modprobe bfq && echo bfq > /sys/block/{disk.name}/queue/scheduler",
    )
