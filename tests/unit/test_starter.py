"""What a bot is given, and what is refused before anything runs."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from swarmcg.bot import Config
from swarmcg.errors import ConfigError, StateError, SwarmcgError
from swarmcg.starter import Starter, _log, bot_environment, work_directory


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
        work_directory(config(directory, **more))
    assert caught.value.remedy
    return caught.value


def test_a_bot_sees_the_allow_list_the_additions_and_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    ours = {
        "PATH": "/bin", "LC_ALL": "C", "https_proxy": "p", "NO_PROXY": "n", "SSL_CERT_FILE": "c", "TZ": "UTC",
        "AWS_SECRET_ACCESS_KEY": "s", "LD_PRELOAD": "x", "PYTHONPATH": "y", "SWARMING_BOT_ID": "old",
    }  # fmt: skip
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    made = bot_environment(config("/w", env={"TZ": "CET", "EXTRA": "1", "SWARMING_BOT_ID": "forged"}))
    assert made == {
        "PATH": "/bin", "LC_ALL": "C", "https_proxy": "p", "NO_PROXY": "n", "SSL_CERT_FILE": "c", "TZ": "CET",
        "EXTRA": "1", "SWARMING_BOT_ID": "bot",
    }  # fmt: skip


def test_a_work_directory_that_will_do(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert work_directory(config(work)) == str(work)
    monkeypatch.chdir(work.parent)
    assert work_directory(config("w")) == str(work)


def test_one_that_is_missing(work: Path) -> None:
    error = refusal(work / "absent")
    assert "does not exist" in error.what
    assert "mkdir -p" in (error.remedy or "")


def test_one_that_is_a_file(work: Path) -> None:
    (work / "file").touch()
    assert "no directory" in refusal(work / "file").what


def test_one_whose_path_is_too_long_for_the_bot_s_sockets(work: Path) -> None:
    with pytest.raises(ConfigError, match="too long") as caught:
        work_directory(Config("bot", "/" + "x" * 60))
    assert caught.value.value == 61
    assert work_directory(Config("bot", str(work), work_directory_limit=len(str(work)))) == str(work)


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
        assert refusal(work).value == "4711"
    assert work_directory(config(work)) == str(work)


def test_a_lock_that_is_a_pipe_or_a_link_holds_nobody_up(work: Path) -> None:
    os.mkfifo(work / "swarming.lck")
    assert work_directory(config(work))
    (work / "swarming.lck").unlink()
    os.symlink("/dev/zero", work / "swarming.lck")
    assert work_directory(config(work))


def test_a_python_that_is_not_there_is_told_before_anything_is_downloaded(work: Path) -> None:
    starter = Starter("http://127.0.0.1:9", cache_directory=work)
    with pytest.raises(ConfigError, match="no-such-python"):
        starter.start(config(work, python_version="no-such-python", env={"PATH": "/bin"}))
    assert os.listdir(work) == []


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
    with pytest.raises(StateError) as caught, _log(str(path)):
        pytest.fail("it was opened")
    assert caught.value.path == str(path)
    assert other.read_text() == "precious"
    assert os.path.lexists(path)


def fail_after_saying(said: bytes, log: Path) -> None:
    with contextlib.suppress(SwarmcgError), _log(str(log)) as fd:
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
