"""The machine is what the other tests of this tier take it for."""

import os
import pwd
import subprocess
from pathlib import Path

from tests.systemd.conftest import HIERARCHY


def said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_systemd_is_the_first_process_and_runs_without_a_failed_unit() -> None:
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert said("systemctl", "is-system-running", "--wait") == "running"


def test_the_hierarchy_is_pure_v2_with_every_controller() -> None:
    offered = set((HIERARCHY / "cgroup.controllers").read_text().split())
    assert {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} <= offered


def test_systemd_delegates_what_it_knows_and_not_hugetlb(unit: Path) -> None:
    assert {"cpuset", "cpu", "io", "memory", "pids"} == set((unit / "cgroup.controllers").read_text().split())


def test_there_are_swap_huge_pages_pressure_and_a_scratch_disk(scratch_disk: Path) -> None:
    assert "/dev/zram0" in Path("/proc/swaps").read_text()
    assert int(Path("/proc/sys/vm/nr_hugepages").read_text()) == 16
    assert Path("/proc/pressure/memory").read_text().startswith("some ")
    assert "bfq" in Path(f"/sys/block/{scratch_disk.name}/queue/scheduler").read_text()


def test_an_ordinary_user_has_a_manager_with_the_stock_delegation() -> None:
    uid = pwd.getpwnam("lab").pw_uid
    manager = HIERARCHY / f"user.slice/user-{uid}.slice/user@{uid}.service"
    assert os.stat(manager).st_uid == uid
    assert set((manager / "cgroup.controllers").read_text().split()) == {"cpu", "memory", "pids"}
