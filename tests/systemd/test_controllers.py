"""Limits that no other tier's kernel has: cpuset, hugetlb, pressure; and every file of a full LinuxResources."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.host.command import Command
from tests.systemd.machine import EAT, MB, PYTHON, device, number, only_report, resources, setting

MAP_PAGES: Final = """
import mmap
HUGE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000
within = mmap.mmap(-1, 4 << 20, flags=HUGE)
within[0] = within[2 << 20] = 1
try:
    mmap.mmap(-1, 2 << 20, flags=HUGE)
except OSError as error:
    print(error.errno)
"""
READ_OWN_SLICE: Final = """
import json, os
own = os.path.dirname("/sys/fs/cgroup" + open("/proc/self/cgroup").read().strip().split(":")[2])
print(json.dumps({name: open(f"{own}/{name}").read().strip() for name in os.environ["FILES"].split()}))
"""
SPIN_EAT_AND_READ: Final = f"""
import mmap, os, time
while time.process_time() < 0.3: pass
{EAT}
disk = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, 1 << 20)
for _ in range(4): os.readv(disk, [buffer])
"""


def test_a_bot_runs_on_its_processors_alone(home: Path, tmp_path: Path) -> None:
    command = Command(home, tmp_path)
    program = "import os; print(os.sched_getaffinity(0))"
    done = command("run", "--cpuset-cpus", "1", "--cpuset-mems", "0", "--", *PYTHON, program)
    assert done.stdout == "{1}\n"
    assert only_report(command).limits == {"cpuset.cpus": "1", "cpuset.mems": "0"}


@pytest.mark.full
def test_a_processor_that_the_machine_lacks_is_refused(home: Path, tmp_path: Path) -> None:
    done = Command(home, tmp_path)("run", "--cpuset-cpus", "1-7", "--", "true")
    assert done.returncode == 125
    assert "cpu.cpus" in done.stderr


def test_huge_pages_beyond_the_limit_are_refused(top_home: Path, tmp_path: Path) -> None:
    command = Command(top_home, tmp_path)
    limit = resources(tmp_path, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MB}])
    done = command("run", *limit, "--", *PYTHON, MAP_PAGES)
    assert (done.returncode, done.stdout) == (0, "12\n")  # ENOMEM
    limits = only_report(command).limits
    assert limits == {"hugetlb.2MB.max": str(4 * MB), "hugetlb.2MB.rsvd.max": str(4 * MB)}


@pytest.mark.full
def test_huge_pages_are_refused_where_systemd_hands_no_hugetlb_down(home: Path, tmp_path: Path) -> None:
    limit = resources(tmp_path, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MB}])
    done = Command(home, tmp_path)("run", *limit, "--", "true")
    assert done.returncode == 125
    assert "hugetlb" in done.stderr
    assert "subtree_control" in done.stderr


def test_the_report_tells_what_the_bot_stalled_on(home: Path, tmp_path: Path, scratch_disk: Path) -> None:
    command = Command(home, tmp_path)
    limits = resources(
        tmp_path,
        cpu={"quota": 10_000, "period": 50_000},
        blockIO={"throttleReadBpsDevice": [{**number(scratch_disk), "rate": 4 * MB}]},
        unified={"memory.high": str(16 * MB)},
    )
    done = command("run", *limits, "--", *PYTHON, SPIN_EAT_AND_READ, "32", str(scratch_disk))
    assert (done.returncode, done.stderr) == (0, "")
    pressure = only_report(command).pressure
    assert min(pressure.cpu.some_s, pressure.memory.some_s, pressure.io.some_s) > 0.1


@pytest.mark.parametrize("scheduler", [pytest.param("none", marks=pytest.mark.full), "bfq"])
def test_every_file_of_full_resources_is_read_back(
    top_home: Path, tmp_path: Path, scratch_disk: Path, scheduler: str
) -> None:
    (top_home / "memory.low").write_text(str(32 * MB))
    (top_home / "memory.min").write_text(str(8 * MB))
    disk = number(scratch_disk)
    asked: dict[str, Any] = {
        "cpu": {
            "shares": 2048,
            "quota": 50_000,
            "period": 100_000,
            "burst": 20_000,
            "cpus": "0-1",
            "mems": "0",
        },
        "memory": {"limit": 96 * MB, "swap": 128 * MB, "reservation": 32 * MB},
        "blockIO": {
            "weight": 500,
            "throttleReadBpsDevice": [{**disk, "rate": 8 * MB}],
            "throttleWriteBpsDevice": [{**disk, "rate": 4 * MB}],
            "throttleReadIOPSDevice": [{**disk, "rate": 900}],
            "throttleWriteIOPSDevice": [{**disk, "rate": 800}],
        },
        "pids": {"limit": 64},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 8 * MB}],
        "unified": {"memory.high": str(80 * MB), "memory.min": str(8 * MB), "memory.oom.group": "1"},
    }
    there = {
        "cpu.weight": "174",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "20000",
        "cpuset.cpus": "0-1",
        "cpuset.mems": "0",
        "memory.max": str(96 * MB),
        "memory.swap.max": str(32 * MB),
        "memory.low": str(32 * MB),
        "memory.high": str(80 * MB),
        "memory.min": str(8 * MB),
        "memory.oom.group": "1",
        "io.max": f"{device(scratch_disk)} rbps={8 * MB} wbps={4 * MB} riops=900 wiops=800",
        "io.bfq.weight": "default 500",
        "pids.max": "64",
        "hugetlb.2MB.max": str(8 * MB),
        "hugetlb.2MB.rsvd.max": str(8 * MB),
    }
    if scheduler == "none":  # then no disk heeds a weight
        del asked["blockIO"]["weight"]
        there["io.bfq.weight"] = "default 100"
    command = Command(top_home, tmp_path)
    flags = (*resources(tmp_path, **asked), "-e", f"FILES={' '.join(there)}")
    with setting(Path(f"/sys/block/{scratch_disk.name}/queue/scheduler"), scheduler, "none"):
        done = command("run", *flags, "--", *PYTHON, READ_OWN_SLICE)
    assert done.stderr == ""
    assert json.loads(done.stdout) == there
    limits = only_report(command).limits
    assert set(limits) == set(there) - ({"io.bfq.weight"} if scheduler == "none" else set())
    assert {name: limits[name] for name in limits if name != "io.bfq.weight"} == {
        name: there[name] for name in limits if name != "io.bfq.weight"
    }
