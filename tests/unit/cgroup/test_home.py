"""What a home gives its slices, and what becomes of it. Plain directories stand for cgroups."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest

from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import CgroupError
from tests.unit.cgroup.hosts import like

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Enabling:
    """What was enabled in which directory; one that is gone refuses as the kernel does."""

    def __init__(self) -> None:
        self.enabled: set[tuple[int, str]] = set()
        self.before: Callable[[], None] = lambda: None

    def write_line(self, path: str, line: str) -> None:
        self.before()
        directory = os.path.dirname(path)
        self.enabled.add((os.stat(directory).st_ino, line))

    def has(self, directory: str) -> bool:
        return (os.stat(directory).st_ino, "+memory") in self.enabled


@pytest.fixture
def enabling(host: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> Enabling:
    Path(host.mount or "", "cgroup.controllers").write_text("memory")
    Path(host.mount or "", "cgroup.subtree_control").write_text("memory")
    found = Enabling()
    monkeypatch.setattr("swarmcg.cgroup.home.write_line", found.write_line)
    return found


def again(path: str) -> None:
    """The last bot of one process removes the home, and another process makes it: another directory."""
    os.mkdir(f"{path}.new", 0o711)
    os.rmdir(path)
    os.rename(f"{path}.new", path)


def test_what_a_home_refused_that_is_gone_is_asked_of_the_new_one(
    host: Hierarchy, enabling: Enabling
) -> None:
    home = Home(path=f"{host.mount}/ours", hierarchy=host, ours=True)

    def vanish() -> None:
        enabling.before = lambda: None
        again(home.path)
        raise FileNotFoundError(errno.ENOENT, "what the kernel says of one that is gone")

    enabling.before = vanish
    assert home.prepare().controllers == {"memory"}
    assert enabling.has(home.path)


def test_what_every_home_refuses_is_refused(host: Hierarchy, enabling: Enabling) -> None:
    def refuse() -> None:
        raise FileNotFoundError(errno.ENOENT, "what the kernel says of a controller that is not handed down")

    enabling.before = refuse
    found = Home(path=f"{host.mount}/ours", hierarchy=host, ours=True).prepare()
    assert not found.controllers
    assert "refuses +memory" in found.lacking["memory"].why


def test_a_slice_has_its_controllers_in_a_home_that_another_process_has_just_made(
    host: Hierarchy, enabling: Enabling, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(path=f"{host.mount}/ours", hierarchy=host, ours=True)
    home.prepare()
    again(home.path)
    monkeypatch.setattr(Slice, "create", lambda *_: SimpleNamespace())
    home.create("bot.0123456789abcdef", {})
    assert enabling.has(home.path)
