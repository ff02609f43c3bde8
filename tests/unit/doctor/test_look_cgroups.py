"""Where a home would be, on hosts where there is none; plain directories stand for cgroups."""

import os
from pathlib import Path

import pytest

from swarmcg.cgroup.hierarchy import Hierarchy
from swarmcg.doctor.look import cgroups
from swarmcg.errors import HomeError
from swarmcg.resources.unified import CONTROLLERS


@pytest.fixture
def host(tmp_path: Path) -> Hierarchy:
    mount = tmp_path / "cg"
    for directory, files in {
        "": {"cgroup.controllers": "cpu memory", "cgroup.subtree_control": "cpu memory"},
        "one": {"cgroup.type": "", "cgroup.kill": "", "memory.max": ""},
        "two": {"cgroup.type": "", "memory.swap.max": ""},
        "stray": {"notes": ""},
    }.items():
        (mount / directory).mkdir(exist_ok=True)
        for name, text in files.items():
            (mount / directory / name).write_text(text)
    return Hierarchy(mount=str(mount), writable=True, own=None, v1=frozenset(), systemd=False)


def test_the_files_of_cgroups_are_taken_together_and_the_root_s_left_out(host: Hierarchy) -> None:
    wanted = frozenset({"cgroup.type", "cgroup.kill", "memory.max", "memory.swap.max"})
    assert cgroups.look_at_cgroups(host).files == wanted


@pytest.mark.parametrize("error", [HomeError("No", remedy="Yes."), PermissionError(13, "Permission denied")])
def test_a_home_that_cannot_be_found_is_told_with_what_its_controllers_would_be(
    host: Hierarchy, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cgroups, "find_home", find)
    found = cgroups.look_at_home(None, host)
    assert (found.path, found.ownerless) == (None, None)
    assert found.why
    assert found.remedy
    assert found.abilities.controllers == {"cpu", "memory"}
    assert "has no pids controller" in found.abilities.lacking["pids"].why


def test_without_cgroup2_every_controller_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    nothing = Hierarchy(mount=None, writable=False, own=None, v1=frozenset(), systemd=False)
    found = cgroups.look_at_home(None, nothing)
    assert "no cgroup version 2" in found.why
    assert (found.abilities.mode, found.abilities.controllers) == ("none", frozenset())
    assert found.abilities.lacking.keys() == CONTROLLERS
