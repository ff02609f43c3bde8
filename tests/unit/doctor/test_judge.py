"""Every verdict, by value: a host on which nothing is lacking, changed in one thing."""

import errno
from typing import Any, Final

import pytest

from swarmcg.doctor.judge import judge
from swarmcg.doctor.seen import Seen, Systemd
from swarmcg.resources import Disk, Lack, Networking
from tests.unit.doctor.hosts import (
    CGROUPS,
    HOME,
    HOST,
    KERNEL,
    MIB,
    PYTHON,
    STATE,
    SYSTEMD,
    bad,
    changed,
    linux,
    verdicts,
)
from tests.unit.resources.hosts import ABLE

BFQ: Final = {"8:0": Disk(name="sda", whole="8:0", scheduler="bfq")}


def healthy_disks() -> Seen:
    return linux(home=changed(HOME, abilities=changed(ABLE, disks=BFQ)))


def test_a_host_that_lacks_nothing_is_told_so() -> None:
    checks = judge(healthy_disks())
    assert bad(healthy_disks()) == []
    assert all(check.why and check.remedy is None for check in checks)
    assert len(checks) >= 25


def kernel(**changes: Any) -> Seen:
    return linux(kernel=changed(KERNEL, **changes))


def cgroups(**changes: Any) -> Seen:
    return linux(cgroups=changed(CGROUPS, **changes))


def home(**changes: Any) -> Seen:
    return linux(home=changed(HOME, **changes))


def able(**changes: Any) -> Seen:
    return home(abilities=changed(ABLE, disks=BFQ, **changes))


def place(**changes: Any) -> Seen:
    return changed(HOST, places=(changed(STATE, **changes),))


def unit(**changes: str) -> Seen:
    return linux(systemd=changed(SYSTEMD, bots_unit={**SYSTEMD.bots_unit, **changes}))


def user(**changes: Any) -> Seen:
    return linux(uid=1000, systemd=changed(SYSTEMD, **changes))


def options(without: str) -> Seen:
    return cgroups(options=CGROUPS.options - {without})


def lacks(controller: str, **changes: Any) -> Seen:
    lack = Lack(f"/sys/fs/cgroup/x does not hand the {controller} controller down", "echo +it > there")
    return able(controllers=ABLE.controllers - {controller}, lacking={controller: lack}, **changes)


CASES: Final[list[tuple[Seen, str, str, str, str]]] = [
    # host, check, state, in why, in remedy
    (
        changed(HOST, python=changed(PYTHON, version=(3, 10))),
        "python",
        "fail",
        "older than 3.11",
        "python3.11",
    ),
    (
        changed(HOST, python=changed(PYTHON, missing=("cgroupspy", "psutil"))),
        "packages",
        "fail",
        "cgroupspy psutil",
        "/usr/bin/python3 -m pip install cgroupspy psutil",
    ),
    (place(answered=False), "place.state", "fail", "does not answer", "SWARMCG_STATE_DIR"),
    (
        place(refused="[Errno 11]"),
        "place.state",
        "fail",
        "no process can be started: [Errno 11]",
        "Mend that",
    ),
    (place(directory=False), "place.state", "fail", "no directory", "Move it away"),
    (
        place(writable=False, exists="/var/lib"),
        "place.state",
        "fail",
        "/var/lib does not allow it",
        "mkdir -p",
    ),
    (place(free_bytes=3 * MIB), "place.state", "warn", "3 MiB are left", "Free some"),
    (place(free_bytes=0), "place.state", "fail", "0 MiB are left", "Free some"),
    (place(free_files=7), "place.state", "warn", "7 files (inodes)", "Free some"),
    (place(free_files=0), "place.state", "fail", "0 files (inodes)", "Free some"),
    (place(kind="tmpfs"), "place.state", "warn", "lost when the host goes down", "SWARMCG_STATE_DIR"),
    (
        place(kind="overlay,volatile"),
        "place.state",
        "warn",
        "lost when the host goes down",
        "SWARMCG_STATE_DIR",
    ),
    (place(kind="fuse", syncs=False), "place.state", "warn", "without fsync", "SWARMCG_STATE_DIR"),
    (kernel(pidfd=False), "pidfd", "fail", "pidfd_open (5.3)", "seccomp"),
    (
        linux(
            kernel=changed(KERNEL, version=(5, 10), release="5.10.1"), cgroups=changed(CGROUPS, files=None)
        ),
        "kernel",
        "warn",
        "no cgroup.kill (5.14)",
        "5.14",
    ),
    (cgroups(files=frozenset({"cgroup.kill"})), "kernel", "warn", "no cgroup.freeze (5.2)", "5.14"),
    (
        linux(uid=1000, kernel=changed(KERNEL, version=(5, 6))),
        "kernel",
        "fail",
        "user attributes on cgroups (5.7)",
        "run as root",
    ),
    (
        cgroups(mode="hybrid", v1=frozenset({"memory", "cpu"})),
        "cgroup-mode",
        "warn",
        "v1 holds cpu, memory",
        "Boot",
    ),
    (
        cgroups(mode="legacy", mount=None, v1=frozenset({"memory"})),
        "cgroup-mode",
        "fail",
        "cgroup v1 only (memory)",
        "mount -t cgroup2",
    ),
    (cgroups(mode="none", mount=None), "cgroup-mode", "fail", "no cgroup file system", "mount -t cgroup2"),
    (cgroups(writable=False), "cgroup-writable", "fail", "read-only", "mount -o remount,rw"),
    (cgroups(pid_namespace=True), "container", "warn", "shows the host's cgroups", "--cgroupns=private"),
    (cgroups(root="/docker/a"), "container", "warn", "shows the host's cgroups", "--cgroupns=private"),
    (
        cgroups(own=None, name="/docker/a"),
        "container",
        "warn",
        "/docker/a, which /sys/fs/cgroup does",
        "unshare",
    ),
    (
        home(path=None, why="systemd said no", remedy="ask it again", ownerless=None),
        "home",
        "fail",
        "systemd said no",
        "ask it again",
    ),
    (
        home(ownerless=("/cg/a", "/cg/b")),
        "ownerless",
        "warn",
        "2 slices have no owner: /cg/a, /cg/b",
        "clean --yes",
    ),
    (home(ownerless=None), "ownerless", "warn", "cannot be looked at", "root"),
    (linux(systemd=Systemd(version=None)), "systemd", "warn", "does not tell", "systemctl --version"),
    (linux(systemd=changed(SYSTEMD, version=249)), "systemd", "warn", "older than 252", "Upgrade"),
    (linux(systemd=changed(SYSTEMD, version=241)), "systemd", "warn", "no cpuset (244)", "Upgrade"),
    (user(delegated=None), "user-manager", "warn", "no systemd manager", "loginctl enable-linger 1000"),
    (
        unit(LoadState="not-found"),
        "bots-unit",
        "warn",
        "not installed",
        "systemctl enable --now",
    ),
    (unit(LoadState="masked"), "bots-unit", "warn", "is masked", "systemctl unmask"),
    (unit(ActiveState="inactive"), "bots-unit", "warn", "is inactive", "systemctl start"),
    (home(served=False), "bots-unit", "warn", "none of our processes serves it", "systemctl reload"),
    (unit(Delegate="no"), "bots-unit", "fail", "without Delegate=yes", "systemctl revert"),
    (linux(systemd=changed(SYSTEMD, bots_unit={})), "bots-unit", "warn", "does not tell", "systemctl status"),
    *(
        (
            lacks(name),
            f"controller.{name}",
            "warn",
            f"does not hand the {name} controller down",
            "echo +it > there",
        )
        for name in ("cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma")
    ),
    (
        linux(
            cgroups=changed(CGROUPS, files=frozenset({"cgroup.kill", "cgroup.freeze", "memory.max"})),
            kernel=changed(KERNEL, swap_bytes=64 * MIB),
        ),
        "swap-accounting",
        "warn",
        "goes on in 64 MiB of swap",
        "swapaccount=1",
    ),
    (
        options("memory_recursiveprot"),
        "mount.memory_recursiveprot",
        "warn",
        "off: memory.low",
        "remount,memory_rec",
    ),
    (options("nsdelegate"), "mount.nsdelegate", "warn", "can change the limits", "remount,nsdelegate"),
    (kernel(psi="off"), "psi", "warn", "switched off", "psi=1"),
    (kernel(psi="absent"), "psi", "warn", "has no pressure", "CONFIG_PSI"),
    (kernel(log=False), "kernel-log", "warn", "/dev/kmsg cannot be read", "dmesg_restrict=0"),
    (cgroups(pid_namespace=True), "kernel-log", "warn", "not those of this PID namespace", "--pid=host"),
    (kernel(bpf=errno.EPERM), "devices", "warn", "this user may load no BPF", "CAP_BPF"),
    (kernel(bpf=errno.ENOSYS), "devices", "warn", "Function not implemented", "CONFIG_CGROUP_BPF"),
    (
        linux(network=Networking(lack=Lack("no nftables", "modprobe it"))),
        "network",
        "warn",
        "no nftables",
        "modprobe it",
    ),
    (
        linux(network=Networking(ingress=Lack("no program", "be root"))),
        "network",
        "warn",
        "what is received cannot be limited: no program",
        "be root",
    ),
    (kernel(open_files=100), "open-files", "warn", "room for 20 bots", "LimitNOFILE"),
]


@pytest.mark.parametrize(("seen", "check", "state", "why", "remedy"), CASES)
def test_what_is_lacking_is_named_with_its_cure(
    seen: Seen, check: str, state: str, why: str, remedy: str
) -> None:
    found = verdicts(seen)[check]
    assert found.state == state
    assert why in found.why
    assert remedy in (found.remedy or "")


@pytest.mark.parametrize("seen", [case[0] for case in CASES])
def test_whatever_is_not_ok_says_what_it_means_in_one_line_and_has_a_cure(seen: Seen) -> None:
    for check in judge(seen):
        assert check.why
        assert "\n" not in check.why + (check.remedy or "")
        assert (check.remedy is None) == (check.state == "ok"), check


def test_another_platform_fails_and_is_asked_nothing_of_linux() -> None:
    found = verdicts(changed(HOST, platform="darwin", linux=None))
    assert (found["platform"].state, set(found)) == (
        "warn",
        {"platform", "python", "packages", "place.state"},
    )
    assert "darwin has no cgroups" in found["platform"].why


def test_a_distribution_may_bring_a_file_to_an_older_kernel() -> None:
    assert verdicts(kernel(version=(4, 18), release="4.18.0-553.el8"))["kernel"].state == "ok"


def test_figures_that_a_kernel_does_not_know_are_no_fault() -> None:
    found = verdicts(kernel(version=(6, 1), release="6.1.0"))["kernel"]
    assert (found.state, found.why) == ("ok", "Linux 6.1.0; reports do not know swap_peak_bytes (6.5)")
    assert verdicts(HOST)["kernel"].why == "Linux 6.12.0"


def test_a_container_with_a_cgroup_namespace_of_its_own_is_as_it_should_be() -> None:
    found = verdicts(cgroups(namespace=True, pid_namespace=True))
    assert found["container"].state == "ok"
    assert "a container with a cgroup namespace of its own" in found["container"].why


def test_what_the_host_does_not_have_need_not_be_limited() -> None:
    none = linux(
        home=changed(
            HOME, abilities=changed(ABLE, disks=BFQ, controllers=ABLE.controllers - {"rdma", "hugetlb"})
        ),
        kernel=changed(KERNEL, rdma=False, hugepages={"2MB": 0}),
    )
    assert bad(none) == []
    assert "this host has no huge pages" in verdicts(none)["controller.hugetlb"].why
    assert "hugepages" not in verdicts(none)


def test_huge_pages_are_counted() -> None:
    assert verdicts(HOST)["hugepages"].why == "reserved: 4 of 2MB"


def test_a_host_without_swap_need_not_count_it() -> None:
    found = verdicts(cgroups(files=frozenset({"cgroup.kill", "cgroup.freeze", "memory.max"})))
    assert found["swap-accounting"].state == "ok"


def test_where_no_cgroup_has_the_memory_controller_nothing_is_said_of_swap() -> None:
    assert "swap-accounting" not in verdicts(cgroups(files=frozenset({"cgroup.kill", "cgroup.freeze"})))


def test_each_whole_disk_is_judged_by_its_scheduler() -> None:
    disks = {
        "8:0": Disk(name="sda", whole="8:0", scheduler="bfq"),
        "8:1": Disk(name="sda1", whole="8:0", scheduler="bfq"),
        "8:16": Disk(name="sdb", whole="8:16", scheduler="none", iocost=True),
        "8:32": Disk(name="sdc", whole="8:32", scheduler="mq-deadline"),
        "7:0": Disk(name="loop0", whole="7:0", scheduler="none"),
        "253:0": Disk(name="dm-0", whole="253:0", scheduler="none"),
        "9:0": Disk(name="md0", whole="9:0"),
    }
    found = verdicts(home(abilities=changed(ABLE, disks=disks)))
    states = {name: check.state for name, check in found.items() if name.startswith("disk.")}
    assert states == {"disk.sda": "ok", "disk.sdb": "ok", "disk.sdc": "warn"}
    assert found["disk.sdc"].remedy == "modprobe bfq && echo bfq > /sys/block/sdc/queue/scheduler"


def test_weights_of_disks_are_no_matter_without_the_io_controller() -> None:
    assert not [name for name in verdicts(lacks("io")) if name.startswith("disk.")]


def test_the_user_manager_s_lack_is_cured_as_the_controller_s_is() -> None:
    cure = Lack("app.slice does not hand it down", "As root: write a drop-in")
    lacking = changed(HOME, abilities=changed(ABLE, lacking={"cpuset": cure, "io": cure}))
    seen = linux(
        uid=1000, home=lacking, systemd=changed(SYSTEMD, delegated=frozenset({"cpu", "memory", "pids"}))
    )
    found = verdicts(seen)["user-manager"]
    assert (found.state, found.remedy) == ("warn", "As root: write a drop-in")
    assert "cpuset, io" in found.why
    every = user(delegated=frozenset({"cpu", "cpuset", "io", "memory", "pids"}))
    assert verdicts(every)["user-manager"].state == "ok"


def test_units_and_managers_are_judged_for_whom_they_serve() -> None:
    assert "user-manager" not in verdicts(HOST)
    assert "bots-unit" not in verdicts(user(delegated=None))
    without = verdicts(linux(systemd=None))
    assert {"bots-unit", "user-manager"} & without.keys() == set()
    assert without["systemd"].state == "ok"


def test_a_scope_that_is_to_come_is_a_home() -> None:
    found = verdicts(home(path="/sys/fs/cgroup/system.slice/swarmcg.scope", to_come=True))["home"]
    assert found.state == "ok"
    assert "systemd makes for each start" in found.why


def test_a_home_that_was_named_and_is_not_there_is_said_to_be_made() -> None:
    found = verdicts(home(path="/sys/fs/cgroup/nosuch", missing=True))["home"]
    assert (found.state, found.why.startswith("there is no such home yet")) == ("ok", True)
    assert "made when it is needed" in found.why


def test_the_bots_unit_is_a_home() -> None:
    found = verdicts(home(path="/sys/fs/cgroup/system.slice/swarmcg-bots.service/bots", served=True))
    assert found["home"].why.startswith("slices are made in the bots unit, /sys/fs/cgroup/system.slice")
    assert found["home"].state == found["bots-unit"].state == "ok"


def test_one_fault_is_not_told_twice() -> None:
    """No cgroup2, or a read-only one, is why there is no home."""
    homeless = changed(HOME, path=None, why="there is no cgroup2", remedy="mount it", ownerless=None)
    for changes in ({"mode": "none", "mount": None}, {"writable": False}):
        seen = linux(cgroups=changed(CGROUPS, **changes), home=homeless)
        assert [name for name, state in bad(seen) if state == "fail"] in (
            ["cgroup-mode"],
            ["cgroup-writable"],
        )


def test_the_state_directory_alone_must_outlive_the_host() -> None:
    runtime = changed(STATE, purpose="runtime", path="/run/swarmcg", exists="/run", kind="tmpfs", syncs=False)
    found = verdicts(changed(HOST, places=(runtime,)))["place.runtime"]
    assert (found.state, found.why) == (
        "ok",
        "/run/swarmcg (tmpfs, 999 MiB free); it is made when it is needed",
    )
