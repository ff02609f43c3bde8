"""The package as if on macOS and Windows: what Linux alone has is taken away, and a bot runs all the same.

It still is Linux that it runs on: these tests show that nothing else is needed, not that it works there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

import swarmcg
from swarmcg.bot import ExitReport
from swarmcg.testing import SwarmingServer

HERE: Final = Path(__file__).parent
PACKAGE: Final = Path(swarmcg.__file__).parent
PLATFORMS: Final = ("darwin", "win32")
SOON_S: Final = 60.0
# Rooms that are for Linux alone.
LINUX: Final = ("swarmcg.cgroup.", "swarmcg.keeper.", "swarmcg.supervisor.")
# Programs that bots run, on the bot's own platform.
BOTS: Final = ("swarmcg.testing.small_bot", "swarmcg.testing.stock_shaped")
TASK: Final = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo up; while :; do sleep 1; done"


def words(platform: str, program: str, *more: str) -> list[str]:
    return [sys.executable, str(HERE / "pretend.py"), platform, str(HERE / f"program_{program}.py"), *more]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in ("STATE", "CACHE", "RUNTIME"):
        monkeypatch.setenv(f"SWARMCG_{kind}_DIR", str(tmp_path / kind))
    return tmp_path / "STATE"


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as server:
        yield server


@pytest.fixture
def short() -> Iterator[str]:
    """A directory whose path leaves room for a bot's sockets."""
    with tempfile.TemporaryDirectory(prefix="b") as made:
        os.mkdir(f"{made}/w")
        yield f"{made}/w"


def reports(state: Path) -> list[ExitReport]:
    return [ExitReport.from_json(line) for line in (state / "reports.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_all_that_is_meant_for_it_can_be_imported(platform: str) -> None:
    done = subprocess.run(words(platform, "imports"), check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    for name, trouble in found["modules"].items():
        if name.startswith(BOTS):
            continue
        if (barred := barred_from(name)) is not None:
            assert (trouble is not None) is (platform in barred), name
        elif not name.startswith(LINUX):
            assert trouble is None, (name, trouble)
    assert set(found["public"]) == set(swarmcg.__all__)
    meant = {name for name, trouble in found["modules"].items() if trouble is None}
    assert meant >= {"swarmcg.starter", "swarmcg.drone.starter", "swarmcg.cli.run", "swarmcg.testing.server"}


def barred_from(name: str) -> set[str] | None:
    """On which platforms a module itself says that it cannot be had; None when it says nothing."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    if 'if sys.platform != "linux":\n    raise ImportError' in source:
        return {"darwin", "win32"}
    return {"win32"} if 'if sys.platform == "win32":\n    raise ImportError' in source else None


class Agent:
    """A program on the pretended platform that starts bots."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process: Final = process

    def __call__(self, word: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


@contextmanager
def running(line: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A program that is killed when it takes too long, which ends all reads from it."""
    with subprocess.Popen(line, text=True, **options) as process:
        watchdog = threading.Timer(SOON_S, end_all, (process,))
        watchdog.start()
        try:
            yield process
        except BaseException:
            end_all(process)
            raise
        finally:
            process.wait()
            watchdog.cancel()
            watchdog.join()


def end_all(process: "subprocess.Popen[str]") -> None:
    """Kills a program and its bots, which would outlive it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()


@contextmanager
def agent(platform: str, *more: str) -> Iterator[Agent]:
    line = words(platform, "agent", *more)
    with running(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Agent(process)
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_bot_from_its_download_to_its_reports(
    platform: str, server: SwarmingServer, state: Path, tmp_path: Path
) -> None:
    """Drained, terminated, and killed with its tree; each reported once, and its directory removed."""
    with agent(platform, server.url, str(tmp_path)) as tell:
        tell("start")
        task = server.give_task(["echo", "done"])
        assert task.wait(SOON_S) == "COMPLETED"
        drained = tell("drain")["report"]
        assert (drained["reason"], drained["exit_code"]) == ("exited", 0)
        assert [row["field"] for row in drained["unenforced"]] == ["memory.limit"]
        assert {"darwin": "macOS", "win32": "Windows"}[platform] in drained["unenforced"][0]["why"]

        tell("start")
        server.wait_for_event("bot_connected", timeout=SOON_S)
        assert tell("terminate")["report"]["reason"] == "terminated"

        tell("start")
        task = server.give_task(["sh", "-c", TASK])
        end = time.monotonic() + SOON_S
        while b"up" not in task.output and time.monotonic() < end:
            time.sleep(0.02)
        children = tell("children")["children"]
        assert len(children) >= 3  # the bot, its task, and what that started
        assert tell("kill")["report"]["leftovers"]["count"] >= 1
        assert [pid for pid in children if is_running(pid)] == []
        assert len(tell("sweep")["swept"]) >= 1
    assert len({report.incarnation for report in reports(state)}) == len(reports(state)) == 3
    assert list((state / "drones").glob("*.json")) == []


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("platform", PLATFORMS)
def test_starters_of_work_directories_leave_each_other_s_alone(platform: str, tmp_path: Path) -> None:
    """Two of one program, and one of a program that has ended."""
    for number in ("1", "2"):
        line = words(platform, "drones", str(tmp_path), number)
        subprocess.run(line, check=True, timeout=SOON_S)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command(platform: str, *more: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    line = words(platform, "command", *more)
    return subprocess.run(line, check=False, capture_output=True, text=True, timeout=SOON_S, **options)


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "echo here; kill -KILL $$"], 137, "here\n"),
        (["/nonexistent"], 127, ""),
        (["/"], 126, ""),
        ([""], 127, ""),
    ],
)
def test_run_ends_as_its_command_does(platform: str, asked: Sequence[str], status: int, said: str) -> None:
    done = command(platform, "run", "-m", "64m", "--", *asked)
    assert (done.returncode, done.stdout) == (status, said)
    assert bool(done.stderr) is (status in {126, 127})


@pytest.mark.parametrize("platform", PLATFORMS)
def test_run_passes_standard_input_environment_and_directory_on(
    platform: str, state: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    script = 'cat; pwd; echo "$ONE $TWO"'
    done = command(
        platform, "run", "-e", "ONE=1", "-w", str(tmp_path), "--report", str(report), "--", "sh", "-c", script,
        input="in\n", env=os.environ | {"TWO": "2"},
    )  # fmt: skip
    assert done.stdout == f"in\n{tmp_path}\n1 2\n"
    assert [ExitReport.from_json(report.read_bytes())] == reports(state)


@pytest.mark.usefixtures("state")
def test_run_refuses_limits_when_told_to() -> None:
    done = command("darwin", "run", "--on-unenforceable=refuse", "-m", "64m", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (125, "")
    assert "macOS has no cgroups" in done.stderr
    home = command("darwin", "run", "--home", "/sys/fs/cgroup", "--", "echo", "ran")
    assert (home.returncode, home.stdout) == (125, "")


@pytest.mark.usefixtures("state")
def test_run_tells_how_its_command_ended_when_the_report_cannot_be_written() -> None:
    done = command("darwin", "run", "--report", "/dev/full", "--", "sh", "-c", "exit 3")
    assert done.returncode == 125
    assert "swarmcg: The command ended with exit code 3, but the report could not be written" in done.stderr


@pytest.mark.usefixtures("state")
def test_bot_refuses_limits_before_it_downloads_anything(server: SwarmingServer, short: str) -> None:
    flags = ["--swarming-url", server.url, "--work-dir", short, "--on-unenforceable=refuse", "-m", "64m"]
    done = command("darwin", "bot", *flags, "bot-1")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("swarmcg: memory.limit cannot be enforced on this host")
    assert server.requests == []


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_run_ends_the_command_by_the_ladder(number: signal.Signals) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.02; done"
    line = words("darwin", "command", "run", "--", "sh", "-c", script)
    with running(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.readline() == "asked\n"
    assert process.returncode == 3


@pytest.mark.usefixtures("state")
def test_a_second_signal_ends_the_grace_period_and_an_int_is_the_command_s() -> None:
    script = "trap 'echo asked' TERM; echo up; while :; do sleep 0.02; done"
    line = words("darwin", "command", "run", "--", "sh", "-c", script)
    with running(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 137


@pytest.mark.parametrize(
    "asked",
    [
        (signal.SIGUSR1, "draining", "exited"),
        (signal.SIGTERM, "terminating: at most 180 s; a second signal kills at once", "terminated"),
    ],
)
def test_bot_ends_as_its_operator_asks(
    server: SwarmingServer, state: Path, short: str, asked: tuple[signal.Signals, str, str]
) -> None:
    number, said, reason = asked
    flags = ["--swarming-url", server.url, "--work-dir", short, "--python", sys.executable, "-m", "1g"]
    line = words("darwin", "command", "bot", *flags, "bot-1")
    with running(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("swarmcg: downloading ")
        assert "without a slice" in process.stderr.readline()
        assert process.stderr.readline() == "swarmcg: not in force: memory.swap, memory.limit\n"
        server.wait_for_event("bot_connected", timeout=SOON_S)
        process.send_signal(number)
        assert process.stderr.readline() == f"swarmcg: {said}\n"
        out, _ = process.communicate(timeout=SOON_S)
    assert f"reason\t{reason}\n" in out
    assert "not in force\tmemory.swap, memory.limit" in out
    assert [report.reason for report in reports(state)] == [reason]


@pytest.mark.usefixtures("state")
def test_bot_leaves_a_hangup_ignored_that_its_caller_ignored(server: SwarmingServer, short: str) -> None:
    flags = ["--swarming-url", server.url, "--work-dir", short, "--python", sys.executable]
    nohup = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    line = [*nohup, *words("darwin", "command", "bot", *flags, "bot-1")]
    with running(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("swarmcg: downloading ")
        assert "without a slice" in process.stderr.readline()
        server.wait_for_event("bot_connected", timeout=SOON_S)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=SOON_S)
    assert "terminating" not in err
    assert "draining" in err


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("verb", ["clean", "host", "set"])
def test_what_needs_linux_says_so(platform: str, verb: str) -> None:
    done = command(platform, verb)
    assert done.returncode == 2
    assert f"'swarmcg {verb}' does not work on {platform}" in done.stderr


@pytest.mark.parametrize("platform", PLATFORMS)
def test_explain_tells_that_nothing_can_be_limited(platform: str) -> None:
    done = command(platform, "explain", "--json", "-m", "1g", "--pids-limit", "5")
    rows = json.loads(done.stdout)
    assert rows
    assert not any(row["enforceable"] for row in rows)
