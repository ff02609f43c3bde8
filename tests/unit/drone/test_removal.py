"""What a bot can leave, and that it is removed, and nothing else."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from swarmcg.drone.removal import remove_tree
from swarmcg.errors import StateError

LONG_S = 60.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def test_nothing_a_file_and_a_link_are_removed(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "absent"), LONG_S)
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()
    os.symlink(tmp_path / "kept", tmp_path / "link")
    remove_tree(str(tmp_path / "file"), LONG_S)
    remove_tree(str(tmp_path / "link"), LONG_S)
    assert os.listdir(tmp_path) == ["kept"]


def test_links_are_removed_and_what_they_lead_to_is_kept(tree: Path) -> None:
    outside = tree.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "precious").touch()
    (tree / "a" / "b").mkdir(parents=True)
    for link in (tree / "link", tree / "a" / "link", tree / "a" / "b" / "link"):
        os.symlink(outside, link)
    os.symlink(tree, tree / "circle")
    os.link(outside / "deep" / "precious", tree / "a" / "hard link")
    remove_tree(str(tree), LONG_S)
    assert os.listdir(tree.parent) == ["outside"]
    assert (outside / "deep" / "precious").exists()


@pytest.mark.parametrize("length", [240, 241, 255])
def test_a_name_as_long_as_names_can_be(tmp_path: Path, length: int) -> None:
    named = tmp_path / ("n" * length)
    (named / "deep").mkdir(parents=True)
    remove_tree(str(named), LONG_S)
    assert os.listdir(tmp_path) == []


def test_odd_names_pipes_and_sockets(tree: Path) -> None:
    os.mkdir(os.fsencode(tree) + b"/\xff\n")
    os.mkfifo(tree / "pipe")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\n/-rf *")).touch()
    (tree / ".gone-0").mkdir()  # one of the removal's own kind
    remove_tree(str(tree), LONG_S)
    assert not os.path.lexists(tree)


def test_thousands_of_entries_beside_and_below_each_other(tree: Path) -> None:
    """Deeper than a path can say, and than there are descriptors."""
    for number in range(2500):
        (tree / f"{number}").touch()
    deeper = os.open(tree, os.O_RDONLY)
    for _ in range(2500):
        os.mkdir("deep", dir_fd=deeper)
        fd = os.open("deep", os.O_RDONLY, dir_fd=deeper)
        os.close(deeper)
        deeper = fd
    os.close(deeper)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        remove_tree(str(tree), LONG_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not tree.exists()


def test_time_runs_out_and_the_next_call_goes_on(tree: Path) -> None:
    (tree / "a").mkdir()
    with pytest.raises(StateError) as caught:
        remove_tree(str(tree), 0)
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.remedy
    assert tree.is_dir()
    remove_tree(str(tree), LONG_S)
    assert not tree.exists()


AS_NOBODY: Final = """
import os, sys
from swarmcg.drone.removal import remove_tree

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.makedirs("tree/shut/below")
os.makedirs("tree/read-only/below")
open("tree/shut/below/file", "w").close()
open("tree/read-only/file", "w").close()
os.chmod("tree/read-only/below", 0)
os.chmod("tree/read-only", 0o500)
os.chmod("tree/shut", 0)
os.chmod("tree", 0)
remove_tree("tree", 60)
"""


def test_directories_without_rights(tmp_path: Path) -> None:
    """Without root's rights, which make nothing of them."""
    tmp_path.chmod(0o777)
    subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=tmp_path, check=True)
    assert os.listdir(tmp_path) == []


def test_a_failure_is_told_and_the_rest_is_removed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tree / name).mkdir()
        (tree / name / "file").touch()
    (tree / "a" / "immutable").touch()
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "immutable":
            raise PermissionError(errno.EPERM, "no", path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StateError) as caught:
        remove_tree(str(tree), LONG_S)
    assert caught.value.errno == errno.EPERM
    assert "immutable" in (caught.value.cause or "")
    assert "chattr" in (caught.value.remedy or "")
    assert [path.name for path in tree.rglob("*") if path.is_file()] == ["immutable"]
    monkeypatch.undo()
    remove_tree(str(tree), LONG_S)
    assert not tree.exists()
