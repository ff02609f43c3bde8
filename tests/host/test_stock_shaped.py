"""`swarmcg bot` with a bot of the stock bot's shape: idle, at work, updating itself, without its server, not alone.

After each of them nothing is left at all: no slice, and no process that was born in one.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from swarmcg.bot import ExitReport
from swarmcg.testing import Pace, SwarmingServer, Task, stock_shaped_bot
from tests.host.command import SOON_S, Command, line
from tests.host.engine import marked, until

LATE: Final = Pace(before_handler_s=1000)
STRAY: Final = "setsid sleep 1000 >/dev/null 2>&1 & echo stray; sleep 0.5"
DEAF: Final = "trap '' TERM; setsid sleep 1000 >/dev/null 2>&1 & echo deaf; while :; do sleep 0.1; done"


class Lab:
    """One server, one work directory, and calls of the command with a mark that its bots and their tasks
    inherit.
    """

    def __init__(self, swarmcg: Command, server: SwarmingServer, work: str) -> None:
        self.swarmcg: Final = swarmcg
        self.server: Final = server
        self.work: Final = work
        self.mark: Final = uuid.uuid4().hex
        server.publish(*stock_shaped_bot(server.url))

    @contextlib.contextmanager
    def bot(self, *flags: str, polling: bool = True) -> Iterator["Running"]:
        words = [*flags, "--swarming-url", self.server.url, "--work-dir", self.work, "bot-1"]
        polls = self.polls()
        with self.swarmcg.running("bot", *words, env={"LC_MARK": self.mark}) as process:
            assert line(process.stderr).startswith("swarmcg: downloading ")
            started = line(process.stderr)
            assert started.startswith("swarmcg: started bot-1: pid "), started
            pid = int(started.split("pid ")[1].split(",")[0])
            if polling:
                until(lambda: self.polls() > polls)
            yield Running(process, pid)

    def polls(self) -> int:
        return sum(path.endswith("/poll") for _, path in self.server.requests)

    def task(self, script: str, **manifest: Any) -> Task:
        """A task that has said something."""
        task = self.server.give_task(["/bin/sh", "-c", script], **manifest)
        task.wait_for_output(timeout=SOON_S)
        return task

    def ended(self, bot: "Running") -> ExitReport:
        """The bot's report, after the proof that nothing else is left of it."""
        bot.process.communicate(timeout=SOON_S)
        assert self.swarmcg.slices() == []
        assert marked(self.mark) == {}
        assert not os.path.exists(f"{self.work}.drain")
        report = self.swarmcg.reports()[-1]
        status = report.exit_code if report.signal is None else 128 + report.signal
        assert bot.process.returncode == status
        return report

    def events(self) -> list[str]:
        return [event.event for event in self.server.events]


class Running:
    """A call of `swarmcg bot`, and the pid of its bot."""

    def __init__(self, process: subprocess.Popen[str], pid: int) -> None:
        self.process: Final = process
        self.pid: Final = pid

    def drain(self) -> None:
        self.process.send_signal(signal.SIGUSR1)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Lab]:
    with SwarmingServer() as server, tempfile.TemporaryDirectory(prefix="bot") as directory:
        work = os.path.join(directory, "w")  # pytest's own directories are too long for a bot
        os.mkdir(work)
        yield Lab(Command(home, tmp_path), server, work)


@pytest.mark.parametrize(("ask", "reason"), [(Running.terminate, "terminated"), (Running.drain, "exited")])
def test_an_idle_bot_stops_long_before_its_grace_is_over(lab: Lab, ask: Any, reason: str) -> None:
    with lab.bot() as bot:
        began = time.monotonic()
        ask(bot)
        bot.process.wait(SOON_S)  # of a grace of 3 minutes
        print(f"ended after {time.monotonic() - began:.2f} s")
        report = lab.ended(bot)
    assert (report.reason, report.exit_code, report.leftovers.count) == (reason, 0, 0)
    assert lab.events()[-1] == "bot_shutdown"


def test_a_drained_bot_finishes_its_task(lab: Lab) -> None:
    with lab.bot() as bot:
        task = lab.task("echo begun; sleep 1; echo finished")
        bot.drain()
        report = lab.ended(bot)
    assert (task.state, task.output) == ("COMPLETED", b"begun\nfinished\n")
    assert (report.reason, report.exit_code, report.leftovers.count) == ("exited", 0, 0)


def test_what_a_drained_bot_s_task_left_is_killed_and_reported(lab: Lab) -> None:
    with lab.bot() as bot:
        task = lab.task(STRAY)
        bot.drain()
        report = lab.ended(bot)
    assert task.state == "COMPLETED"
    assert (report.reason, report.exit_code) == ("exited", 0)
    assert (report.leftovers.count, report.leftovers.names) == (1, ("sleep",))


def test_a_terminated_bot_aborts_its_task_in_an_orderly_way_well_inside_the_grace(lab: Lab) -> None:
    with lab.bot("--grace", "1h") as bot:
        task = lab.task(f"{STRAY}; exec sleep 1000")
        began = time.monotonic()
        bot.terminate()
        report = lab.ended(bot)
        print(f"ended after {time.monotonic() - began:.2f} s")
    assert (task.state, task.error) == ("BOT_DIED", "task_runner received signal 15")
    assert (report.reason, report.exit_code, report.leftovers.count) == ("terminated", 0, 0)
    assert lab.events()[-2:] == ["task_error", "bot_shutdown"]


def test_a_deaf_task_costs_its_own_grace_and_its_deaf_daemon_that_of_the_bot(lab: Lab) -> None:
    with lab.bot("--grace", "10") as bot:
        task = lab.task(DEAF, grace_period=1)
        began = time.monotonic()
        bot.terminate()
        lab.server.wait_for_event("bot_shutdown", "bot-1", SOON_S)
        assert lab.swarmcg.slices() != []  # the bot is done in its own time; its daemon is not
        report = lab.ended(bot)
        took = time.monotonic() - began
    assert (task.state, task.error) == ("BOT_DIED", "task_runner received signal 15")
    assert (report.reason, report.exit_code) == ("terminated", 0)
    assert took >= 10  # nobody but the kill ends the daemon
    assert (report.leftovers.count, report.leftovers.names) == (1, ("sleep",))


def test_a_bot_that_is_killed_takes_its_task_along(lab: Lab) -> None:
    with lab.bot() as bot:
        lab.task("echo begun; exec sleep 1000")
        os.kill(bot.pid, signal.SIGKILL)
        report = lab.ended(bot)
    assert (report.reason, report.exit_code, report.signal) == ("signaled", None, 9)
    assert report.leftovers.count == 3  # the task runner, the isolated runner, and the task


def test_a_bot_that_updates_itself_has_not_ended(lab: Lab) -> None:
    with lab.bot() as bot:
        slices = lab.swarmcg.slices()
        for number in ("2", "1"):
            updated = stock_shaped_bot(lab.server.url, note=number)
            lab.server.publish(*updated)
            task = lab.server.give_task(["/bin/sh", "-c", "exec ps -o args= -p $PPID"])
            assert task.wait(SOON_S) == "COMPLETED"
            assert f"/swarming_bot.{number}.zip" in task.output.decode()
            assert lab.server.bots[0].version == updated.version
            assert psutil.Process(bot.pid).cmdline()[1].endswith(f"/swarming_bot.{number}.zip")
        assert (lab.swarmcg.slices(), bot.process.poll()) == (slices, None)
        task = lab.task("echo begun; sleep 0.5; echo finished")
        bot.drain()
        report = lab.ended(bot)
    assert task.output == b"begun\nfinished\n"
    assert (report.reason, report.exit_code, len(lab.swarmcg.reports())) == ("exited", 0, 1)
    assert lab.events().count("bot_connected") == 3


@pytest.mark.parametrize("ask", [Running.terminate, Running.drain])
def test_a_bot_that_is_told_while_it_updates_itself_does_not_forget_it(lab: Lab, ask: Any) -> None:
    lab.server.publish(*stock_shaped_bot(lab.server.url, pace=Pace(restart_s=1)))
    with lab.bot() as bot:
        lab.server.publish(*stock_shaped_bot(lab.server.url, note="new"))
        lab.server.wait_for_event("bot_shutdown", "bot-1", SOON_S)  # and so it is about to execute itself
        ask(bot)
        report = lab.ended(bot)  # within its 3 minutes of grace, or without end
    assert (report.exit_code, report.signal) in {(0, None), (None, 15)}


def test_a_bot_that_wrote_its_own_zip_is_started_again_from_a_whole_one(lab: Lab) -> None:
    first = lab.server.version
    with lab.bot() as bot:
        lab.server.publish(*stock_shaped_bot(lab.server.url, note="new"))
        lab.server.give_task(["true"]).wait(SOON_S)
        lab.server.publish(None, first)
        bot.drain()
        lab.ended(bot)
    with lab.bot() as bot:
        assert lab.server.bots[0].version == first
        bot.drain()
        lab.ended(bot)


def test_a_bot_without_its_server_ends_by_the_kill_alone(lab: Lab) -> None:
    with contextlib.ExitStack() as ends:
        with SwarmingServer() as server:
            gone = Lab(lab.swarmcg, server, lab.work)
            bot = ends.enter_context(gone.bot("--grace", "2"))
        began = time.monotonic()
        bot.terminate()
        report = gone.ended(bot)
        assert time.monotonic() - began >= 2
    assert (report.reason, report.exit_code, report.signal) == ("killed-after-grace", None, 9)


@pytest.mark.parametrize("pace", [Pace(), LATE], ids=["that holds its lock", "that has no lock yet"])
def test_a_second_bot_in_a_work_directory_is_refused(lab: Lab, pace: Pace) -> None:
    lab.server.publish(*stock_shaped_bot(lab.server.url, pace=pace))
    with lab.bot(polling=pace is not LATE) as bot:
        if pace is not LATE:
            lab.task("echo begun; exec sleep 1000")  # who is at work does not update itself meanwhile
        zip_before = Path(lab.work, "swarming_bot.zip").read_bytes()
        lab.server.publish(*stock_shaped_bot(lab.server.url, note="another"))
        second = lab.swarmcg(
            "bot", "--swarming-url", lab.server.url, "--work-dir", lab.work, "bot-1", env=lab.swarmcg.env
        )
        assert second.returncode == 125
        assert second.stderr.startswith("swarmcg: Another bot runs in this work directory")
        assert Path(lab.work, "swarming_bot.zip").read_bytes() == zip_before
        assert psutil.pid_exists(bot.pid)
        assert len(lab.swarmcg.slices()) == 1
        bot.terminate()
        report = lab.ended(bot)
    assert (report.reason, len(lab.swarmcg.reports())) == ("terminated", 1)


@pytest.mark.parametrize(("ask", "reason"), [(Running.terminate, "terminated"), (Running.drain, "signaled")])
def test_a_bot_that_is_not_up_yet_ends_by_the_signal(lab: Lab, ask: Any, reason: str) -> None:
    lab.server.publish(*stock_shaped_bot(lab.server.url, pace=LATE))
    with lab.bot(polling=False) as bot:
        until(lambda: any(word.endswith(".1.zip") for word in psutil.Process(bot.pid).cmdline()))
        ask(bot)
        report = lab.ended(bot)
    assert (report.reason, report.exit_code, report.signal) == (reason, None, 15)
    assert bot.process.returncode == 143


def test_a_bot_gets_what_is_added_to_its_environment_and_nothing_else_of_ours(lab: Lab) -> None:
    lab.swarmcg.env["SECRET"], lab.swarmcg.env["KNOWN"] = "s", "k"
    with lab.bot("-e", "SWARMING_EXTERNAL_BOT_SETUP=1", "-e", "KNOWN", "-e", "SWARMING_BOT_ID=forged") as bot:
        task = lab.task("echo $SWARMING_EXTERNAL_BOT_SETUP $KNOWN $SECRET $SWARMING_BOT_ID")
        bot.drain()
        lab.ended(bot)
    assert task.output == b"1 k bot-1\n"


def test_the_server_ends_a_bot(lab: Lab) -> None:
    with lab.bot() as bot:
        lab.server.terminate("bot-1")
        report = lab.ended(bot)
    assert (report.reason, report.exit_code) == ("exited", 0)


def test_what_stands_beside_the_work_directory_is_not_cleared(lab: Lab) -> None:
    Path(lab.work, "junk").touch()
    with lab.bot() as bot:
        assert not Path(lab.work, "junk").exists()
        assert os.path.exists(f"{lab.work}.log")
        Path(f"{lab.work}.log").write_text("")
        os.kill(bot.pid, signal.SIGUSR1)  # the bot's own: it dumps its stacks and exits
        report = lab.ended(bot)
    assert (report.reason, report.exit_code) == ("exited", 0)
    assert "leader.py" in Path(f"{lab.work}.log").read_text()
