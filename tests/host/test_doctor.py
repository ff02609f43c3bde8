"""Doctor on real hosts: this one, and what mount namespaces, other namespaces and other users make of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from swarmcg.cgroup.hierarchy import look
from swarmcg.doctor.check import Check
from tests import cgroups
from tests.host.command import SOON_S, SWARMCG, Command, line
from tests.host.unit import Unit

MOUNT: Final = str(look().mount)
AS_NOBODY: Final = """
import email.parser, os, sys
from swarmcg.cgroup.network import nft, shaping
from swarmcg.cli import doctor, main
from swarmcg.doctor.look import linux
os.setgroups([])  # after the imports: another user need not be able to read this checkout
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main.main(sys.argv[1:]))
"""
NO_CGROUPS: Final = "umount -l /sys/fs/cgroup; while umount -l /sys/fs/cgroup 2>/dev/null; do :; done"
NO_V1: Final = f"mount --bind {MOUNT} /mnt; {NO_CGROUPS}; mount --move /mnt /sys/fs/cgroup"


def told(
    *words: str, setup: str = "true", nobody: bool = False, env: dict[str, str] | None = None
) -> dict[str, Check]:
    """What doctor says on a host that the setup made, in a mount namespace of its own; checks by name."""
    program = [sys.executable, "-c", AS_NOBODY] if nobody else [SWARMCG]
    call = shlex.join([*program, "doctor", "--json", *words])
    inside = ["unshare", "--mount", "--propagation", "private", "/bin/bash", "-ec", f"{setup}; exec {call}"]
    done = subprocess.run(
        inside, check=False, capture_output=True, text=True, timeout=SOON_S, env=os.environ | (env or {})
    )
    assert done.stderr == ""
    checks = [Check(**fields) for fields in json.loads(done.stdout)]
    assert done.returncode == int(any(check.state == "fail" for check in checks))
    assert all(check.remedy for check in checks if check.state != "ok")
    return {check.check: check for check in checks}


def test_this_host() -> None:
    found = told()
    assert found["cgroup-mode"].state == {"unified": "ok", "hybrid": "warn"}.get(look().mode, "fail")
    assert found["python"].state == found["packages"].state == found["kernel"].state == "ok"
    assert os.uname().release in found["kernel"].why
    assert found["kernel-log"].state == found["devices"].state == "ok"
    assert {
        "controller.memory",
        "controller.pids",
        "place.state",
        "psi",
        "network",
        "open-files",
    } <= found.keys()


def test_a_hybrid_host_says_who_holds_the_controllers() -> None:
    if look().mode != "hybrid":
        pytest.skip("this host has no version 1")
    found = told()
    assert "cgroup v1 holds" in found["cgroup-mode"].why
    wanted = "unified_cgroup_hierarchy=1" if look().systemd else "cgroup_no_v1=all"
    assert wanted in (found["cgroup-mode"].remedy or "")
    assert "v1 holds the memory controller" in found["controller.memory"].why


def test_a_read_only_cgroup_file_system() -> None:
    found = told(setup=f"mount -o remount,bind,ro {MOUNT}")
    assert found["cgroup-writable"].state == "fail"
    remedy = (found["cgroup-writable"].remedy or "").partition(";")[0]
    assert told(setup=f"mount -o remount,bind,ro {MOUNT}; {remedy}")["cgroup-writable"].state == "ok"


def test_no_cgroup_file_system_at_all() -> None:
    found = told(setup=NO_CGROUPS)
    assert (found["cgroup-mode"].state, found["controller.memory"].state) == ("fail", "warn")
    assert "no cgroup file system is mounted" in found["cgroup-mode"].why
    mended = told(setup=f"{NO_CGROUPS}; {found['cgroup-mode'].remedy}")
    assert (mended["cgroup-mode"].state, mended["home"].why) == (
        "ok",
        "slices are made in /sys/fs/cgroup/swarmcg",
    )


def test_version_1_alone() -> None:
    if look().mode != "hybrid":
        pytest.skip("this host has no version 1")
    found = told(setup=f"umount {MOUNT}")
    assert found["cgroup-mode"].state == "fail"
    assert "cgroup v1 only (" in found["cgroup-mode"].why
    remedy = (found["cgroup-mode"].remedy or "").partition("Until then: ")[2]
    assert told(setup=f"umount {MOUNT}; {remedy}")["cgroup-mode"].state == "warn"


def test_without_proc_nothing_can_be_seen_and_that_is_no_crash() -> None:
    found = told(setup="umount -l /proc")
    assert found["cgroup-mode"].state == "fail"


def test_a_container_with_a_cgroup_namespace_of_its_own(home: Path) -> None:
    """Its root holds processes, as it does in docker; and the cure that is named makes it a home."""
    leaf = home / "container"
    leaf.mkdir()
    enter = f"echo $$ > {leaf}/cgroup.procs; {NO_V1}; exec unshare --cgroup --mount bash -ec"
    mount = "umount /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    call = shlex.join([SWARMCG, "doctor", "--json"])
    found = told(setup=f"{enter} {shlex.quote(f'{mount}; exec {call}')}")
    assert found["container"].state == "ok"
    assert "a cgroup namespace of its own" in found["container"].why
    assert (found["home"].state, "holds processes" in found["home"].why) == ("fail", True)
    cure = (found["home"].remedy or "").partition(": ")[2]
    mended = told(setup=f"{enter} {shlex.quote(f'{mount}; ({cure}) 2>/dev/null || true; exec {call}')}")
    assert mended["home"].why == "slices are made in /sys/fs/cgroup/swarmcg"
    for inner in cgroups.below(home):
        inner.rmdir()


def test_a_container_without_a_cgroup_namespace_that_shows_a_part_of_the_tree(home: Path) -> None:
    found = told(setup=f"mount --bind {home} /mnt; {NO_CGROUPS}; mount --move /mnt /sys/fs/cgroup")
    assert found["container"].state == "warn"
    assert "our cgroup is /, which /sys/fs/cgroup does not show" in found["container"].why


def test_a_pid_namespace_makes_the_kernel_log_useless() -> None:
    call = shlex.join([SWARMCG, "doctor", "--json"])
    found = told(setup=f"exec unshare --pid --fork --mount-proc {call}")
    assert found["container"].state == found["kernel-log"].state == "warn"
    assert "shows the host's cgroups" in found["container"].why
    assert "not those of this PID namespace" in found["kernel-log"].why


def test_a_user_without_any_right(tmp_path: Path) -> None:
    found = told(nobody=True, env={"XDG_STATE_HOME": str(tmp_path), "HOME": "/nonexistent"})
    assert (found["home"].state, found["devices"].state) == ("fail", "warn")
    assert "only root may make cgroups at the top" in found["home"].why
    assert "this user may load no BPF program" in found["devices"].why
    assert found["place.state"].why


def test_a_kernel_log_that_a_container_has_put_null_in_the_place_of() -> None:
    found = told(setup="mount --bind /dev/null /dev/kmsg")
    assert found["kernel-log"].state == "warn"


def test_a_kernel_without_pressure_stall_information() -> None:
    """As far as a mount over it can show; the kernel tier has a kernel without it."""
    assert told(setup="mount -t tmpfs tmpfs /proc/pressure")["psi"].state == "warn"


def test_few_descriptors() -> None:
    found = told(setup="ulimit -n 100")
    assert (found["open-files"].state, "room for 20 bots" in found["open-files"].why) == ("warn", True)


def test_a_package_that_is_missing(tmp_path: Path) -> None:
    """An installation that requires what is not there is found first on the path."""
    broken = tmp_path / "swarmcg-0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: swarmcg\nVersion: 0\nRequires-Dist: not-to-be-found\n"
    )
    found = told(env={"PYTHONPATH": str(tmp_path)})["packages"]
    assert (found.state, found.why) == ("fail", "not installed: not-to-be-found")


STATE: Final = "export SWARMCG_STATE_DIR=/mnt/state; mount -t tmpfs {} tmpfs /mnt"


@pytest.mark.parametrize(
    ("setup", "state", "why"),
    [
        (STATE.format(""), "warn", "lies on tmpfs: reports are lost when the host goes down"),
        (STATE.format("-o ro"), "fail", "/mnt does not allow it"),
        (STATE.format("-o size=1m"), "warn", "1 MiB are left"),
        (STATE.format("-o nr_inodes=2"), "warn", "1 files (inodes) are left"),
        (f"{STATE.format('')}; touch /mnt/state", "fail", "/mnt/state is no directory"),
        ("export SWARMCG_STATE_DIR=/proc/self", "fail", "does not allow it"),
    ],
)
def test_a_state_directory_that_will_not_do(setup: str, state: str, why: str) -> None:
    found = told(setup=setup)["place.state"]
    assert (found.state, why in found.why) == (state, True), found


def test_a_state_directory_on_a_file_system_that_does_not_answer() -> None:
    """A FUSE mount whose server never says a word."""
    options = "fd=3,rootmode=40000,user_id=0,group_id=0"
    setup = f"exec 3<>/dev/fuse; mount -i -t fuse -o {options} none /mnt; export SWARMCG_STATE_DIR=/mnt/state"
    found = told(setup=setup)  # within the bound of all calls here
    assert (found["place.state"].state, "does not answer" in found["place.state"].why) == ("fail", True)
    assert found["place.cache"].state != "fail"


def empty(home: Path) -> None:
    (home / "cgroup.kill").write_text("1")
    cgroups.wait_until_empty(home)


def test_a_delegated_cgroup_in_which_others_live_is_no_home_and_the_cure_makes_one(
    home: Path, tmp_path: Path
) -> None:
    """As for a user whose shell lives in what was delegated to him; and a start says the same."""
    for path in (home, home / "cgroup.procs", home / "cgroup.subtree_control"):
        os.chown(path, 65534, 65534)
    tmp_path.chmod(0o755)
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    env = {"XDG_STATE_HOME": str(state), "XDG_RUNTIME_DIR": str(state), "HOME": "/nonexistent"}
    crowd = f"echo $$ > {home}/cgroup.procs; sleep 600 >/dev/null 2>&1 &"
    found = told(setup=f"{crowd} true", nobody=True, env=env)["home"]
    assert (found.state, "others live in it" in found.why) == ("fail", True)
    empty(home)
    words, _, cure = (found.remedy or "").partition(": ")
    assert f"--home {home}/swarmcg, " in words
    setup = f"{crowd} ({cure}) 2>/dev/null || true"
    mended = told("--home", f"{home}/swarmcg", setup=setup, nobody=True, env=env)["home"]
    assert (mended.state, f"{home}/swarmcg" in mended.why) == ("ok", True)
    empty(home)
    (home / "others").rmdir()


def test_a_slice_without_an_owner_and_its_cure(home: Path, tmp_path: Path) -> None:
    swarmcg = Command(home, tmp_path)
    assert told("--home", str(home))["ownerless"].state == "ok"
    with swarmcg.running("run", "--id", "left", "--", "sh", "-c", "echo ready; exec sleep 1000") as process:
        line(process.stdout)
        assert told("--home", str(home))["ownerless"].state == "ok"
        process.kill()
        process.wait()
    found = told("--home", str(home))["ownerless"]
    assert (found.state, "1 slices have no owner" in found.why) == ("warn", True)
    assert found.remedy == "swarmcg clean --yes"
    assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
    assert told("--home", str(home))["ownerless"].state == "ok"


def test_a_home_that_is_none() -> None:
    found = told("--home", "/tmp")["home"]
    assert (found.state, "The home is not a cgroup" in found.why) == ("fail", True)


@pytest.fixture
def quiet(tmp_path: Path) -> dict[str, str]:
    """An environment in which temporary files can be counted."""
    place = tmp_path / "tmp"
    place.mkdir()
    return {"TMPDIR": str(place)}


def nothing_is_left(home: Path, quiet: dict[str, str]) -> bool:
    return not os.listdir(quiet["TMPDIR"]) and not cgroups.below(home)


def test_the_self_test_proves_placement_and_kill(home: Path, quiet: dict[str, str]) -> None:
    found = told("--self-test", "--home", str(home), env=quiet)
    for name in ("placed", "strays", "sigterm", "gone", "reports"):
        assert found[f"selftest.{name}"].state == "ok", found[f"selftest.{name}"]
    for name in ("pids", "memory"):
        if found[f"controller.{name}"].state != "ok":
            assert found[f"selftest.{name}"].state == "warn"
            assert found[f"selftest.{name}"].why.startswith("not proven: ")
    assert nothing_is_left(home, quiet)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_self_test_that_is_broken_off_leaves_nothing(
    home: Path, quiet: dict[str, str], number: int
) -> None:
    words = [SWARMCG, "doctor", "--self-test", "--home", str(home)]
    process = subprocess.Popen(words, env=os.environ | quiet, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SOON_S
        while not any("main" in group.name for group in cgroups.below(home)):  # a canary has a slice
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(SOON_S) in {128 + number, -number}
    finally:
        process.kill()
        process.wait()
    assert nothing_is_left(home, quiet)


def test_a_self_test_without_a_home_fails_and_leaves_nothing(home: Path, quiet: dict[str, str]) -> None:
    found = told("--self-test", "--home", "/tmp", env=quiet)
    assert found["selftest.start"].state == "fail"
    assert "The home is not a cgroup" in found["selftest.start"].why
    assert nothing_is_left(home, quiet)


def test_a_self_test_of_which_the_home_is_taken_away_fails(home: Path, quiet: dict[str, str]) -> None:
    """Placement cannot be had in a cgroup that may have no descendants."""
    (home / "cgroup.max.descendants").write_text("0")
    found = told("--self-test", "--home", str(home), env=quiet)
    assert "limit on descendants" in found["selftest.strays"].why
    assert found["selftest.strays"].state == found["selftest.reports"].state == "fail"
    assert nothing_is_left(home, quiet)


def test_where_the_bots_unit_runs_it_is_the_home_and_the_self_test_leaves_it_as_it_was(
    home: Path, tmp_path: Path, quiet: dict[str, str]
) -> None:
    unit = Unit(home, tmp_path / "unit")
    unit.start()
    try:
        unit.detach("other", "sleep", "1000")
        found = told("--self-test", env=quiet | dict(unit.env))
        assert found["home"].why == f"slices are made in the bots unit, {unit.bots}"
        assert found["selftest.gone"].state == found["selftest.strays"].state == "ok"
        assert unit.slices() == ["other"]
        assert unit.reports() == {}
        assert not os.listdir(quiet["TMPDIR"])
    finally:
        assert unit.stop("--grace", "0").returncode == 0
    assert list(unit.reports()) == ["other"]
