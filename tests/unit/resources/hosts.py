"""Hosts as the tests need them: one that can do everything, and changes to it."""

import json
from typing import Any, Final

import msgspec

from swarmcg.bot import Row
from swarmcg.resources import Abilities, DeviceControl, Disk, LinuxResources, Plan, plan

DISKS: Final = {
    "8:0": Disk(name="sda", whole="8:0", scheduler="bfq"),
    "8:1": Disk(name="sda1", whole="8:0"),
    "8:16": Disk(name="sdb", whole="8:16", scheduler="mq-deadline", iocost=True),
    "8:32": Disk(name="sdc", whole="8:32", scheduler="none"),
}

ABLE: Final = Abilities(
    mode="unified",
    controllers=frozenset({"cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma"}),
    kernel=(6, 12),
    hugepages=frozenset({"2MB", "1GB"}),
    disks=DISKS,
    cpus="0-7",
    mems="0",
    devices=DeviceControl(),
)


def host(**changes: Any) -> Abilities:
    return msgspec.structs.replace(ABLE, **changes)


def planned(asked: dict[str, Any], /, **changes: Any) -> Plan:
    return plan(LinuxResources.from_json(json.dumps(asked)), host(**changes))


def values(asked: dict[str, Any], /, **changes: Any) -> dict[str, str]:
    """What is written, by file; the last line of each."""
    return {step.file: step.value for step in planned(asked, **changes).steps}


def row(made: Plan, field: str) -> Row:
    """The one row of the field."""
    (found,) = (row for row in made.rows if row.field == field)
    return found
