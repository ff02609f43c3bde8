"""The journal: whole lines only, whoever crashed before."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from swarmcg.bot import ExitReport
from swarmcg.errors import StateError
from swarmcg.journal import Journal
from swarmcg.report_file import write_report, write_report_to


def report(incarnation: str = "0123456789abcdef", bot_id: str = "bot") -> ExitReport:
    return ExitReport(bot_id=bot_id, incarnation=incarnation, reason="exited")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "state" / "reports.jsonl"))


def lines(journal: Journal) -> list[ExitReport]:
    text = Path(journal.path).read_bytes()
    assert text.endswith(b"\n")
    return [ExitReport.from_json(line) for line in text.splitlines()]


def test_directory_and_file_are_made_when_needed(journal: Journal) -> None:
    journal.check()
    assert Path(journal.path).read_bytes() == b""
    journal.append(report())
    assert lines(journal) == [report()]


@pytest.mark.parametrize("sync", [True, False])
def test_reports_are_appended_in_order(journal: Journal, *, sync: bool) -> None:
    for name in "abc":
        journal.append(report(name), sync=sync)
    assert [line.incarnation for line in lines(journal)] == ["a", "b", "c"]


@pytest.mark.parametrize("torn", [b"{", b'{"incarnation":"torn"', report("torn").to_json(), b"\0" * 5000])
def test_a_torn_last_line_is_cut(journal: Journal, torn: bytes) -> None:
    journal.append(report("a"))
    with open(journal.path, "ab") as f:
        f.write(torn)
    journal.append(report("b"))
    assert lines(journal) == [report("a"), report("b")]


def test_a_file_with_nothing_but_a_torn_line(journal: Journal) -> None:
    journal.check()
    Path(journal.path).write_bytes(b"{torn")
    journal.append(report("b"))
    assert lines(journal) == [report("b")]


def test_it_knows_what_was_reported_and_nothing_else(journal: Journal) -> None:
    assert not journal.knows("a" * 16)
    journal.append(report("a" * 16))
    assert journal.knows("a" * 16)
    assert not journal.knows("b" * 16)
    assert not journal.knows("a" * 15)


def test_a_torn_line_is_no_report(journal: Journal) -> None:
    journal.check()
    Path(journal.path).write_bytes(report("a" * 16).to_json())
    assert not journal.knows("a" * 16)


def test_a_bot_cannot_forge_the_report_of_another_by_its_id(journal: Journal) -> None:
    journal.append(report("a" * 16, bot_id='x","incarnation":"bbbbbbbbbbbbbbbb","y":"'))
    assert not journal.knows("b" * 16)


def test_a_link_is_not_followed(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "elsewhere").write_text("precious")
    os.symlink(tmp_path / "elsewhere", journal.path)
    with pytest.raises(StateError) as caught:
        journal.append(report())
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_pipe_is_refused_and_not_waited_for(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.mkfifo(journal.path)
    with pytest.raises(StateError) as caught:
        journal.check()
    assert caught.value.path == journal.path


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError) as caught:
        Journal(f"{tmp_path}/file/reports.jsonl").check()
    assert caught.value.errno in {errno.ENOTDIR, errno.EEXIST}
    assert "SWARMCG_STATE_DIR" in (caught.value.remedy or "")


def test_a_write_that_stops_half_way_is_gone_on_with(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:7], at))
    journal.append(report("a"))
    assert lines(journal) == [report("a")]


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append(report("a"))
    size = os.path.getsize(journal.path)
    whole = os.pwrite

    def room_for_seven(fd: int, data: bytes, at: int) -> int:
        if at > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(fd, data[:7], at)

    monkeypatch.setattr(os, "pwrite", room_for_seven)
    with pytest.raises(StateError) as caught:
        journal.append(report("b"))
    assert caught.value.errno == errno.ENOSPC
    assert lines(journal) == [report("a")]


@settings(max_examples=50)
@given(st.text(min_size=1))
def test_any_id_is_one_line(tmp_path_factory: pytest.TempPathFactory, bot_id: str) -> None:
    journal = Journal(str(tmp_path_factory.mktemp("state") / "reports.jsonl"))
    one = report(bot_id=bot_id.encode(errors="replace").decode())
    journal.append(one, sync=False)
    assert lines(journal) == [one]


def test_a_report_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("older and longer" * 1000)
    write_report(str(file), report())
    assert file.read_bytes() == report().to_json() + b"\n"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_report_file_behind_a_link_is_replaced_where_it_is(tmp_path: Path) -> None:
    os.symlink(tmp_path / "real.json", tmp_path / "link.json")
    write_report(str(tmp_path / "link.json"), report())
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == report().to_json() + b"\n"


def test_a_report_to_a_device_is_written_to_it() -> None:
    write_report("/dev/null", report())
    assert Path("/dev/null").is_char_device()


def test_a_report_to_a_pipe_that_nobody_reads_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StateError) as caught:
        write_report(str(tmp_path / "pipe"), report())
    assert caught.value.errno == errno.ENXIO


def test_a_report_to_a_descriptor_is_written_whole_at_its_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:7]))
    with (tmp_path / "said").open("wb", buffering=0) as f:
        f.write(b"one\n")
        write_report_to(f.fileno(), "/dev/fd/9", report())
        f.write(b"two\n")
    assert (tmp_path / "said").read_bytes() == b"one\n" + report().to_json() + b"\ntwo\n"


def test_a_report_to_a_descriptor_that_takes_nothing_is_one_error() -> None:
    with open("/dev/null", "rb") as f, pytest.raises(StateError) as caught:
        write_report_to(f.fileno(), "/dev/fd/9", report())
    assert (caught.value.path, caught.value.errno) == ("/dev/fd/9", errno.EBADF)
    assert caught.value.remedy


def test_a_report_file_without_a_directory(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        write_report(str(tmp_path / "absent" / "report.json"), report())
    assert caught.value.errno == errno.ENOENT
    assert caught.value.remedy
