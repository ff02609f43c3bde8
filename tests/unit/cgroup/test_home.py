"""Where the home is, on hosts of every kind. Plain directories stand for cgroups."""

import os
from pathlib import Path

import msgspec
import pytest

from swarmcg.cgroup import home as home_module, systemd
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.home import Home, find_home, find_homes, needs_scope
from swarmcg.cgroup.systemd import Manager
from swarmcg.errors import CgroupError, HomeError


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    """A pure version 2 host without systemd, seen by root from the top."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    mount = str(tmp_path / "cg")
    os.makedirs(f"{mount}/own")
    Path(mount, "own", "cgroup.procs").write_text("")
    return Hierarchy(mount=mount, writable=True, own=mount, v1=frozenset(), systemd=False)


def like(host: Hierarchy, **changes: object) -> Hierarchy:
    return msgspec.structs.replace(host, **changes)


def refusal(host: Hierarchy, explicit: str | None = None, *, enter: bool = False) -> HomeError:
    with pytest.raises(HomeError) as caught:
        find_home(explicit, enter=enter, hierarchy=lambda: host)
    assert caught.value.remedy
    return caught.value


def delegated(host: Hierarchy, *pids: int, name: str = "own") -> Hierarchy:
    own = f"{host.mount}/{name}"
    os.makedirs(own, exist_ok=True)
    Path(own, "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    os.setxattr(own, "user.delegate", b"1")
    return like(host, own=own)


def test_without_systemd_root_has_a_home_of_its_own_at_the_top(host: Hierarchy) -> None:
    assert find_home(hierarchy=lambda: host) == Home(path=f"{host.mount}/swarmcg", hierarchy=host, ours=True)
    assert not os.path.exists(f"{host.mount}/swarmcg")  # looking makes nothing


def test_a_hybrid_host_is_the_same_also_under_systemd(host: Hierarchy) -> None:
    hybrid = like(host, v1=frozenset({"memory"}), systemd=True)
    assert find_home(hierarchy=lambda: hybrid).path == f"{host.mount}/swarmcg"


def test_under_systemd_a_scope_is_asked_for_and_entered(host: Hierarchy) -> None:
    asked: list[Manager] = []
    os.makedirs(f"{host.mount}/new.scope/supervisor")
    Path(f"{host.mount}/new.scope/supervisor/cgroup.procs").touch()
    places = [like(host, systemd=True), delegated(like(host, systemd=True), os.getpid(), name="new.scope")]

    def scope(who: Manager) -> str:
        asked.append(who)
        places.pop(0)
        return "new.scope"

    home = find_home(enter=True, hierarchy=lambda: places[0], scope=scope)
    assert home.path == f"{host.mount}/new.scope"
    assert [who.slice for who in asked] == ["system.slice"]
    assert Path(home.path, "supervisor", "cgroup.procs").read_text() == "0"


def test_a_process_that_is_not_in_the_scope_that_was_made_for_it(host: Hierarchy) -> None:
    seen = like(host, systemd=True)
    with pytest.raises(HomeError) as caught:
        find_home(enter=True, hierarchy=lambda: seen, scope=lambda _: "new.scope")
    assert caught.value.value == "new.scope"


def test_under_systemd_nobody_is_moved_unasked(host: Hierarchy) -> None:
    assert "enter_home=True" in (refusal(like(host, systemd=True)).remedy or "")


def test_a_scope_to_come_has_what_the_manager_can_give(host: Hierarchy) -> None:
    top = Path(host.mount or "")
    (top / "system.slice").mkdir()
    (top / "cgroup.controllers").write_text("cpu hugetlb io memory")
    (top / "cgroup.subtree_control").write_text("memory")
    (top / "system.slice" / "cgroup.controllers").write_text("memory")
    home = find_home(starts=False, hierarchy=lambda: like(host, systemd=True))
    found = home.abilities()
    assert found.controllers == {"cpu", "io", "memory"}
    assert "does not manage it" in found.lacking["hugetlb"].why
    assert home.slices() == []


def test_slices_may_be_in_every_scope_of_ours(host: Hierarchy) -> None:
    scope = f"{host.mount}/system.slice/swarmcg-7-0123abcd.scope"
    os.makedirs(scope)
    first, second = find_homes(hierarchy=lambda: like(host, systemd=True))
    assert first.to_come
    assert second.path == scope
    assert [home.path for home in find_homes(scope, hierarchy=lambda: like(host, systemd=True))] == [scope]
    assert len(find_homes(hierarchy=lambda: host)) == 1


def test_a_user_s_cgroup_below_the_user_manager_is_delegated_when_that_says_so(
    host: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.getuid() or 12345
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(home_module, "_belongs_to_us", bool)
    own = f"{host.mount}/user.slice/user-{uid}.slice/user@{uid}.service/app.slice/x.scope"
    os.makedirs(own)
    Path(own, "cgroup.procs").write_text("")
    said = [False]
    monkeypatch.setattr(systemd, "unit_is_delegated", lambda _, unit: said[0] and unit == "x.scope")
    seen = like(host, own=own, systemd=True)
    assert needs_scope(hierarchy=lambda: seen)
    said[0] = True
    assert not needs_scope(hierarchy=lambda: seen)
    assert not needs_scope(hierarchy=lambda: like(seen, systemd=False))


def test_a_user_without_a_delegated_cgroup(host: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "user manager" in (refusal(like(host, own=None)).remedy or "")


@pytest.mark.parametrize("v1", [frozenset({"memory"}), frozenset()])
def test_no_version_2(host: Hierarchy, v1: frozenset[str]) -> None:
    assert "version 2" in refusal(like(host, mount=None, own=None, v1=v1)).what


def test_a_read_only_mount(host: Hierarchy) -> None:
    assert "read-only" in refusal(like(host, writable=False)).what


def test_a_delegated_cgroup_with_nobody_in_it(host: Hierarchy) -> None:
    mine = delegated(host)
    assert find_home(hierarchy=lambda: mine) == Home(path=mine.own or "", hierarchy=mine, ours=False)


def test_others_in_a_delegated_cgroup_are_not_moved(host: Hierarchy) -> None:
    error = refusal(delegated(host, os.getpid(), 1), enter=True)
    assert error.value == "1"


def test_we_are_not_moved_unless_that_was_allowed(host: Hierarchy) -> None:
    assert "enter_home=True" in (refusal(delegated(host, os.getpid())).remedy or "")


def test_who_starts_nothing_may_stay_where_it_is(host: Hierarchy) -> None:
    mine = delegated(host, os.getpid(), 1)
    assert find_home(starts=False, hierarchy=lambda: mine).path == mine.own


def test_the_container_s_own_cgroup(host: Hierarchy) -> None:
    """In a cgroup namespace even the top of the mount is an ordinary cgroup, and has its files."""
    top = Path(host.mount or "")
    (top / "cgroup.type").write_text("domain")
    (top / "cgroup.procs").write_text("1\n")
    assert "mkdir" in (refusal(host).remedy or "")
    (top / "cgroup.procs").write_text("")
    assert find_home(hierarchy=lambda: host).path == f"{host.mount}/swarmcg"


def test_a_home_that_is_named(host: Hierarchy, tmp_path: Path) -> None:
    assert find_home(f"{host.mount}/own", hierarchy=lambda: host).ours is False
    assert find_home(f"{host.mount}/new", hierarchy=lambda: host).ours is True
    assert "not a cgroup" in refusal(host, str(tmp_path)).what
    assert "not a cgroup" in refusal(host, f"{host.mount}/own/../..").what
    assert "does not exist" in refusal(host, f"{host.mount}/a/b").what


def test_a_home_that_another_process_made_on_demand_is_ours_too(host: Hierarchy) -> None:
    os.mkdir(f"{host.mount}/made")
    os.setxattr(f"{host.mount}/made", "user.swarmcg.home", b"{}")
    assert find_home(f"{host.mount}/made", hierarchy=lambda: host).ours is True


def test_a_home_crosses_a_process_as_json(host: Hierarchy) -> None:
    home = find_home(hierarchy=lambda: host)
    assert msgspec.json.decode(msgspec.json.encode(home), type=Home) == home


def test_only_what_is_named_like_a_slice_is_taken_for_one(host: Hierarchy) -> None:
    home = Home(path=f"{host.mount}/own", hierarchy=host, ours=False)
    for name in ("bot.0123456789abcdef", "system.slice", "probe.7"):
        os.mkdir(f"{home.path}/{name}")
    assert home.slices() == [f"{home.path}/bot.0123456789abcdef"]


def test_a_home_that_does_not_exist_yet_has_no_slices(host: Hierarchy) -> None:
    assert Home(path=f"{host.mount}/swarmcg", hierarchy=host, ours=True).slices() == []


def test_an_empty_home_of_ours_is_removed_and_another_s_is_not(host: Hierarchy) -> None:
    for ours in (True, False):
        path = f"{host.mount}/home-{ours}"
        os.mkdir(path)
        Home(path=path, hierarchy=host, ours=ours).settle()
        assert os.path.exists(path) is not ours


def test_what_is_not_handed_down_names_the_ancestor_that_keeps_it(host: Hierarchy) -> None:
    top = Path(host.mount or "")
    (top / "a" / "b").mkdir(parents=True)
    (top / "cgroup.controllers").write_text("cpu memory")
    (top / "cgroup.subtree_control").write_text("cpu memory")
    (top / "a" / "cgroup.subtree_control").write_text("cpu")
    (top / "a" / "b" / "cgroup.controllers").write_text("cpu")
    found = Home(path=str(top / "a" / "b"), hierarchy=host, ours=False).abilities()
    assert found.controllers == {"cpu"}
    assert found.lacking["memory"].why == f"{top}/a does not hand the memory controller down"
    assert f"{top}/a/cgroup.subtree_control" in (found.lacking["memory"].remedy or "")
    assert "kernel has no pids" in found.lacking["pids"].why


def test_protection_is_granted_by_the_least_of_the_ancestors(host: Hierarchy) -> None:
    top = Path(host.mount or "")
    (top / "a" / "b").mkdir(parents=True)
    (top / "cgroup.controllers").write_text("memory")
    (top / "a" / "b" / "cgroup.controllers").write_text("memory")
    (top / "a" / "memory.low").write_text("100")
    (top / "a" / "b" / "memory.low").write_text("200")
    (top / "a" / "memory.min").write_text("max")
    found = Home(path=str(top / "a" / "b"), hierarchy=host, ours=False).abilities()
    assert found.granted == {"memory.low": 100}


def test_who_comes_second_is_not_given_what_the_first_one_took(host: Hierarchy) -> None:
    """The plan was made before; the home's lock is held by now."""
    home = Home(path=f"{host.mount}/own", hierarchy=host, ours=False)
    one, two = (f"{home.path}/{name}.0123456789abcdef" for name in ("one", "two"))
    for path, low in ((home.path, 100), (one, 60), (two, 0)):
        os.makedirs(path, exist_ok=True)
        Path(path, "memory.low").write_text(str(low))
    with pytest.raises(CgroupError, match="40 bytes left"):
        home.protect(two, "memory.low", "41")
    assert Path(two, "memory.low").read_text() == "0"
    home.protect(two, "memory.low", "40")
    assert Path(two, "memory.low").read_text() == "40"
    home.protect(one, "memory.low", "60")
