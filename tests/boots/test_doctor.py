"""Doctor on kernels that were started otherwise, or are older: each in a guest of its own."""

import json
import os
from pathlib import Path
from typing import Final

import pytest

from checks import debian, uml
from swarmcg.doctor.check import Check

SELF_TEST: Final = "swarmcg doctor --json --self-test >$RESULTS/checks"
V1: Final = "mount -t tmpfs tmpfs /mnt; mkdir /mnt/memory; mount -t cgroup -o memory cgroup /mnt/memory"
TIME_LIMIT: Final = 600.0
Checks = dict[str, Check]


def told(place: Path, suite: str, script: str, *append: str) -> Checks:
    """What doctor said in a guest, whose script leaves it in $RESULTS/checks; by name."""
    try:
        kernel = uml.find_kernel(suite)
    except debian.UnavailableError as e:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"there is no kernel of {suite}: {e}")
    uml.run([*kernel, *append], ["sh", "-c", script], place, TIME_LIMIT)
    return checks(place / "checks")


def checks(file: Path) -> Checks:
    return {fields["check"]: Check(**fields) for fields in json.loads(file.read_text())}


def states(found: Checks, prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix): check.state for name, check in found.items() if name.startswith(prefix)
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_a_kernel_without_cgroup_kill_and_bots_are_killed_all_the_same(place: Path) -> None:
    """Linux 5.10, Debian 11's."""
    found = told(place, "bullseye", SELF_TEST)
    assert found["kernel"].state == "warn"
    assert "Linux 5.10" in found["kernel"].why
    assert "no cgroup.kill (5.14)" in found["kernel"].why
    assert found["network"].state == "warn"
    assert "mount.favordynmods" not in found
    assert set(states(found, "selftest.").values()) == {"ok"}
    assert len(states(found, "selftest.")) == 7


def test_the_memory_controller_switched_off(place: Path) -> None:
    found = told(place, debian.codename(), SELF_TEST, "cgroup_disable=memory")
    lack = found["controller.memory"]
    assert (lack.state, lack.remedy) == (
        "warn",
        "Remove cgroup_disable=memory from the kernel command line, or use a kernel that has it.",
    )
    assert "swap-accounting" not in found
    assert states(found, "selftest.") == {
        "placed": "ok",
        "strays": "ok",
        "sigterm": "ok",
        "pids": "ok",
        "memory": "warn",
        "gone": "ok",
        "reports": "ok",
    }


def test_swap_that_is_not_counted(place: Path) -> None:
    script = f"mkdir /sys/fs/cgroup/x; echo +memory >/sys/fs/cgroup/cgroup.subtree_control; {SELF_TEST}"
    found = told(place, "bullseye", script, "swapaccount=0")
    assert found["swap-accounting"].state == "warn"
    assert "goes on in 63 MiB of swap" in found["swap-accounting"].why
    assert (found["selftest.memory"].state, found["selftest.memory"].remedy) == (
        "warn",
        "swapoff -a, or boot with swapaccount=1.",
    )


def test_version_1_beside_version_2_and_alone(place: Path) -> None:
    alone = "umount /sys/fs/cgroup; swarmcg doctor --json --self-test >$RESULTS/alone"
    found = told(place, debian.codename(), f"{V1}; {SELF_TEST}; {alone}")
    assert (found["cgroup-mode"].state, "cgroup v1 holds memory" in found["cgroup-mode"].why) == (
        "warn",
        True,
    )
    assert states(found, "selftest.")["placed"] == "ok"
    found = checks(place / "alone")
    assert (found["cgroup-mode"].state, "cgroup v1 only (memory)" in found["cgroup-mode"].why) == (
        "fail",
        True,
    )
    assert states(found, "selftest.") == {"start": "fail"}
