"""A bot without a slice keeps the contract of tests/contract/bots.py, and its reports are as those of a slice."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from swarmcg.bot import Bandwidth, Bot, ExitReport
from swarmcg.elsewhere.bot import TreeBot
from swarmcg.elsewhere.engine import Engine
from swarmcg.errors import (
    ConfigError,
    HomeError,
    ResourcesError,
    StartError,
    StateError,
    UnenforceableError,
    WaitTimeout,
)
from swarmcg.resources import LinuxResources, Memory
from swarmcg.supervisor.launch import Launch
from tests.contract.bots import *  # noqa: F403  its tests are collected here

SOON_S: Final = 90.0
LIMITS: Final = LinuxResources.from_json('{"memory": {"limit": 1048576}, "pids": {"limit": 5}}')
EVERYTHING: Final = """{
  "memory": {"limit": 1048576}, "cpu": {"shares": 2, "quota": 1000}, "pids": {"limit": 5},
  "blockIO": {"weight": 10}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
  "devices": [{"allow": false, "access": "rwm"}], "network": {"classID": 1},
  "unified": {"memory.high": "1048576"}
}"""
OBEDIENT: Final = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done"
DEAF: Final = "trap '' TERM; echo ready; while :; do sleep 1000; done"


class Started:
    """An engine whose bots are shell scripts."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self.engine: Final = Engine(None, enter_home=False)
        self.journal: Final = directory / "state" / "reports.jsonl"

    def start(self, argv: Sequence[str], *, cwd: str | None = None, **launch: Any) -> TreeBot:
        read, write = os.pipe()
        made = {"bot_id": "bot", "on_unenforceable": "report"} | launch
        try:
            with open(os.devnull, "rb") as null:
                env = {"PATH": os.environ.get("PATH", os.defpath)}
                bot = self.engine.start(Launch(**made), argv, env, cwd=cwd, stdio=(null.fileno(), write, 2))
            os.close(write)
            write = -1
            self.said = os.read(read, 100)
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)
        return bot

    def sh(self, script: str, **launch: Any) -> TreeBot:
        """Starts a script, and returns when it has said something."""
        return self.start(["/bin/sh", "-c", script], **launch)

    def reports(self) -> list[ExitReport]:
        return [ExitReport.from_json(line) for line in self.journal.read_bytes().splitlines()]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    monkeypatch.setenv("SWARMCG_STATE_DIR", str(tmp_path / "state"))
    made = Started(tmp_path)
    yield made
    for bot in list(made.engine._bots):
        bot.terminate(0)
    made.engine.close()


@pytest.fixture
def obedient(started: Started) -> Callable[[], Bot]:
    return lambda: started.sh(OBEDIENT)


@pytest.fixture
def deaf(started: Started) -> Callable[[], Bot]:
    return lambda: started.sh(DEAF)


def test_what_is_not_known_is_null_and_what_is_asked_for_is_listed(started: Started) -> None:
    bot = started.sh("echo ready; exit 3", resources=LIMITS)
    report = bot.wait(SOON_S)
    assert bot.slice is None
    assert (report.reason, report.exit_code, report.signal) == ("exited", 3, None)
    assert (report.cpu.user_s, report.memory_peak_bytes, report.pids_peak, report.oom_kills) == (None,) * 4
    assert report.io.read_bytes is report.pressure.cpu.some_s is None
    assert report.limits == {}
    assert {row.field for row in report.unenforced} == {"memory.limit", "pids.limit"}
    assert all(row.why and row.remedy and not row.enforceable for row in report.unenforced)
    assert report.started_at is not None
    assert report.duration_s is not None
    assert 0 < report.duration_s < SOON_S
    assert started.reports() == [report]


def test_every_field_and_a_bandwidth_are_listed(started: Started) -> None:
    everything = LinuxResources.from_json(EVERYTHING)
    bot = started.sh("echo ready", resources=everything, bandwidth=Bandwidth(egress_bps=1 << 20))
    rows = bot.wait(SOON_S).unenforced
    parts = {row.field.split(".")[0].split("[")[0] for row in rows}
    assert {
        "memory",
        "cpu",
        "pids",
        "blockIO",
        "hugepageLimits",
        "devices",
        "network",
        "unified",
        "bandwidth",
    } <= parts
    assert all(row.why == "this platform has no cgroups" for row in rows)


def test_a_bot_that_a_signal_ended_is_told_so(started: Started) -> None:
    report = started.sh("echo ready; kill -KILL $$").wait(SOON_S)
    assert (report.reason, report.exit_code, report.signal) == ("signaled", None, 9)


def test_the_policy_to_refuse_starts_nothing(started: Started) -> None:
    with pytest.raises(UnenforceableError, match="no cgroups") as caught:
        started.sh("touch ran", resources=LIMITS, on_unenforceable="refuse", cwd=str(started.directory))
    assert {row["field"] for row in caught.value.value} == {"memory.limit", "pids.limit"}  # type: ignore[attr-defined]
    assert not (started.directory / "ran").exists()
    lenient = frozenset({"memory.limit", "pids.limit"})
    bot = started.sh("echo ready", resources=LIMITS, on_unenforceable="refuse", lenient=lenient)
    assert len(bot.wait(SOON_S).unenforced) == 2


def test_resources_that_make_no_sense_are_an_error_here_too(started: Started) -> None:
    with pytest.raises(ResourcesError):
        started.sh("echo", resources=LinuxResources.from_json('{"unified": {"no/file": "1"}}'))


def test_what_a_bot_leaves_is_killed_and_counted(started: Started) -> None:
    bot = started.sh("sleep 1000 & (sleep 1001 &) ; echo ready; exit 0")
    report = bot.wait(SOON_S)
    assert report.reason == "exited"
    assert report.leftovers.count in {2, 3}  # the shell between may not have ended yet
    assert set(report.leftovers.names) <= {"sleep", "sh"}  # nor the others be executed
    assert sleeping(bot) == []


def test_the_whole_tree_is_terminated_and_then_killed(started: Started) -> None:
    bot = started.sh(f"(trap '' TERM; {DEAF}) & sleep 1000 & wait; wait; wait")
    assert len(sleeping(bot)) >= 2
    bot.terminate_or_kill(0.3)
    report = bot.wait(0)
    assert report.reason == "terminated"
    assert report.signal == 15
    assert report.leftovers.count >= 1
    assert sleeping(bot) == []


def sleeping(bot: TreeBot) -> list[int]:
    """What is left in the bot's session."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == bot.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except (OSError, psutil.Error):
            continue
    return found


def test_a_drain_by_file_leaves_none_behind(started: Started) -> None:
    work = started.directory / "w"
    script = f"echo ready; until test -e {work}.drain; do sleep 0.02; done"
    bot = started.sh(script, drain="file", work_directory=str(work))
    bot.drain()
    assert bot.wait(SOON_S).reason == "exited"
    assert not Path(f"{work}.drain").exists()


def test_a_drain_by_command(started: Started) -> None:
    script = "echo ready; until test -e asked; do sleep 0.02; done"
    work = str(started.directory)
    bot = started.sh(script, drain=["touch", "asked"], work_directory=work, cwd=work)
    bot.drain()
    assert bot.wait(SOON_S).reason == "exited"


def test_a_drain_command_that_cannot_be_run_ends_no_bot(
    started: Started, caplog: pytest.LogCaptureFixture
) -> None:
    bot = started.sh(OBEDIENT, drain=["/nonexistent"])
    bot.drain(deadline=0.1)
    assert bot.wait(SOON_S).reason == "terminated"
    assert "/nonexistent" in caplog.text


def test_a_program_that_is_none_is_an_error(started: Started) -> None:
    with pytest.raises(StartError) as caught:
        started.start(["/nonexistent"])
    assert (caught.value.step, caught.value.errno, caught.value.path) == ("exec", 2, "/nonexistent")
    with pytest.raises(StartError) as caught:
        started.start(["/bin/sh"], cwd="/nonexistent")
    assert (caught.value.step, caught.value.path) == ("chdir", "/nonexistent")
    with pytest.raises(StartError):
        started.start(["/bin/sh", "a\0b"])
    assert not started.engine._bots


def test_a_home_is_refused() -> None:
    with pytest.raises(HomeError):
        Engine("/sys/fs/cgroup", enter_home=True)


def test_nothing_is_detached(started: Started) -> None:
    with pytest.raises(HomeError) as caught:
        started.engine.check_open(detach=True)
    assert caught.value.remedy


def test_windows_has_no_sigterm(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigError, match="no signal"):
        started.sh("echo", drain="sigterm")


def test_reports_that_cannot_be_kept_stop_a_start(started: Started) -> None:
    (started.directory / "state").write_text("a file")
    with pytest.raises(StateError):
        started.sh("touch ran", cwd=str(started.directory))
    assert not (started.directory / "ran").exists()


def test_a_report_that_cannot_be_kept_at_the_end_is_trouble(started: Started) -> None:
    bot = started.sh(OBEDIENT)
    started.journal.unlink()
    started.journal.mkdir()
    bot.terminate_or_kill()
    assert bot.wait(0).reason == "terminated"
    assert isinstance(bot.trouble, StateError)


def test_after_a_torn_line_a_report_stands_on_one_of_its_own(started: Started) -> None:
    started.journal.parent.mkdir()
    started.journal.write_bytes(b'{"bot_id":"to')
    report = started.sh("echo ready").wait(SOON_S)
    torn, line = started.journal.read_bytes().splitlines()
    assert torn == b'{"bot_id":"to'
    assert ExitReport.from_json(line) == report


def test_many_bots_and_threads_report_each_end_once(started: Started, tmp_path: Path) -> None:
    """Whoever waits, whoever terminates."""
    bots = [started.sh(OBEDIENT, bot_id=f"bot-{n}", report_file=str(tmp_path / f"{n}")) for n in range(5)]
    threads = [
        threading.Thread(target=work, args=(SOON_S,))
        for bot in bots
        for work in (bot.wait, bot.terminate_or_kill, bot.wait, bot.terminate_or_kill)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert sorted(report.bot_id for report in started.reports()) == [bot.bot_id for bot in bots]
    assert {report.incarnation for report in started.reports()} == {bot.incarnation for bot in bots}
    for number, bot in enumerate(bots):
        assert ExitReport.from_json((tmp_path / f"{number}").read_bytes()) == bot.wait(0)


def test_closing_ends_the_bots_and_a_closed_engine_starts_none(started: Started) -> None:
    bots = [started.sh(OBEDIENT), started.sh(OBEDIENT)]
    started.engine.close()
    assert [bot.wait(0).reason for bot in bots] == ["terminated"] * 2
    with pytest.raises(ConfigError, match="closed"):
        started.sh("echo")


def test_a_bot_that_nobody_keeps_is_reported(started: Started) -> None:
    started.sh("echo ready; sleep 0.1")
    end = time.monotonic() + SOON_S
    while not started.journal.read_bytes() and time.monotonic() < end:
        time.sleep(0.01)
    assert [report.reason for report in started.reports()] == ["exited"]


def test_an_operator_s_patience(started: Started) -> None:
    bot = started.sh(DEAF)
    with pytest.raises(WaitTimeout):
        bot.wait(0.05)
    with pytest.raises(ConfigError):
        bot.terminate_or_kill(-1)
    with pytest.raises(ConfigError):
        bot.drain(float("nan"))


def test_an_update_is_refused_or_reported_as_a_start_is(started: Started) -> None:
    strict = started.sh(OBEDIENT, on_unenforceable="refuse")
    with pytest.raises(UnenforceableError, match=r"pids\.limit"):
        strict.update(LIMITS)
    loose = started.sh(OBEDIENT, resources=LinuxResources(memory=Memory(limit=5)))
    loose.update(LIMITS)
    loose.terminate(0)
    strict.terminate(0)
    assert strict.wait(SOON_S).unenforced == ()
    reported = {row.field: row.value for row in loose.wait(SOON_S).unenforced}
    assert reported == {"memory.limit": "1048576", "pids.limit": "5"}
