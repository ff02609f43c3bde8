"""The journal when the disk is full or several processes write to it: no report is lost, none is torn."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from swarmcg.bot import ExitReport
from swarmcg.journal import Journal
from tests.host.engine import SOON_S, Engine, reported, reports, slices, until
from tests.host.test_crashes import clean

APPENDER: Final = """
import sys
from swarmcg.bot import ExitReport
from swarmcg.journal import Journal
for number in range(int(sys.argv[3])):
    report = ExitReport(bot_id="b" * 300, incarnation=f"{sys.argv[2]}-{number}", reason="exited")
    Journal(sys.argv[1]).append(report, sync=False)
"""
FULL: Final = """
import sys
from swarmcg.bot import ExitReport
from swarmcg.errors import StateError
from swarmcg.journal import Journal
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", sys.argv[1]], check=True)
journal = Journal(sys.argv[1] + "/reports.jsonl")
kept = 0
try:
    while True:
        journal.append(ExitReport(bot_id="b", incarnation=str(kept), reason="exited"))
        kept += 1
except StateError as e:
    lines = open(journal.path, "rb").read().splitlines()
    assert [ExitReport.from_json(line).incarnation for line in lines] == [str(n) for n in range(kept)]
    print(kept, e.errno)
"""
LAST: Final = ExitReport(bot_id="last", incarnation="0", reason="exited")


@pytest.fixture
def engine(home: Path, tmp_path: Path) -> Iterator[Engine]:
    with Engine(home, tmp_path) as engine:
        yield engine


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_report_that_finds_no_room_keeps_its_slice_for_later(engine: Engine, home: Path, room: int) -> None:
    first = engine.start("true").wait(SOON_S)
    size = engine.journal.stat().st_size
    bot = engine.start("/bin/sh", "-c", "exit 3")
    pid = engine.supervisor.pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
    second = engine.start("/bin/sh", "-c", "exit 4")
    reports_ = [bot.wait(SOON_S), second.wait(SOON_S)]
    assert [report.exit_code for report in reports_] == [3, 4]
    assert second.trouble is not None
    assert second.trouble.path == str(engine.journal)
    assert engine.journal.read_bytes() == first.to_json() + b"\n" + b"".join(
        report.to_json() + b"\n" for report in reports_ if report.incarnation in reported(engine.journal)
    )
    assert os.path.basename(second.slice) in slices(home)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    # The keeper lets go of a slice a moment after the supervisor has told of it.
    until(lambda: clean(engine.home, engine.journal) == 0 and not slices(home))
    assert set(reported(engine.journal).values()) == {1}
    assert {report.exit_code for report in engine.reports()} == {0, 3, 4}
    assert slices(home) == []


def test_a_disk_that_is_really_full_tears_no_line(tmp_path: Path) -> None:
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    kept, number = map(int, done.stdout.split())
    assert kept > 3
    assert os.strerror(number) == "No space left on device"


def test_several_processes_append_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "reports.jsonl"
    crowd = [
        subprocess.Popen([sys.executable, "-c", APPENDER, journal, str(number), "200"]) for number in range(4)
    ]
    assert [process.wait(SOON_S) for process in crowd] == [0] * 4
    assert set(reported(journal)) == {f"{number}-{line}" for number in range(4) for line in range(200)}
    assert len(reports(journal)) == 800


def test_a_writer_that_is_killed_leaves_only_whole_lines_to_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "reports.jsonl"
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", APPENDER, journal, "w", "1000000"])
        while not journal.exists() or journal.stat().st_size < 10_000:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait(SOON_S)
        Journal(str(journal)).append(LAST)
        assert reports(journal)[-1] == LAST
        journal.unlink()
