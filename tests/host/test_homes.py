"""Hosts on which no slice can be made, each made in a mount namespace of its own: one clear error."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.cgroup import home_lock
from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.home import Home
from swarmcg.cgroup.home_lock import locked, tidy
from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.slice import Slice
from swarmcg.errors import CgroupError
from swarmcg.flock import hold
from tests.host.engine import facts

TOLD: Final = """
import json, os, sys
from swarmcg.cgroup.find import find_home
from swarmcg.errors import SwarmcgError
if {nobody}:  # after the imports: another user need not be able to read this checkout
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
try:
    home = find_home(*sys.argv[1:])
    home.prepare()
    print(json.dumps(dict(error=None, path=home.path)))
except SwarmcgError as e:
    print(json.dumps(e.to_dict() | dict(text=str(e))))
"""
MOUNT: Final = look().mount


def told(setup: str, *arguments: str, nobody: bool = False) -> dict[str, Any]:
    """What is told of the home on a host that the setup made, to root or to a user without any right."""
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "/bin/sh",
        "-ec",
        f'{setup}; exec "$@"',
        "sh",
    ]
    command += [sys.executable, "-c", TOLD.format(nobody=nobody), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return facts(done.stdout)


def test_a_read_only_cgroup_file_system() -> None:
    error = told(f"mount -o remount,bind,ro {MOUNT}")
    assert (error["error"], error["errno"], error["path"]) == ("HomeError", errno.EROFS, MOUNT)
    assert "remount,rw" in error["remedy"]
    assert len(error["text"].splitlines()) == 3


def test_a_home_that_was_named_on_a_read_only_cgroup_file_system(home: Path) -> None:
    error = told(f"mount -o remount,bind,ro {MOUNT}", str(home))
    assert error["errno"] == errno.EROFS
    assert "read-only" in error["text"]


def test_no_cgroup2_beside_version_1() -> None:
    if look().mode != "hybrid":
        pytest.skip("this host has no version 1")
    error = told(f"umount {MOUNT}")
    assert error["error"] == "HomeError"
    assert "version 1 is" in error["cause"]
    assert error["remedy"]


def test_no_cgroup_at_all() -> None:
    error = told("umount -l /sys/fs/cgroup; while umount -l /sys/fs/cgroup 2>/dev/null; do :; done")
    assert error["error"] == "HomeError"
    assert "mount -t cgroup2" in error["remedy"]


def test_no_proc() -> None:
    assert told("umount -l /proc")["error"] == "HomeError"


def test_not_root() -> None:
    error = told("true", nobody=True)
    assert (error["error"], error["errno"]) == ("HomeError", errno.EACCES)
    assert "user manager" in error["remedy"]


@pytest.mark.parametrize("mode", [0o711, 0o755])
def test_not_root_in_a_home_that_belongs_to_root(home: Path, mode: int) -> None:
    home.chmod(mode)
    error = told("true", str(home), nobody=True)
    assert error["errno"] in {errno.EACCES, errno.EPERM}
    assert error["remedy"]


def test_a_part_of_the_tree_bind_mounted_elsewhere(home: Path, tmp_path: Path) -> None:
    """As in a container: the mount shows our home as its root."""
    setup = f"mount --bind {home} {tmp_path}; umount -l {MOUNT}"
    found = told(setup)
    assert found["error"] is None, found
    assert found["path"] == f"{tmp_path}/swarmcg"
    assert os.listdir(home / "swarmcg")
    (home / "swarmcg").rmdir()


def made(path: Path) -> Slice:
    return Home(path=str(path), hierarchy=look(), ours=False).create(slice_name("bot", new_incarnation()), {})


@pytest.mark.parametrize("mode", [0o711, 0o755])
def test_a_home_whose_lock_another_process_holds_is_one_clear_error(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    home.chmod(mode)
    monkeypatch.setattr(locked.__wrapped__, "__defaults__", (0.1,))  # type: ignore[attr-defined]
    with locked(str(home), fcntl.LOCK_SH), pytest.raises(CgroupError) as caught:
        Home(path=str(home), hierarchy=look(), ours=False).protect(str(home), "memory.low", "1")
    tidy(str(home))
    assert (caught.value.what, caught.value.path, caught.value.errno) == (
        "The home is in use",
        str(home),
        errno.EAGAIN,
    )
    assert "lslocks" in (caught.value.remedy or "")


HOLDING: Final = """
import fcntl, os, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
fds = []
for top, directories, files in os.walk(sys.argv[1]):
    for name in (top, *(os.path.join(top, name) for name in (*directories, *files))):
        for how in (os.O_RDONLY, os.O_WRONLY):
            try:
                fds.append(os.open(name, how))
                fcntl.flock(fds[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                if isinstance(e, BlockingIOError):
                    print("waits for", name, flush=True)
print(len(fds), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", [0o711, 0o755])
@pytest.mark.parametrize("before", [False, True])
def test_another_user_who_locks_all_that_it_can_open_holds_up_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: int, *, before: bool
) -> None:
    """Neither what it has opened before the first start, nor what it finds while a slice is there."""
    monkeypatch.setattr(locked.__wrapped__, "__defaults__", (0.1,))  # type: ignore[attr-defined]
    place = Home(path=str(home), hierarchy=look(), ours=False)
    home.chmod(mode)
    first = None if before else made(home)
    command = [sys.executable, "-c", HOLDING, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip().isdigit()
        slices = [held for held in (first, made(home)) if held is not None]
        assert list(place.ownerless()) == []
        assert place.unowned(held.path for held in slices) == frozenset()
        for held in slices:
            with held.changing(0):
                pass
            held.close()
        adopted = list(place.ownerless())
        other.communicate()
    assert len(adopted) == len(slices)
    for held in adopted:
        held.remove()
    place.settle()
    assert [path.name for path in home.iterdir() if path.is_dir()] == []


def test_the_lock_of_a_home_is_not_removed_while_it_is_held(home: Path) -> None:
    home.chmod(0o755)
    with locked(str(home), fcntl.LOCK_SH):
        tidy(str(home))
        with pytest.raises(BlockingIOError), locked(str(home), fcntl.LOCK_EX, 0):
            pass
    tidy(str(home))
    assert not (home / "swarmcg.lock").exists()


def test_a_lock_that_was_removed_while_somebody_waited_for_it_is_taken_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o755)
    removals = [home / "swarmcg.lock"]

    def late(fd: int, how: int, within: float) -> None:
        if removals:
            removals.pop().rmdir()
        hold(fd, how, within)

    monkeypatch.setattr(home_lock, "hold", late)
    with (
        locked(str(home), fcntl.LOCK_EX),
        pytest.raises(BlockingIOError),
        locked(str(home), fcntl.LOCK_EX, 0),
    ):
        pass
    tidy(str(home))


def test_no_room_for_the_lock_is_not_taken_for_somebody_who_holds_it(home: Path) -> None:
    home.chmod(0o755)
    (home / "cgroup.max.descendants").write_text("0")
    with pytest.raises(CgroupError, match="descendants"):
        made(home)
