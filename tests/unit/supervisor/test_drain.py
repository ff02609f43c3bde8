"""The drain file: where it is, and how it is made in a directory that may be a bot's."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from swarmcg.errors import StateError
from swarmcg.supervisor.drain import drain_file, make_drain_file, remove_drain_file
from swarmcg.supervisor.launch import Launch


@pytest.mark.parametrize(
    ("drain", "work", "path"),
    [
        ("file", "/w", "/w.drain"),
        ("file+sigterm", "/w", "/w.drain"),
        ("sigterm", "/w", None),
        ("file", None, None),
        (["rm", "file"], "/w", None),
    ],
)
def test_where_it_is(drain: Any, work: str | None, path: str | None) -> None:
    assert drain_file(Launch(bot_id="b", drain=drain, work_directory=work)) == path


def test_one_that_is_there_will_do(tmp_path: Path) -> None:
    file = tmp_path / "w.drain"
    for _ in range(2):
        make_drain_file(str(file))
        assert file.read_bytes() == b""
    remove_drain_file(str(file))
    remove_drain_file(str(file))
    assert not file.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "w.drain")
    with pytest.raises(StateError) as caught:
        make_drain_file(str(tmp_path / "w.drain"))
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        make_drain_file(str(tmp_path / "absent" / "w.drain"))
    assert caught.value.remedy
