"""How hosts mount their cgroups, from texts of /proc/self/mountinfo and /proc/self/cgroup."""

import os
from pathlib import Path

import msgspec
import pytest

from swarmcg.cgroup import hierarchy
from swarmcg.cgroup.hierarchy import Hierarchy, look

HEAD = "22 1 0:20 / /proc rw,nosuid - proc proc rw\n"


def v2(target: str, root: str = "/", options: str = "rw,nosuid", superblock: str = "rw,nsdelegate") -> str:
    return f"30 23 0:26 {root} {target} {options} shared:4 - cgroup2 cgroup2 {superblock}\n"


def v1(controllers: str) -> str:
    return f"31 23 0:27 / /sys/fs/cgroup/{controllers} rw - cgroup cgroup rw,{controllers}\n"


@pytest.fixture
def mount(tmp_path: Path) -> str:
    (tmp_path / "cg" / "user" / "me").mkdir(parents=True)
    return str(tmp_path / "cg")


def seen(monkeypatch: pytest.MonkeyPatch, mountinfo: str, cgroup: str = "0::/\n") -> Hierarchy:
    files = {"/proc/self/mountinfo": HEAD + mountinfo, "/proc/self/cgroup": cgroup}
    monkeypatch.setattr(hierarchy, "_lines", lambda path: files[path].splitlines())
    return look()


def test_version_2_alone(monkeypatch: pytest.MonkeyPatch, mount: str) -> None:
    found = seen(monkeypatch, v2(mount), "0::/user/me\n")
    assert (found.mode, found.mount, found.own, found.writable) == (
        "unified",
        mount,
        f"{mount}/user/me",
        True,
    )
    assert found.v1 == frozenset()


def test_both_versions(monkeypatch: pytest.MonkeyPatch, mount: str) -> None:
    found = seen(monkeypatch, v1("cpu,cpuacct") + v1("blkio") + v1("memory") + v1("name=systemd") + v2(mount))
    assert found.mode == "hybrid"
    assert found.v1 == {"cpu", "io", "memory"}
    lack = found.lack("memory")
    assert "v1 holds the memory controller" in lack.why
    # Only where systemd runs has its own parameter a meaning.
    assert lack.remedy == "Boot with cgroup_no_v1=all on the kernel command line."
    under = msgspec.structs.replace(found, systemd=True).lack("memory")
    assert "systemd.unified_cgroup_hierarchy=1" in (under.remedy or "")


def test_version_1_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, v1("memory"), "4:memory:/\n")
    assert (found.mode, found.mount, found.own, found.writable) == ("legacy", None, None, False)


def test_no_cgroup_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, "", "")
    assert (found.mode, found.mount) == ("none", None)
    assert "no cgroup2" in found.lack("memory").why


@pytest.mark.parametrize(("options", "superblock"), [("ro,nosuid", "rw"), ("rw", "ro")])
def test_a_read_only_mount(
    monkeypatch: pytest.MonkeyPatch, mount: str, options: str, superblock: str
) -> None:
    assert not seen(monkeypatch, v2(mount, options=options, superblock=superblock)).writable


def test_a_mount_that_shows_a_part_of_the_tree(monkeypatch: pytest.MonkeyPatch, mount: str) -> None:
    found = seen(monkeypatch, v2(mount, root="/docker/abc"), "0::/docker/abc/user/me\n")
    assert found.own == f"{mount}/user/me"
    assert seen(monkeypatch, v2(mount, root="/docker/abc"), "0::/docker/abc\n").own == mount


def test_our_own_cgroup_outside_of_what_the_mount_shows(monkeypatch: pytest.MonkeyPatch, mount: str) -> None:
    assert seen(monkeypatch, v2(mount, root="/docker/abc"), "0::/docker/abcd\n").own is None
    assert seen(monkeypatch, v2(mount), "0::/../outside\n").own in {None, os.path.dirname(mount)}
    assert seen(monkeypatch, v2(mount), "0::/gone (deleted)\n").own is None


def test_a_mount_point_with_odd_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    found = seen(monkeypatch, v2(str(tmp_path / "a b").replace(" ", "\\040")))
    assert found.mount == str(tmp_path / "a b")


def test_a_controller_that_the_kernel_lacks(monkeypatch: pytest.MonkeyPatch, mount: str) -> None:
    lack = seen(monkeypatch, v2(mount)).lack("rdma")
    assert "rdma" in lack.why
    assert "cgroup_disable=rdma" in (lack.remedy or "")


def test_this_host_can_be_looked_at() -> None:
    assert look().mode in {"unified", "hybrid", "legacy", "none"}
