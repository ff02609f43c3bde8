"""What a bot is given, and what is refused before anything runs."""

import os
from pathlib import Path
from typing import Any

import pytest

from swarmcg.bot import Config
from swarmcg.errors import ConfigError
from swarmcg.starter import Starter, bot_environment


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "w").mkdir()
    return tmp_path / "w"


def config(directory: object, **more: Any) -> Config:
    return Config("bot", str(directory), work_directory_limit=4096, **more)


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


def test_a_python_that_is_not_there_is_told_before_anything_is_downloaded(work: Path) -> None:
    starter = Starter("http://127.0.0.1:9", cache_directory=work)
    with pytest.raises(ConfigError, match="no-such-python"):
        starter.start(config(work, python_version="no-such-python", env={"PATH": "/bin"}))
    assert os.listdir(work) == []


@pytest.mark.parametrize(
    ("url", "more", "told"),
    [
        ("swarming.example.com", {}, "URL"),
        ("https://", {}, "URL"),
        ("http://127.0.0.1:9", {"resources": {"pids": {"limit": 5}}}, "LinuxResources"),
    ],
)
def test_what_can_be_seen_at_once_is_refused_before_anything_is_made(
    work: Path, url: str, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Starter(url, cache_directory=work / "cache").start(config(work, **more))
    assert sorted(os.listdir(work.parent)) == ["home", "w"]  # not even the log
    assert os.listdir(work) == []
