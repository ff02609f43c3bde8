"""The small bot, run as its zip by a Python of its own."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg.testing import Event, SwarmingServer, faults, small_bot

assert sys.platform != "win32"  # nor does the bot

SOON = 90.0  # the bound of every wait here; none is expected to come near it

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer(sleep=0.02) as running:
        yield running


@pytest.fixture
def start(server: SwarmingServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a bot and returns when it has shaken hands."""
    work = tmp_path / "w"
    work.mkdir()
    (work / "swarming_bot.zip").write_bytes(server.zip)
    bots: list[subprocess.Popen[bytes]] = []

    def starting(*, connected: bool = True) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(work / "swarming_bot.zip"), "start_bot"]
        bot = subprocess.Popen(command, env={"SWARMING_BOT_ID": "b", "PATH": os.environ["PATH"]}, stderr=-1)
        bots.append(bot)
        if connected:
            server.wait_for_event("bot_connected", "b", SOON)
        return bot

    yield starting
    for bot in bots:
        bot.kill()
        bot.communicate()


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_it_runs_a_command_and_reports_output_and_exit_code(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(sh("echo out; echo err >&2; pwd; exit 7"), env={"A": "b"})
    assert (task.wait(SOON), task.exit_code) == ("COMPLETED", 7)
    assert task.output.startswith(b"out\nerr\n/")
    assert task.output.endswith(b"/w\n")


def test_long_output_arrives_whole(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task([sys.executable, "-c", "print('x' * 1_000_000, end='')"])
    task.wait(SOON)
    assert task.output == b"x" * 1_000_000


def test_a_task_has_a_process_group_of_its_own(server: SwarmingServer, start: Start) -> None:
    bot = start()
    task = server.give_task(
        [sys.executable, "-c", "import os; print(os.getpid() == os.getpgrp(), os.getppid())"]
    )
    task.wait(SOON)
    assert task.output.split() == [b"True", str(bot.pid).encode()]


def test_a_task_that_closes_its_output_is_still_waited_for(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(sh("exec >&- 2>&-; sleep 0.3; exit 5"))
    assert (task.wait(SOON), task.exit_code) == ("COMPLETED", 5)


class Listener(small_bot.Bell):
    """A bell without signals that notes what is listened to."""

    def __init__(self) -> None:
        self.rung = False
        self.watched: list[tuple[int, ...]] = []

    def wait(self, seconds: float, *descriptors: int) -> bool:
        self.watched.append(descriptors)
        return bool(select.select(descriptors, [], [], seconds)[0])


class Agreeing(small_bot.Server):
    """A server that has nothing against anything."""

    def tell(self, name: str, **more: Any) -> dict[str, Any]:  # noqa: ARG002  whatever it is told
        return {"ok": True, "must_stop": False}


def test_output_that_was_closed_is_not_listened_to_any_more(tmp_path: Path) -> None:
    server = Agreeing({"server": "http://none.invalid", "version": "1"}, "b")
    manifest = {"task_id": "1", "command": sh("exec >&- 2>&-; sleep 0.3")}
    listener = Listener()
    run = small_bot.Run(manifest, server, str(tmp_path))
    assert run.follow(listener) == 0
    assert listener.watched[0] != ()
    assert () in listener.watched


def test_a_command_that_is_not_there_is_an_error_of_the_task(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(["/no/such/command"])
    assert task.wait(SOON) == "BOT_DIED"
    assert "cannot start the command" in str(task.error)
    assert server.give_task(["true"]).wait(SOON) == "COMPLETED"


def test_a_cancelled_task_is_ended(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(["sleep", "1000"])
    task.wait_until_running(SOON)
    server.cancel(task)
    assert (task.wait(SOON), task.exit_code) == ("KILLED", -signal.SIGTERM)


def test_a_cancelled_task_that_does_not_listen_is_killed(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(sh("trap '' TERM; while :; do sleep 0.1; done"), grace_period=0.3)
    task.wait_until_running(SOON)
    server.cancel(task)
    assert task.wait(SOON) == "KILLED"


def test_a_task_has_its_hard_time_out(server: SwarmingServer, start: Start) -> None:
    start()
    task = server.give_task(["sleep", "1000"], hard_timeout=0.2)
    assert task.wait(SOON) == "TIMED_OUT"


def test_idle_sigterm_ends_it_in_order(server: SwarmingServer, start: Start) -> None:
    bot = start()
    bot.terminate()
    assert bot.wait(SOON) == 0
    assert server.events[-1] == Event("b", "bot_shutdown", "Signal was received")


def test_sigterm_to_the_bot_alone_lets_the_task_finish(server: SwarmingServer, start: Start) -> None:
    bot = start()
    task = server.give_task(sh("sleep 0.3; echo finished"))
    task.wait_until_running(SOON)
    bot.terminate()
    assert bot.wait(SOON) == 0
    assert (task.state, task.output) == ("COMPLETED", b"finished\n")


def test_sigterm_to_all_aborts_the_task_and_tells(
    server: SwarmingServer, start: Start, tmp_path: Path
) -> None:
    bot = start()
    task = server.give_task(
        sh(f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; echo up; sleep 1000")
    )
    while not task.output and not task.ended:
        server.events_from(1 << 30)
    bot.terminate()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert bot.wait(SOON) == 0
    assert any(event.event == "task_error" and "SIGTERM" in event.message for event in server.events)


def test_the_drain_file_ends_it(server: SwarmingServer, start: Start, tmp_path: Path) -> None:
    bot = start()
    (tmp_path / "w.drain").touch()
    assert bot.wait(SOON) == 0
    assert server.events[-1].message == "The drain file was found"


def test_the_server_can_end_it(server: SwarmingServer, start: Start) -> None:
    bot = start()
    server.terminate("b")
    assert bot.wait(SOON) == 0


def test_it_outlives_a_server_with_faults(server: SwarmingServer, start: Start) -> None:
    server.fail("handshake", faults.status(500))
    server.fail("poll", faults.reset)
    server.fail("poll", faults.cut(3))
    server.fail("task_update/", faults.status(503), times=3)
    start()
    task = server.give_task(["echo", "here"])
    assert (task.wait(SOON), task.output) == ("COMPLETED", b"here\n")


def test_an_order_that_it_does_not_know_is_told_to_the_server(server: SwarmingServer, start: Start) -> None:
    start()
    server.restart("b")
    assert server.wait_for_event("bot_error", "b", SOON).message == "cannot do bot_restart"


def test_two_bots_do_not_share_a_work_directory(start: Start, tmp_path: Path) -> None:
    first = start()
    assert (tmp_path / "w" / "swarming.lck").read_text() == str(first.pid)
    second = start(connected=False)
    _, told = second.communicate(timeout=SOON)
    assert (second.returncode, told) == (1, b"another bot runs in this work directory\n")
    assert first.poll() is None


def test_it_knows_one_command(server: SwarmingServer, tmp_path: Path) -> None:
    (tmp_path / "bot.zip").write_bytes(server.zip)
    done = subprocess.run([sys.executable, tmp_path / "bot.zip", "dance"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"usage" in done.stderr
