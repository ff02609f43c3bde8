"""Where a bot may be started, and that it is the only one there."""

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg import workplace
from swarmcg.bot import Config
from swarmcg.errors import ConfigError, StateError, SwarmcgError


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "w").mkdir()
    return tmp_path / "w"


def config(directory: object, **more: Any) -> Config:
    return Config("bot", str(directory), work_directory_limit=4096, **more)


def refusal(directory: object, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        workplace.checked(config(directory, **more))
    assert caught.value.remedy
    return caught.value


def test_a_work_directory_that_will_do(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workplace.checked(config(work)) == str(work)
    monkeypatch.chdir(work.parent)
    assert workplace.checked(config("w")) == str(work)


def test_one_that_is_missing(work: Path) -> None:
    error = refusal(work / "absent")
    assert "does not exist" in error.what
    assert "mkdir -p" in (error.remedy or "")


def test_one_that_is_a_file(work: Path) -> None:
    (work / "file").touch()
    error = refusal(work / "file")
    assert "no directory" in error.what
    assert "mkdir" not in (error.remedy or "")


def test_one_whose_path_is_too_long_for_the_bot_s_sockets(work: Path) -> None:
    with pytest.raises(ConfigError, match="too long") as caught:
        workplace.checked(Config("bot", "/" + "x" * 60))
    assert caught.value.value == 61
    assert workplace.checked(Config("bot", str(work), work_directory_limit=len(str(work)))) == str(work)


@pytest.mark.parametrize("how", ["home", "parent", "link"])
def test_the_home_directory_and_what_holds_it(work: Path, how: str) -> None:
    home = work.parent / "home"
    os.symlink(home, work / "link")
    path = {"home": home, "parent": work.parent, "link": work / "link"}[how]
    assert "home directory" in refusal(path).what


def test_the_root_directory_holds_the_home_directory() -> None:
    assert "home directory" in refusal("/").what


def test_one_in_which_a_bot_runs_already(work: Path) -> None:
    with open(work / "swarming.lck", "w", encoding="ascii") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="Another bot") as caught:
            workplace.check_unlocked(str(work))
        assert (caught.value.value, bool(caught.value.remedy)) == ("4711", True)
    workplace.check_unlocked(str(work))


def test_a_lock_that_is_a_pipe_or_a_link_holds_nobody_up(work: Path) -> None:
    os.mkfifo(work / "swarming.lck")
    workplace.check_unlocked(str(work))
    (work / "swarming.lck").unlink()
    os.symlink("/dev/zero", work / "swarming.lck")
    workplace.check_unlocked(str(work))


@pytest.mark.parametrize("kind", ["pipe", "link", "hard link", "directory"])
def test_a_log_that_is_no_plain_file_is_not_written_to(work: Path, kind: str) -> None:
    other, path = work / "other", work / "w.log"
    other.write_text("precious")
    make = {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: os.symlink(other, path),
        "hard link": lambda: os.link(other, path),
        "directory": lambda: path.mkdir(),  # noqa: PLW0108  one type for all
    }
    make[kind]()
    with pytest.raises(StateError) as caught, workplace.log(str(path)):
        pytest.fail("it was opened")
    assert caught.value.path == str(path)
    assert other.read_text() == "precious"
    assert os.path.lexists(path)


def fail_after_saying(said: bytes, log: Path) -> None:
    with contextlib.suppress(SwarmcgError), workplace.log(str(log)) as fd:
        os.write(fd, said)
        raise SwarmcgError("the start fails")


def test_a_log_that_was_there_is_appended_to_and_kept(work: Path) -> None:
    (work / "w.log").write_text("before\n")
    fail_after_saying(b"after\n", work / "w.log")
    assert (work / "w.log").read_text() == "before\nafter\n"


@pytest.mark.parametrize("said", [b"", b"why it failed"])
def test_a_new_log_of_a_failed_start_is_taken_away_if_it_is_empty(work: Path, said: bytes) -> None:
    fail_after_saying(said, work / "w.log")
    assert (work / "w.log").exists() is bool(said)


def test_a_directory_is_claimed_until_the_last_process_has_closed_the_log(work: Path) -> None:
    path = str(work / "w.log")
    with workplace.log(path) as fd:
        bot = subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & read _; exec sleep 1000"], stdin=-1, stdout=fd)
        assert_claimed(path)
    with bot, pidfd_of(only_child(bot)) as child:
        assert_claimed(path)
        bot.kill()
        bot.wait()
        assert_claimed(path)
        signal.pidfd_send_signal(child, signal.SIGKILL)
        assert select.select([child], [], [], 10)[0]
    with workplace.log(path):
        assert os.path.exists(path)


def assert_claimed(path: str) -> None:
    with pytest.raises(ConfigError, match="Another bot"), workplace.log(path):
        pytest.fail("two bots")


def only_child(process: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        assert process.poll() is None
    return int(found[0])


@contextlib.contextmanager
def pidfd_of(pid: int) -> Iterator[int]:
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def test_a_log_that_is_taken_away_while_it_is_opened_is_opened_anew(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = work / "w.log"
    flock = fcntl.flock
    taken: list[int] = []

    def take_away_first(fd: int, how: int) -> None:
        if not taken:
            path.unlink()
        taken.append(fd)
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", take_away_first)
    with workplace.log(str(path)) as fd:
        assert os.path.samestat(os.fstat(fd), path.stat())
    assert len(taken) == 2
    taken.clear()
    monkeypatch.setattr(fcntl, "flock", lambda *_: path.unlink())
    with pytest.raises(StateError, match="vanishes"), workplace.log(str(path)):
        pytest.fail("it was opened")


def test_without_flock_a_bot_is_started_all_the_same(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with workplace.log(str(work / "w.log")):
        pass
