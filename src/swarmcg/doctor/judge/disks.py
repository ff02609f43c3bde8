"""Verdicts on disks: whether weights of I/O mean anything there."""

from collections.abc import Iterator

from swarmcg.doctor.check import Check, ok, warn
from swarmcg.doctor.seen import Linux
from swarmcg.resources import Disk

__all__ = ["schedulers"]


def schedulers(host: Linux) -> Iterator[Check]:
    """io.weight is heeded by BFQ and by io.cost, and by nothing else; io.max by every disk."""
    if "io" not in host.home.abilities.controllers:
        return
    disks = host.home.abilities.disks or {}
    for number, disk in sorted(disks.items(), key=lambda item: item[1].name):
        if disk.whole == number and disk.may_heed_weights:
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
