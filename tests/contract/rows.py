"""Every field of LinuxResources that cgroup v2 has a file for, and what the file must show, checked on a real slice.

The check fails when the write is left out, since it first makes sure that the file shows something else; a second
check holds that.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.resources import LinuxResources, plan

MB: Final = 1 << 20
Check = Callable[[Path, Path, "InForce"], None]
DISK: Final = "DISK"
"""Stands for the trial disk's MAJ:MIN, and as a name in what is asked for, for its two numbers."""


class InForce(NamedTuple):
    """One row: what is asked for, and what the files must show then. ``before`` is put in force first, where a fresh
    slice shows the same.
    """

    field: str
    asked: Mapping[str, Any]
    files: Mapping[str, str]
    before: Mapping[str, Any] | None = None

    @property
    def controllers(self) -> set[str]:
        return {file.partition(".")[0] for file in self.files} - {"cgroup"}

    def __str__(self) -> str:
        return f"{self.field}={json.dumps(self.asked)}"


def _disk(name: str, line: str) -> InForce:
    rated = {name: [{DISK: 0, "rate": 4 * MB}]}
    return InForce(f"blockIO.{name}", {"blockIO": rated}, {"io.max": f"{DISK} {line}"})


ROWS: Final = (
    InForce("cpu.shares", {"cpu": {"shares": 10240}}, {"cpu.weight": "639"}),
    InForce("cpu.quota", {"cpu": {"quota": 20_000}}, {"cpu.max": "20000 100000"}),
    InForce("cpu.quota", {"cpu": {"quota": 0}}, {"cpu.max": "max 100000"}, {"cpu": {"quota": 5000}}),
    InForce("cpu.quota", {"cpu": {"quota": -7}}, {"cpu.max": "max 100000"}, {"cpu": {"quota": 5000}}),
    InForce("cpu.period", {"cpu": {"period": 50_000}}, {"cpu.max": "max 50000"}),
    InForce("cpu.burst", {"cpu": {"quota": 9000, "burst": 3000}}, {"cpu.max.burst": "3000"}),
    InForce("cpu.idle", {"cpu": {"idle": 1}}, {"cpu.idle": "1"}),
    InForce("cpu.idle", {"cpu": {"idle": 0}}, {"cpu.idle": "0"}, {"cpu": {"idle": 1}}),
    InForce("cpu.cpus", {"cpu": {"cpus": "1"}}, {"cpuset.cpus": "1"}),
    InForce("cpu.mems", {"cpu": {"mems": "0"}}, {"cpuset.mems": "0"}),
    InForce("memory.limit", {"memory": {"limit": 64 * MB + 1}}, {"memory.max": str(64 * MB)}),
    InForce(
        "memory.limit",
        {"memory": {"limit": -1}},
        {"memory.max": "max", "memory.swap.max": "max"},
        {"memory": {"limit": 64 * MB, "swap": 65 * MB}},
    ),
    InForce("memory.reservation", {"memory": {"reservation": 8 * MB}}, {"memory.low": str(8 * MB)}),
    InForce(
        "memory.swap",
        {"memory": {"limit": 64 * MB, "swap": 96 * MB}},
        {"memory.max": str(64 * MB), "memory.swap.max": str(32 * MB)},
    ),
    InForce("memory.swap", {"memory": {"limit": 8 * MB, "swap": 8 * MB}}, {"memory.swap.max": "0"}),
    InForce(
        "memory.swap",
        {"memory": {"swap": -1}},
        {"memory.swap.max": "max"},
        {"memory": {"limit": 8 * MB, "swap": 8 * MB}},
    ),
    InForce("pids.limit", {"pids": {"limit": 64}}, {"pids.max": "64"}),
    InForce("pids.limit", {"pids": {"limit": 0}}, {"pids.max": "1"}),
    InForce("pids.limit", {"pids": {"limit": -5}}, {"pids.max": "max"}, {"pids": {"limit": 9}}),
    _disk("throttleReadBpsDevice", f"rbps={4 * MB} wbps=max riops=max wiops=max"),
    _disk("throttleWriteBpsDevice", f"rbps=max wbps={4 * MB} riops=max wiops=max"),
    _disk("throttleReadIOPSDevice", f"rbps=max wbps=max riops={4 * MB} wiops=max"),
    _disk("throttleWriteIOPSDevice", f"rbps=max wbps=max riops=max wiops={4 * MB}"),
    InForce(
        "blockIO.throttleReadBpsDevice",
        {"blockIO": {"throttleReadBpsDevice": [{DISK: 0, "rate": 0}]}},
        {"io.max": ""},
        {"blockIO": {"throttleReadBpsDevice": [{DISK: 0, "rate": 9}]}},
    ),
    InForce(
        "hugepageLimits",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 8 * MB}]},
        {"hugetlb.2MB.max": str(8 * MB), "hugetlb.2MB.rsvd.max": str(8 * MB)},
    ),
    InForce("unified", {"unified": {"memory.high": "48M"}}, {"memory.high": str(48 * MB)}),
    InForce("unified", {"unified": {"memory.low": "4M"}}, {"memory.low": str(4 * MB)}),
    InForce("unified", {"unified": {"memory.min": "4M"}}, {"memory.min": str(4 * MB)}),
    InForce("unified", {"unified": {"memory.oom.group": "1"}}, {"memory.oom.group": "1"}),
    InForce("unified", {"unified": {"memory.swap.high": "16M"}}, {"memory.swap.high": str(16 * MB)}),
    InForce("unified", {"pids": {"limit": 64}, "unified": {"pids.max": "7"}}, {"pids.max": "7"}),
    InForce("unified", {"unified": {"cgroup.max.depth": "5"}}, {"cgroup.max.depth": "5"}),
    InForce(
        "unified",
        {"unified": {"io.max": f"{DISK} rbps=4194304\n{DISK} wiops=77"}},
        {"io.max": f"{DISK} rbps=4194304 wbps=max riops=max wiops=77"},
    ),
)
WEIGHTS: Final = {
    "bfq": (
        InForce("blockIO.weight", {"blockIO": {"weight": 500}}, {"io.bfq.weight": "default 500"}),
        InForce(
            "blockIO.weightDevice.weight",
            {"blockIO": {"weightDevice": [{DISK: 0, "weight": 300}]}},
            {"io.bfq.weight": f"default 100\n{DISK} 300"},
        ),
    ),
    "io.cost": (
        InForce("blockIO.weight", {"blockIO": {"weight": 500}}, {"io.weight": "default 4950"}),
        InForce(
            "blockIO.weightDevice.weight",
            {"blockIO": {"weightDevice": [{DISK: 0, "weight": 20}]}},
            {"io.weight": f"default 100\n{DISK} 102"},
        ),
    ),
}
"""By what has to be switched on for the disk."""
RDMA_DEVICE: Final = "rxe_trial"
RDMA: Final = (
    InForce(
        "rdma",
        {"rdma": {RDMA_DEVICE: {"hcaHandles": 2, "hcaObjects": 9}}},
        {"rdma.max": f"{RDMA_DEVICE} hca_handle=2 hca_object=9"},
    ),
    InForce(
        "rdma",
        {"rdma": {RDMA_DEVICE: {"hcaHandles": 0}}},
        {"rdma.max": f"{RDMA_DEVICE} hca_handle=0 hca_object=max"},
    ),
    InForce(
        "rdma",
        {"rdma": {RDMA_DEVICE: {"hcaObjects": 7}}},
        {"rdma.max": f"{RDMA_DEVICE} hca_handle=max hca_object=7"},
    ),
)
"""Where there is such a device."""
# Fields whose force is shown where it takes more than a file: a device, packets, or a running bot.
ELSEWHERE: Final = {
    "devices": "tests/contract/device_rules.py",
    "memory.checkBeforeUpdate": "tests/kernel/test_update.py",
    "network.classID": "tests/contract/network.py",
    "network.priorities": "tests/contract/network.py",
}


def check_in_force(directory: Path, disk: Path, row: InForce, *, without: str | None = None) -> None:
    """Makes a slice in the directory and puts the row in force there, as a start does; without one file's writes."""
    home = find_home(os.fspath(directory))
    held = home.create(slice_name("row", incarnation := new_incarnation()), {"incarnation": incarnation})
    try:
        if row.before:
            held.apply(plan(_resources(row.before, disk), home.prepare()))
        wanted = {file: _named(text, disk) for file, text in row.files.items()}
        assert [file for file in wanted if _shown(held.path, file) == wanted[file]] == []
        made = plan(_resources(row.asked, disk), home.prepare())
        assert made.unenforced == ()
        kept = tuple(step for step in made.steps if step.file != without)
        limits = held.apply(msgspec.structs.replace(made, steps=kept))
        assert {file: _shown(held.path, file) for file in wanted} == wanted
        assert {file: limits[file] for file in wanted} == wanted
    finally:
        held.remove()


def check_a_missing_write_is_noticed(directory: Path, disk: Path, row: InForce) -> None:
    """The check above fails for each file that is not written."""
    for file in row.files:
        with pytest.raises(AssertionError):
            check_in_force(directory, disk, row, without=file)


def _resources(asked: Mapping[str, Any], disk: Path) -> LinuxResources:
    number = os.stat(disk).st_rdev
    numbers = f'"major": {os.major(number)}, "minor": {os.minor(number)}'
    return LinuxResources.from_json(_named(json.dumps(asked).replace(f'"{DISK}": 0', numbers), disk))


def _named(text: str, disk: Path) -> str:
    number = os.stat(disk).st_rdev
    return text.replace(DISK, f"{os.major(number)}:{os.minor(number)}")


def _shown(path: str, file: str) -> str:
    return Path(path, file).read_text().strip()
