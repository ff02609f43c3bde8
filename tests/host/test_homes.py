"""Hosts on which no slice can be made, each made in a mount namespace of its own: one clear error."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from swarmcg.cgroup.find import find_home
from swarmcg.cgroup.hierarchy import look
from swarmcg.cgroup.names import new_incarnation, slice_name
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


def test_not_root_in_a_home_that_belongs_to_root(home: Path) -> None:
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


def test_a_home_whose_lock_another_process_holds_is_one_clear_error(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "__defaults__", (0.1,))
    fd = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(CgroupError) as caught:
            find_home(str(home)).create(slice_name("bot", new_incarnation()), {})
    finally:
        os.close(fd)
    assert (caught.value.what, caught.value.path, caught.value.errno) == (
        "The home is in use",
        str(home),
        errno.EAGAIN,
    )
    assert "lslocks" in (caught.value.remedy or "")
