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
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.launch import Launch
from tests.host.command import SOON_S, Command
from tests.host.engine import Driver, facts

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


def wait_for_locks(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """How long whoever takes a home's lock waits for another that holds it, unless told otherwise."""
    waits = locked.__wrapped__  # type: ignore[attr-defined]  # contextmanager's functools.wraps puts it there
    monkeypatch.setattr(waits, "__defaults__", (seconds,))


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
    wait_for_locks(monkeypatch, 0.1)
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
    wait_for_locks(monkeypatch, 0.1)
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


def test_who_only_looks_makes_no_lock_in_a_home(home: Path, tmp_path: Path) -> None:
    """One that root made would keep the home's own user out."""
    home.chmod(0o755)
    os.chown(home, 65534, 65534)
    swarmcg = Command(home, tmp_path)
    for words in (("ps",), ("clean",), ("clean", "--yes")):
        assert swarmcg(*words).returncode == 0
        assert not list(home.glob("*/"))


def test_the_lock_that_root_makes_belongs_to_the_home_s_user(home: Path) -> None:
    home.chmod(0o755)
    os.chown(home, 65534, 65534)
    with locked(str(home), fcntl.LOCK_EX):
        (carrier,) = home.glob("*/")
        assert carrier.stat().st_uid == 65534
    tidy(str(home))


def test_an_ownerless_slice_is_found_where_no_lock_can_be_made(home: Path, tmp_path: Path) -> None:
    home.chmod(0o755)
    (home / slice_name("left", new_incarnation())).mkdir()
    (home / "cgroup.max.descendants").write_text("1")
    swarmcg = Command(home, tmp_path)
    assert "left" in swarmcg("clean").stdout
    assert swarmcg("clean", "--yes").returncode == 0
    assert not list(home.glob("*/"))


def test_an_empty_home_of_ours_is_removed_by_clean(home: Path, tmp_path: Path) -> None:
    ours = home / "ours"
    Home(path=str(ours), hierarchy=look(), ours=True).prepare()
    assert ours.exists()
    assert Command(ours, tmp_path)("clean", "--yes").returncode == 0
    assert not ours.exists()


COME_AND_GO: Final = """
import sys
from pathlib import Path
from swarmcg.keeper.spawn import Order
from swarmcg.supervisor.launch import Launch
from tests.host.engine import Driver
null = open("/dev/null", "r+b").fileno()
for turn in range(25):
    driver = Driver(sys.argv[1], Path(sys.argv[2]), in_process=True)
    order = Order(["/bin/true"], {}, procs=-1, stdio=(null, null, null), service=False)
    driver.supervisor.start(Launch(bot_id="bot"), order, driver)
    driver.turn_until(lambda: not driver.supervisor.bots)
    driver.supervisor.close()
"""


def test_starts_at_the_same_time_in_a_home_that_comes_and_goes(home: Path, tmp_path: Path) -> None:
    """Each process makes the home if need be, and its last bot takes it along."""
    place = str(home / "ours")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COME_AND_GO, place, str(tmp_path / str(number))],
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    said = [process.communicate(timeout=SOON_S)[1].decode() for process in processes]
    assert said == [""] * 4
    assert not os.path.exists(place)


@pytest.mark.parametrize("ours", [False, True])
def test_a_home_whose_lock_is_held_when_its_last_bot_ends_is_tidied_up_later(
    home: Path, tmp_path: Path, *, ours: bool
) -> None:
    place = home / "ours" if ours else home
    driver = Driver(place, tmp_path, in_process=True)
    driver.supervisor.home.prepare()
    place.chmod(0o755)  # where the lock is a cgroup of its own
    with open(os.devnull, "r+b") as null:
        order = Order(["/bin/true"], {}, procs=-1, stdio=(null.fileno(),) * 3, service=False)
        driver.supervisor.start(Launch(bot_id="bot"), order, driver)
    with locked(str(place), fcntl.LOCK_SH):
        driver.turn_until(lambda: not driver.supervisor.bots)
        driver.supervisor.turn(1)
        assert (place / "swarmcg.lock").exists()
    driver.turn_until(lambda: not (place / "swarmcg.lock").exists())
    driver.turn_until(lambda: place.exists() is not ours)
    driver.supervisor.close()


def test_a_home_that_cannot_be_listed_is_settled_by_whoever_comes_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For want of descriptors; the supervisor that settles it has other bots."""

    def refuse(*_: object) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    ours = Home(path=str(home / "ours"), hierarchy=look(), ours=True)
    ours.prepare()
    monkeypatch.setattr(os, "listdir", refuse)
    ours.settle()
    monkeypatch.undo()
    ours.settle()
    assert not (home / "ours").exists()
