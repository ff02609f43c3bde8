"""The stock-shaped bot behaves as the stock bot was seen to behave; run as its zip by a Python of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarmcg.testing import Event, Pace, Package, SwarmingServer, Task, package, stock_shaped_bot

assert sys.platform != "win32"  # nor does the bot

SOON = 30.0  # the bound of every wait here; none is expected to come near it
CLEARED = ("junk", "swarming_bot.3.zip", "READ", "w")
KEPT = ("my-cacert.pem", ".vpython3", "README.md", "c", "cas_cache", "cipd_cache", "tmp", "cas_kvs_cache_db")
DEAF_WITH_STRAY = "trap '' TERM; setsid sh -c 'echo stray $$; exec sleep 1000' & sleep 1000"
LEAVES_STRAY = "setsid sleep 1000 >/dev/null 2>&1 & echo stray $!"


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer(sleep=0.02) as running:
        yield running


class Bots:
    """Starts bots in one work directory, with the server's live package or another."""

    def __init__(self, server: SwarmingServer, work: Path) -> None:
        self.server = server
        self.work = work
        self._started: list[subprocess.Popen[bytes]] = []
        server.publish(*stock_shaped_bot(server.url))

    def start(self, package: Package | None = None, *, connected: bool = True) -> subprocess.Popen[bytes]:
        (self.work / "swarming_bot.zip").write_bytes(package.zip if package else self.server.zip)
        command = [sys.executable, str(self.work / "swarming_bot.zip"), "start_bot"]
        env = {"SWARMING_BOT_ID": "b", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        env["SWARMCG_TEST_RUN"] = os.environ["SWARMCG_TEST_RUN"]  # so that an orphan is found
        bot = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, start_new_session=True
        )
        self._started.append(bot)
        if connected:
            self.server.wait_for_event("bot_connected", "b", SOON)
            wait_for_poll(self.server)
        return bot

    def end(self) -> None:
        """Nothing of a bot is out of its tree, but its daemons, to which each test sees."""
        for bot in self._started:
            if bot.poll() is None:
                for process in stopped_tree(psutil.Process(bot.pid)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            bot.communicate()


def wait_for_poll(server: SwarmingServer) -> None:
    """Before its first poll a bot that is told to stop leaves without a word."""
    end = time.monotonic() + SOON
    while not any(path.endswith("/poll") for _, path in server.requests):
        assert time.monotonic() < end
        time.sleep(0.01)


def stopped_tree(root: psutil.Process) -> set[psutil.Process]:
    """The process and all below it, stopped, so that none of them starts another any more."""
    stopped: set[psutil.Process] = set()
    while found := {root, *root.children(recursive=True)} - stopped:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        stopped |= found
    return stopped


@pytest.fixture
def bots(server: SwarmingServer, tmp_path: Path) -> Iterator[Bots]:
    (tmp_path / "w").mkdir()
    made = Bots(server, tmp_path / "w")
    yield made
    made.end()


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def running(server: SwarmingServer, script: str, **manifest: Any) -> Task:
    """A task whose command has said ``up``."""
    task = server.give_task(sh(f"{script}"), **manifest)
    task.wait_for_output(timeout=SOON)
    return task


def terminate_all(bot: subprocess.Popen[bytes]) -> None:
    """SIGTERM to every process, as swarmcg does it to a slice."""
    everybody = [psutil.Process(bot.pid), *psutil.Process(bot.pid).children(recursive=True)]
    for process in everybody:
        process.suspend()
    for process in everybody:
        process.terminate()
    for process in everybody:
        process.resume()


def stray_of(task: Task) -> psutil.Process:
    return psutil.Process(int(task.output.split()[1]))


def test_each_process_after_the_first_has_a_group_of_its_own_in_one_session(
    server: SwarmingServer, bots: Bots
) -> None:
    bot = bots.start()
    running(server, "echo up; sleep 1000; :")  # the shell stays what it is
    chain = [psutil.Process(bot.pid)]
    while (children := chain[-1].children()) and chain[-1].name() != "sh":
        chain += children
    assert chain[-1].cmdline() == ["/bin/sh", "-c", "echo up; sleep 1000; :"]
    assert [
        word for process in chain for word in process.cmdline() if word.startswith(("start", "task_", "run_"))
    ][:3] == ["start_bot", "task_runner", "run_isolated"]
    assert len(chain) == 4
    assert [os.getpgid(process.pid) for process in chain] == [process.pid for process in chain]
    assert {os.getsid(process.pid) for process in chain} == {bot.pid}


def test_it_runs_a_command_and_reports_output_and_exit_code(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    command = sh("echo out; echo err >&2; pwd; echo $A $SWARMING_BOT_ID; exit 7")
    task = server.give_task(command, env={"A": "a=b"}, relative_cwd="in/here")
    assert (task.wait(SOON), task.exit_code) == ("COMPLETED", 7)
    assert task.output == f"out\nerr\n{bots.work}/w/ir/in/here\na=b b\n".encode()
    long = server.give_task([sys.executable, "-c", "print('x' * 1_000_000, end='')"])
    assert (long.wait(SOON), long.output) == ("COMPLETED", b"x" * 1_000_000)
    bot.terminate()
    assert bot.communicate(timeout=SOON) == (b"", b"")  # nothing but errors comes out of it
    logs = {"swarming_bot.log", "task_runner.log", "run_isolated.log", "task_runner_stdout.log"}
    assert set(os.listdir(bots.work / "logs")) == logs


def test_a_command_that_is_not_there_fails_as_a_task_does(server: SwarmingServer, bots: Bots) -> None:
    bots.start()
    task = server.give_task(["/no/such/command"])
    assert (task.wait(SOON), task.exit_code) == ("COMPLETED", 1)
    assert b"/no/such/command" in task.output


def test_idle_sigterm_ends_it_in_order(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    bot.terminate()
    assert bot.wait(SOON) == 0
    assert server.events[-1] == Event("b", "bot_shutdown", "Signal was received")


def test_sigterm_before_its_handler_is_set_kills_it(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start(stock_shaped_bot(server.url, pace=Pace(before_handler_s=1000)), connected=False)
    while not (bots.work / "logs" / "swarming_bot.log").exists():
        assert bot.poll() is None
        time.sleep(0.01)
    bot.terminate()
    assert bot.wait(SOON) == -signal.SIGTERM  # 143 for a shell


def test_sigterm_to_its_group_reaches_it_alone_and_is_a_drain(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    task = running(server, "echo up; sleep 0.5; echo finished")
    os.killpg(bot.pid, signal.SIGTERM)
    assert bot.wait(SOON) == 0
    assert (task.state, task.output) == ("COMPLETED", b"up\nfinished\n")
    assert server.events[-1].event == "bot_shutdown"


def test_sigterm_to_all_aborts_the_task_and_tells(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    task = running(server, "echo up; exec sleep 1000")
    terminate_all(bot)
    assert bot.wait(SOON) == 0
    assert (task.state, task.error, task.exit_code) == ("BOT_DIED", "task_runner received signal 15", None)
    assert [event.event for event in server.events][-2:] == ["task_error", "bot_shutdown"]


def test_a_deaf_task_is_killed_after_its_own_grace_and_its_daemon_is_left(
    server: SwarmingServer, bots: Bots
) -> None:
    bot = bots.start()
    task = running(server, DEAF_WITH_STRAY, grace_period=0.5)
    began = time.monotonic()
    terminate_all(bot)
    assert bot.wait(SOON) == 0
    assert time.monotonic() - began > 0.5
    assert task.state == "BOT_DIED"
    stray = stray_of(task)
    assert stray.is_running()  # as deaf as the task
    stray.kill()


def test_a_daemon_outlives_its_task_and_a_clean_exit(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    task = server.give_task(sh(LEAVES_STRAY))
    assert task.wait(SOON) == "COMPLETED"
    bot.terminate()
    assert bot.wait(SOON) == 0
    stray = stray_of(task)
    assert (stray.is_running(), stray.ppid() != bot.pid) == (True, True)
    stray.kill()


@pytest.mark.parametrize(
    ("manifest", "state"),
    [({"hard_timeout": 0.3}, "TIMED_OUT"), ({"io_timeout": 3}, "TIMED_OUT"), ({}, "KILLED")],
)
def test_a_task_ends_at_its_limits_or_when_it_is_cancelled(
    server: SwarmingServer, bots: Bots, manifest: dict[str, float], state: str
) -> None:
    bots.start()
    # The time without output begins before the command does; an interpreter or two come between.
    task = running(server, "echo up; exec sleep 1000", **manifest)
    if not manifest:
        server.cancel(task)
    assert (task.wait(SOON), task.exit_code) == (state, -signal.SIGTERM)


def test_a_task_that_is_cancelled_before_its_command_began_never_begins(
    server: SwarmingServer, bots: Bots, tmp_path: Path
) -> None:
    task = server.give_task(["touch", str(tmp_path / "begun")])
    task.must_stop = True
    bots.start()
    assert task.wait(SOON) == "CANCELED"
    assert not (tmp_path / "begun").exists()


def test_it_updates_itself_under_the_same_pid_from_another_file(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    first = server.version
    for number in ("2", "1"):  # the other file each time
        updated = stock_shaped_bot(server.url, note=number)
        server.publish(*updated)
        task = server.give_task(sh("tr '\\0' ' ' </proc/$PPID/cmdline"))
        assert task.wait(SOON) == "COMPLETED"
        assert server.give_task(["true"]).wait(SOON) == "COMPLETED"  # what follows a task is over
        assert f"/swarming_bot.{number}.zip" in task.output.decode()
        assert [(b.version, b.state) for b in server.bots] == [(updated.version, "idle")]
        assert (bots.work / "swarming.lck").read_text() == str(bot.pid)
        assert zip_version(bots.work / "swarming_bot.zip") != first  # kept as good code
    assert bot.poll() is None
    assert sum(event.event == "bot_connected" for event in server.events) == 3
    assert server.wait_for_event("bot_shutdown", "b").message.startswith("About to restart: Updating to ")


def zip_version(path: Path) -> str:
    return subprocess.run(
        [sys.executable, path.rename(path.with_name("v.zip")), "version"],
        check=True, capture_output=True, text=True, cwd=path.parent,
    ).stdout.strip()  # fmt: skip


def test_a_bad_update_is_told_and_the_old_version_goes_on(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    good = server.version
    server.publish(b"no zip", "bad")
    assert "New bot code is bad" in server.wait_for_event("bot_error", "b", SOON).message
    server.publish(None, good)
    assert server.give_task(["true"]).wait(SOON) == "COMPLETED"
    assert bot.poll() is None


def test_it_restarts_itself_when_told(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    server.restart("b", "why not")
    assert server.wait_for_event("bot_shutdown", "b", SOON).message == "About to restart: why not"
    assert server.give_task(["true"]).wait(SOON) == "COMPLETED"
    assert bot.poll() is None


def test_it_reboots_nothing(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    server.reboot("b", "now")
    assert server.wait_for_event("bot_rebooting", "b", SOON).message == "now"
    bot.terminate()
    assert bot.wait(SOON) == 0


def test_the_server_can_end_it(server: SwarmingServer, bots: Bots) -> None:
    bot = bots.start()
    server.terminate("b")
    assert bot.wait(SOON) == 0
    assert server.events[-1].event == "bot_shutdown"


def test_it_clears_its_work_directory_except_for_what_it_knows(server: SwarmingServer, bots: Bots) -> None:
    for name in CLEARED + KEPT:
        (bots.work / name).mkdir()
    (bots.work.parent / "w.log").touch()
    bots.start()
    server.give_task(["true"]).wait(SOON)
    left = set(os.listdir(bots.work))
    assert left >= set(KEPT)
    assert left & {"junk", "swarming_bot.3.zip", "READ"} == set()
    assert (bots.work.parent / "w.log").exists()


def test_a_second_bot_waits_and_would_reboot(server: SwarmingServer, bots: Bots) -> None:
    first = bots.start()
    assert (bots.work / "swarming.lck").read_text() == str(first.pid)
    second = bots.start(stock_shaped_bot(server.url, pace=Pace(second_bot_s=0.1)), connected=False)
    _, told = second.communicate(timeout=SOON)
    assert second.returncode == 1
    assert told.startswith(b"Found a previous bot")
    assert (first.poll(), len(server.bots)) == (None, 1)


def test_sigusr1_dumps_its_stacks(bots: Bots) -> None:
    bot = bots.start()
    bot.send_signal(signal.SIGUSR1)
    _, told = bot.communicate(timeout=SOON)
    assert bot.returncode == 0
    assert b"leader.py" in told


def test_without_its_server_it_does_not_heed_sigterm(bots: Bots) -> None:
    with SwarmingServer(sleep=0.02) as gone:
        gone.publish(*(package := stock_shaped_bot(gone.url)))
        bot = bots.start(package, connected=False)
        gone.wait_for_event("bot_connected", "b", SOON)
        wait_for_poll(gone)
    bot.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        bot.wait(2)


def test_an_error_of_its_own_is_a_traceback(server: SwarmingServer, bots: Bots) -> None:
    with zipfile.ZipFile(io.BytesIO(server.zip)) as whole, zipfile.ZipFile(bots.work / "bad.zip", "w") as bad:
        for name in whole.namelist():
            if name != "config/config.json":
                bad.writestr(name, whole.read(name))
    done = subprocess.run(
        [sys.executable, bots.work / "bad.zip", "start_bot"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


def test_without_the_hooks_a_task_needs_cipd(server: SwarmingServer, bots: Bots) -> None:
    server.configure("")
    bots.start()
    task = server.give_task(["true"])
    assert task.wait(SOON) == "BOT_DIED"
    assert "--cipd-enabled false" in str(task.error)


@pytest.mark.parametrize("hooks", ["def broken(", "def on_before_task(*_):\n    raise ValueError"])
def test_hooks_that_are_wrong_are_told(server: SwarmingServer, bots: Bots, hooks: str) -> None:
    server.configure(hooks)
    bots.start()
    task = server.give_task(["true"])
    assert "Traceback" in server.wait_for_event("bot_error", "b", SOON).message
    assert task.wait(SOON)  # else its runner is just being started when all is ended


def test_it_is_packed_the_same_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = stock_shaped_bot("http://h:1")
    assert stock_shaped_bot("http://h:1") == first
    others = [
        stock_shaped_bot("http://h:2"),
        stock_shaped_bot("http://h:1", note="x"),
        stock_shaped_bot("http://h:1", pace=package.STOCK_PACE),
    ]
    assert len({first.version, *(other.version for other in others)}) == 4
    assert package.main(["http://h:1/", str(tmp_path / "bot.zip"), "--stock-pace"]) == 0
    assert capsys.readouterr().out == f"{others[2].version}={tmp_path}/bot.zip\n"
    assert (tmp_path / "bot.zip").read_bytes() == others[2].zip
    with pytest.raises(SystemExit):
        package.main(["http://h:1", "/no/such/directory/bot.zip"])
