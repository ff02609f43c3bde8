"""Doctor where systemd manages the cgroups and every controller is there; its cures are carried out, and undone."""

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg.doctor.check import Check
from tests.host.command import SWARMCG
from tests.systemd.conftest import HIERARCHY

LAB: Final = pwd.getpwnam("lab").pw_uid if "SWARMCG_TEST_VM" in os.environ else 0
DROP_IN: Final = Path("/etc/systemd/system/user@.service.d")
SOON_S: Final = 120.0
Checks = dict[str, Check]


def told(*words: str, before: tuple[str, ...] = ()) -> Checks:
    call = [*before, SWARMCG, "doctor", "--json", *words]
    done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=SOON_S)
    assert done.stderr == ""
    return {fields["check"]: Check(**fields) for fields in json.loads(done.stdout)}


def told_lab(*words: str) -> Checks:
    """What it says to an ordinary user whose manager runs."""
    user = ("setpriv", "--reuid", "lab", "--regid", "lab", "--init-groups")
    place = ("env", "HOME=/home/lab", f"XDG_RUNTIME_DIR=/run/user/{LAB}", "XDG_STATE_HOME=/tmp/lab-state")
    return told(*words, before=(*user, *place))


def carry_out(remedy: str | None) -> None:
    command = (remedy or "false").removeprefix("As root: ").partition(" (this ends")[0]
    subprocess.run(["sh", "-ec", command], check=True, timeout=SOON_S)


def proofs(found: Checks) -> dict[str, str]:
    return {
        name.partition(".")[2]: check.state for name, check in found.items() if name.startswith("selftest.")
    }


ALL_PROVEN: Final = dict.fromkeys(("placed", "strays", "sigterm", "pids", "memory", "gone", "reports"), "ok")


def test_a_host_of_systemd_can_be_worked_on() -> None:
    found = told()
    assert [check for check in found.values() if check.state == "fail"] == []
    assert "which systemd makes for each start" in found["home"].why
    for check in (
        "systemd",
        "cgroup-mode",
        "container",
        "psi",
        "swap-accounting",
        "devices",
        "network",
        "kernel",
    ):
        assert found[check].state == "ok", found[check]
    for controller in ("cpu", "cpuset", "io", "memory", "pids"):
        assert found[f"controller.{controller}"].state == "ok"
    for option in ("nsdelegate", "memory_recursiveprot"):
        assert found[f"mount.{option}"].state == "ok"
    assert "user-manager" not in found
    assert "bots-unit" in found


@pytest.mark.full
def test_the_canaries_prove_every_promise_in_a_scope_that_is_gone_afterwards() -> None:
    assert proofs(told("--self-test")) == ALL_PROVEN
    assert list(HIERARCHY.glob("system.slice/swarmcg-*.scope")) == []


@pytest.mark.full
def test_the_canaries_prove_every_promise_to_an_ordinary_user() -> None:
    found = told_lab("--self-test")
    assert proofs(found) == ALL_PROVEN
    assert [check for check in found.values() if check.state == "fail"] == []
    assert list(HIERARCHY.glob(f"user.slice/user-{LAB}.slice/user@{LAB}.service/app.slice/swarmcg-*")) == []


@pytest.mark.full
def test_huge_pages_are_not_systemd_s_to_hand_down_and_the_cure_does_it() -> None:
    found = told()["controller.hugetlb"]
    assert (found.state, "systemd does not manage it" in found.why) == ("warn", True)
    try:
        carry_out(found.remedy)
        after = told()
        assert (after["controller.hugetlb"].state, after["hugepages"].why) == ("ok", "reserved: 16 of 2MB")
    finally:
        for directory in (HIERARCHY / "system.slice", HIERARCHY):
            for name in directory.glob("*/cgroup.subtree_control"):
                name.write_text("-hugetlb")
            (directory / "cgroup.subtree_control").write_text("-hugetlb")


@pytest.fixture
def scheduler(scratch_disk: Path) -> Iterator[Path]:
    """The scratch disk's scheduler, as it was afterwards."""
    file = Path(f"/sys/block/{scratch_disk.name}/queue/scheduler")
    before = file.read_text().partition("[")[2].partition("]")[0]
    file.write_text("none")
    yield file
    file.write_text(before)


@pytest.mark.full
def test_a_disk_without_bfq_and_its_cure(scratch_disk: Path, scheduler: Path) -> None:
    name = f"disk.{scratch_disk.name}"
    found = told()[name]
    assert (found.state, "no io.cost" in found.why) == ("warn", True)
    carry_out(found.remedy)
    assert "[bfq]" in scheduler.read_text()
    assert told()[name].why == "weights are heeded, by BFQ"


@pytest.mark.full
@pytest.mark.usefixtures("scheduler")
def test_a_disk_with_io_cost(scratch_disk: Path) -> None:
    number = os.stat(scratch_disk).st_rdev
    disk = f"{os.major(number)}:{os.minor(number)}"
    qos = HIERARCHY / "io.cost.qos"
    qos.write_text(f"{disk} enable=1")
    try:
        assert told()[f"disk.{scratch_disk.name}"].why == "weights are heeded, by io.cost"
    finally:
        qos.write_text(f"{disk} enable=0")


@pytest.mark.full
def test_what_a_stock_user_manager_was_not_given() -> None:
    found = told_lab()
    assert (
        found["user-manager"].state
        == found["controller.io"].state
        == found["controller.cpuset"].state
        == "warn"
    )
    assert found["user-manager"].why == "this user's systemd was not given cpuset, io"
    assert found["controller.memory"].state == "ok"


@pytest.mark.full
def test_the_drop_in_that_is_named_gives_the_user_manager_everything() -> None:
    """It restarts the user's manager, and so does taking it back."""
    try:
        carry_out(told_lab()["user-manager"].remedy)
        found = told_lab()
        assert (found["user-manager"].state, found["controller.io"].state) == ("ok", "ok")
    finally:
        (DROP_IN / "delegate.conf").unlink()
        carry_out(f"systemctl daemon-reload; systemctl restart user@{LAB}.service")
    assert told_lab()["user-manager"].state == "warn"


@pytest.mark.full
def test_a_user_who_has_no_manager() -> None:
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "HOME=/nonexistent")
    found = told(before=nobody)["user-manager"]
    assert (found.state, found.remedy) == ("warn", "loginctl enable-linger 65534")
