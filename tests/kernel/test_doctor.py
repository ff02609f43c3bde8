"""Doctor on a host with pure cgroup v2: what it says is lacking is lacking, its cures cure, and its canaries prove."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from swarmcg.doctor.check import Check
from tests import cgroups
from tests.host.command import SOON_S, SWARMCG

TOP: Final = "/sys/fs/cgroup"


def told(*words: str) -> dict[str, Check]:
    done = subprocess.run(
        [SWARMCG, "doctor", "--json", *words], check=False, capture_output=True, text=True, timeout=SOON_S
    )
    assert done.stderr == ""
    checks = [Check(**fields) for fields in json.loads(done.stdout)]
    assert done.returncode == int(any(check.state == "fail" for check in checks))
    return {check.check: check for check in checks}


def mend(check: Check) -> None:
    subprocess.run(["sh", "-ec", check.remedy or "false"], check=True)


def test_a_pure_version_2_host_can_be_worked_on() -> None:
    found = told()
    assert [check for check in found.values() if check.state == "fail"] == []
    assert (found["cgroup-mode"].state, found["home"].why) == ("ok", f"slices are made in {TOP}/swarmcg")
    for name in ("cpu", "io", "memory", "pids"):
        assert found[f"controller.{name}"].state == "ok"
    assert found["devices"].state == found["kernel-log"].state == "ok"


def test_what_this_kernel_was_built_without() -> None:
    found = told()
    assert "no cpuset controller" in found["controller.cpuset"].why
    assert (
        found["controller.hugetlb"].state == found["controller.rdma"].state == "ok"
    )  # nothing there to limit
    assert (found["psi"].state, "has no pressure stall information" in found["psi"].why) == ("warn", True)


def test_a_disk_without_bfq_and_io_cost() -> None:
    found = told()["disk.ubdb"]
    assert (found.state, "weights of I/O do nothing on ubdb" in found.why) == ("warn", True)


def test_swap_that_is_counted(home: Path) -> None:
    (home / "child").mkdir()
    assert told()["swap-accounting"].why == "swap is counted, and can be limited"
    (home / "child").rmdir()


def test_the_first_ancestor_that_withholds_a_controller_is_named_and_its_cure_cures(home: Path) -> None:
    (home / "cgroup.subtree_control").write_text("-memory")
    (home / "below").mkdir()
    there = ("--home", str(home / "below"))
    found = told(*there)
    assert found["controller.pids"].state == "ok"
    assert (found["controller.memory"].state, "memory.high" in found) == ("warn", False)
    assert f"{home} does not hand the memory controller down" in found["controller.memory"].why
    mend(found["controller.memory"])
    assert told(*there)["controller.memory"].state == "ok"
    (home / "below").rmdir()


def test_mount_options_and_their_cures() -> None:
    subprocess.run(["mount", "-o", "remount,rw", "-t", "cgroup2", "cgroup2", TOP], check=True)
    try:
        found = told()
        for option in ("nsdelegate", "memory_recursiveprot"):
            assert found[f"mount.{option}"].state == "warn"
        # A remount names all options, so each cure is tried by itself.
        for option in ("nsdelegate", "memory_recursiveprot"):
            mend(found[f"mount.{option}"])
            assert told()[f"mount.{option}"].state == "ok"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", "-t", "cgroup2", "cgroup2", TOP], check=True)


def test_fast_joins_are_told_where_the_kernel_has_them() -> None:
    subprocess.run(["mount", "-o", "remount,favordynmods", TOP], check=True)
    try:
        assert told()["mount.favordynmods"].why.startswith("on: ")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", "-t", "cgroup2", "cgroup2", TOP], check=True)
        assert told()["mount.favordynmods"].why.startswith("off: ")


def test_the_canaries_prove_every_promise(home: Path) -> None:
    found = told("--self-test", "--home", str(home))
    proofs = {name: check for name, check in found.items() if name.startswith("selftest.")}
    assert set(proofs) == {
        f"selftest.{name}" for name in ("placed", "strays", "sigterm", "pids", "memory", "gone", "reports")
    }
    assert [check for check in proofs.values() if check.state != "ok"] == []
    assert "16th fork was refused" in proofs["selftest.pids"].why
    assert "oom-own-limit" in proofs["selftest.memory"].why
    assert cgroups.below(home) == []


def test_without_a_controller_nothing_is_proven_of_it(home: Path) -> None:
    (home / "cgroup.subtree_control").write_text("-memory")
    (home / "below").mkdir()
    found = told("--self-test", "--home", str(home / "below"))
    assert (found["selftest.memory"].state, found["selftest.pids"].state) == ("warn", "ok")
    assert found["selftest.memory"].why.startswith("not proven: ")
    assert found["selftest.memory"].remedy == found["controller.memory"].remedy
    (home / "below").rmdir()


def test_a_look_where_nftables_are_missing_leaves_nothing_open() -> None:
    """Python's development mode tells of what is left to the garbage collector."""
    program = (
        "import gc; from swarmcg.cgroup.network import probe; print(probe().lack is not None); gc.collect()"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
