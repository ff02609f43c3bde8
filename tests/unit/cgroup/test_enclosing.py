"""A process that lives in a slice of ours has its home in there. Plain directories stand for cgroups."""

import os
from pathlib import Path

import msgspec
import pytest

from swarmcg.cgroup.enclosing import enclosing_slice, slices_inside
from swarmcg.cgroup.find import find_home, needs_scope
from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.cgroup.home import Home
from swarmcg.errors import HomeError

NAME = "bot-1.0123456789abcdef"


@pytest.fixture
def host(tmp_path: Path) -> Hierarchy:
    return Hierarchy(mount=str(tmp_path), writable=True, own=str(tmp_path), v1=frozenset(), systemd=True)


def living_in(host: Hierarchy, path: str) -> Hierarchy:
    own = f"{host.mount}/{path}"
    os.makedirs(own)
    return msgspec.structs.replace(host, own=own)


def marked(host: Hierarchy, path: str) -> str:
    directory = f"{host.mount}/{path}"
    os.setxattr(directory, "user.swarmcg.intent", b"{}")
    Path(directory, "cgroup.subtree_control").touch()
    return directory


@pytest.mark.parametrize("below", ["main", "main/made/by/the/bot", "main/main"])
def test_wherever_it_is_in_the_slice_its_home_is_beside_main(host: Hierarchy, below: str) -> None:
    inside = living_in(host, f"swarmcg/{NAME}/{below}")
    outer = marked(host, f"swarmcg/{NAME}")
    assert find_home(hierarchy=lambda: inside) == Home(path=f"{outer}/swarmcg", hierarchy=inside, ours=True)
    assert not needs_scope(hierarchy=lambda: inside)


def test_of_slices_in_slices_it_is_the_innermost(host: Hierarchy) -> None:
    inner = f"swarmcg/{NAME}/swarmcg/bot-2.fedcba9876543210"
    inside = living_in(host, f"{inner}/main")
    outer = marked(host, f"swarmcg/{NAME}")
    assert enclosing_slice(inside) == outer
    assert marked(host, inner) == enclosing_slice(inside)


def test_a_directory_that_is_not_named_like_a_slice_is_none(host: Hierarchy) -> None:
    inside = living_in(host, "swarmcg/bot/main")
    marked(host, "swarmcg/bot")
    assert enclosing_slice(inside) is None


def test_a_directory_that_only_looks_like_a_slice_is_none(host: Hierarchy) -> None:
    assert enclosing_slice(living_in(host, f"swarmcg/{NAME}/main")) is None


def test_nothing_to_be_seen_is_nothing(host: Hierarchy) -> None:
    assert enclosing_slice(msgspec.structs.replace(host, own=None)) is None
    assert enclosing_slice(host) is None


def test_another_users_slice_is_refused_and_not_left(
    host: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = living_in(host, f"swarmcg/{NAME}/main")
    outer = marked(host, f"swarmcg/{NAME}")
    monkeypatch.setattr(os, "access", lambda path, _: not path.startswith(outer))  # root may do everything
    with pytest.raises(HomeError) as caught:
        find_home(hierarchy=lambda: inside)
    assert caught.value.path == outer


def test_of_another_users_slice_the_name_is_enough(host: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = living_in(host, f"swarmcg/{NAME}/main")
    assert enclosing_slice(inside) is None
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert enclosing_slice(inside) == f"{host.mount}/swarmcg/{NAME}"


def test_a_home_that_is_told_is_taken(host: Hierarchy) -> None:
    inside = living_in(host, f"swarmcg/{NAME}/main")
    marked(host, f"swarmcg/{NAME}")
    os.mkdir(f"{host.mount}/told")
    assert find_home(f"{host.mount}/told", hierarchy=lambda: inside).path == f"{host.mount}/told"


def test_slices_inside_of_a_slice_are_found_to_any_depth_outer_ones_first(tmp_path: Path) -> None:
    inner = [tmp_path / "swarmcg" / f"{name}.0123456789abcdef" for name in ("a", "b")]
    innermost = inner[0] / "swarmcg" / NAME
    for directory in (*inner, innermost, tmp_path / "swarmcg" / "made-by-the-bot", tmp_path / "main" / NAME):
        directory.mkdir(parents=True)
    assert list(slices_inside(str(tmp_path))) == [*map(str, inner), str(innermost)]
