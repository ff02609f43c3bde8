"""Where the home is, on hosts of every kind. Plain directories stand for cgroups."""

import os
from pathlib import Path

import pytest

from swarmcg.cgroup import find, systemd
from swarmcg.cgroup.find import check_alone, find_home, find_homes, needs_scope
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.systemd import Manager
from swarmcg.errors import HomeError
from tests.unit.cgroup.hosts import like


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
    monkeypatch.setattr(find, "_belongs_to_us", bool)
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


@pytest.mark.parametrize("systemd", [False, True])
def test_a_user_of_a_hybrid_host_is_not_sent_to_root_for_limits(
    host: Hierarchy, monkeypatch: pytest.MonkeyPatch, systemd: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    seen = like(host, v1=frozenset({"memory"}), systemd=systemd)
    remedy = refusal(seen).remedy or ""
    assert remedy.startswith(f"Boot with {seen.pure()} on the kernel command line")
    assert "user manager" in remedy
    assert "without limits" in remedy


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


def test_who_only_looks_is_told_of_others_as_a_start_is_and_moves_nobody(host: Hierarchy) -> None:
    mine = delegated(host, os.getpid(), 1)
    with pytest.raises(HomeError) as caught:
        check_alone(find_home(starts=False, hierarchy=lambda: mine))
    assert str(caught.value) == str(refusal(mine, enter=True))
    assert not os.path.exists(f"{mine.own}/supervisor")
    check_alone(find_home(starts=False, hierarchy=lambda: delegated(host, os.getpid())))
    check_alone(find_home(f"{host.mount}/own/new", hierarchy=lambda: mine))


def test_the_cure_for_others_needs_no_systemd(host: Hierarchy) -> None:
    remedy = refusal(delegated(host, os.getpid(), 1), enter=True).remedy or ""
    assert "systemd" not in remedy
    assert f"mkdir -p {host.mount}/own/others" in remedy
    assert f"--home {host.mount}/own/swarmcg" in remedy


def test_a_mark_of_delegation_is_not_for_another_user_below(
    host: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = delegated(host, os.getpid())
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith(f"{mine.own}"))
    assert "No cgroup is delegated" in refusal(mine, enter=True).what


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


def test_a_home_that_another_process_made_on_demand_is_ours_too_even_if_it_was_killed_right_after_mkdir(
    host: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = find_home(f"{host.mount}/made", hierarchy=lambda: host)
    mkdir = os.mkdir

    def killed(path: str, mode: int) -> None:
        mkdir(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", killed)
    with pytest.raises(KeyboardInterrupt):
        made.prepare()
    found = find_home(f"{host.mount}/made", hierarchy=lambda: host)
    assert found.ours is True
    assert os.stat(found.path).st_mode & 0o777 == 0o711
    found.settle()
    assert not os.path.exists(found.path)
