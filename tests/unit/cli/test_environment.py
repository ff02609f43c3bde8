from pathlib import Path

import pytest

from swarmcg.cli import environment
from swarmcg.cli.parser import UsageError


def test_flags_win_over_files_and_later_ones_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"#no\nA=1\r\n  B= x=y \nC\nD\n\n\xff=\xfe\n")
    got = environment.added(["A=2", "A=3", "E", "F="], [str(tmp_path / "a")], {"C": "ours", "E": "e"})
    assert got == {"A": "3", "B": " x=y ", "C": "ours", "E": "e", "F": "", "\udcff": "\udcfe"}


@pytest.mark.parametrize("entry", ["=x", ""])
def test_a_variable_without_a_name_is_an_error(entry: str) -> None:
    with pytest.raises(UsageError, match="-e names no variable"):
        environment.added([entry], [], {})


@pytest.mark.parametrize("text", [b"A B=1\n", b"#\n\nB=2\nA=\0\n", b"A=1\r\n=x\n"])
def test_a_file_that_holds_no_variables_is_an_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a").write_bytes(text)
    (tmp_path / "b").write_bytes(b"GOOD=1\n")
    with pytest.raises(UsageError, match="names no variable") as caught:
        environment.added([], [str(tmp_path / "b"), str(tmp_path / "a")], {})
    number = text.count(b"\n")
    assert caught.value.what.startswith(f"--env-file {tmp_path / 'a'}, line {number}:")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        environment.added([], [str(tmp_path)], {})
    assert caught.value.path == str(tmp_path)
    assert caught.value.errno
