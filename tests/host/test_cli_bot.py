"""`swarmcg bot` against the embedded server: started, drained, terminated, reported."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg.bot import ExitReport
from swarmcg.testing import SwarmingServer
from tests.host.command import SOON_S, Command, ignoring, line


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer() as server:
        yield server


TERMINATING = "swarmcg: terminating: at most 180 s; a second signal kills at once"


@pytest.fixture
def words(server: SwarmingServer) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory(prefix="bot") as work:  # a bot's path must be shorter than pytest's
        os.mkdir(os.path.join(work, "w"))
        yield ["--swarming-url", server.url, "--work-dir", os.path.join(work, "w"), "bot-1"]


@pytest.mark.parametrize(
    "asked",
    [
        (signal.SIGUSR1, "swarmcg: draining", "exited"),
        (signal.SIGTERM, TERMINATING, "terminated"),
        (signal.SIGINT, TERMINATING, "terminated"),
    ],
)
def test_a_bot_ends_as_its_operator_asks(
    swarmcg: Command,
    server: SwarmingServer,
    words: list[str],
    tmp_path: Path,
    asked: tuple[signal.Signals, str, str],
) -> None:
    number, said, reason = asked
    task = server.give_task(["echo", "done"])
    report = tmp_path / "report.json"
    with swarmcg.running("bot", "--report", str(report), *words) as process:
        assert line(process.stderr).startswith(f"swarmcg: downloading {server.url}/bot_code?")
        assert line(process.stderr).startswith("swarmcg: started bot-1: pid ")
        assert task.wait(SOON_S) == "COMPLETED"
        process.send_signal(number)
        assert line(process.stderr) == said
        out, err = process.communicate(timeout=SOON_S)
    assert err.endswith(f"swarmcg: ended bot-1: {reason}\n")
    assert f"reason\t{reason}\n" in out
    got = ExitReport.from_json(report.read_bytes())
    assert (got.bot_id, got.reason) == ("bot-1", reason)
    assert process.returncode == (got.exit_code if got.signal is None else 128 + got.signal)
    assert swarmcg.slices() == []


def test_a_report_to_a_descriptor_of_ours_is_written_there_by_whoever_owns_the_slice(
    swarmcg: Command, server: SwarmingServer, words: list[str], tmp_path: Path
) -> None:
    """The slice's owner is another process, which has another standard output, or in the unit other ones all over."""
    said = tmp_path / "said"
    with said.open("wb") as out:
        process = subprocess.Popen(
            swarmcg.words("bot", "--report", "/dev/stdout", *words),
            env=swarmcg.env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    with process:
        server.wait_for_event("bot_connected", timeout=SOON_S)
        while "started" not in line(process.stderr):
            pass
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=SOON_S)
    report, *table = said.read_bytes().splitlines()
    assert ExitReport.from_json(report).reason == "exited"
    assert b"reason\texited" in table


def test_what_the_caller_ignored_stays_ignored_while_a_bot_starts_and_runs(
    swarmcg: Command, server: SwarmingServer, words: list[str]
) -> None:
    """As after nohup, or in a script's background."""
    asked = [*ignoring("HUP", "INT"), *swarmcg.words("bot", *words)]
    with subprocess.Popen(
        asked,
        env=swarmcg.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert line(process.stderr).startswith("swarmcg: downloading ")
        process.send_signal(signal.SIGHUP)
        assert line(process.stderr).startswith("swarmcg: started bot-1: pid ")
        assert server.wait_for_event("bot_connected", timeout=SOON_S)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=SOON_S)
    assert err == "swarmcg: draining\nswarmcg: ended bot-1: exited\n"
    assert "reason\texited\n" in out


def test_limits_that_are_refused_are_refused_before_anything_is_downloaded(
    server: SwarmingServer, words: list[str], home: Path, tmp_path: Path
) -> None:
    swarmcg = Command(home / "made", tmp_path)
    done = swarmcg("bot", "--memory-swappiness", "10", *words)  # no cgroup v2 has it
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("swarmcg: memory.swappiness cannot be enforced on this host")
    nonsense = swarmcg("bot", "--pids-limit", "99999999", *words)
    assert nonsense.returncode == 2
    assert nonsense.stderr.startswith("swarmcg: --pids-limit cannot be used (value '99999999')")
    assert server.requests == []
    work = Path(words[3])
    assert sorted(work.parent.iterdir()) == [work]  # not even a log
    assert list(work.iterdir()) == []
    assert not (tmp_path / "cache").exists()
    assert not swarmcg.home.exists()


def test_a_home_made_for_a_bot_whose_download_fails_is_removed(
    server: SwarmingServer, words: list[str], home: Path, tmp_path: Path
) -> None:
    server.forbid("bot-1")
    swarmcg = Command(home / "made", tmp_path)
    done = swarmcg("bot", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert "bot_code" in done.stderr
    assert not swarmcg.home.exists()


def test_a_url_of_another_kind_is_a_wrong_call(swarmcg: Command, tmp_path: Path) -> None:
    done = swarmcg("bot", "--swarming-url", "ftp://127.0.0.1", "--work-dir", str(tmp_path), "bot-1")
    assert done.returncode == 2
    assert done.stderr.startswith("swarmcg: ")
    assert len(done.stderr.splitlines()) <= 3
    assert swarmcg.slices() == []


def test_a_missing_work_directory_is_one_error(swarmcg: Command) -> None:
    done = swarmcg("bot", "--swarming-url", "http://127.0.0.1:9", "--work-dir", "/nonexistent", "bot-1")
    assert done.returncode == 125
    assert done.stderr.splitlines()[0].startswith("swarmcg: The work directory does not exist")
    assert done.stderr.splitlines()[-1] == "mkdir -p /nonexistent"


@pytest.mark.parametrize("missing", ["--swarming-url", "--work-dir", "BOT_ID"])
def test_what_is_missing_is_named(swarmcg: Command, missing: str) -> None:
    given = {
        "--swarming-url": ["--swarming-url", "http://h"],
        "--work-dir": ["--work-dir", "/"],
        "BOT_ID": ["b"],
    }
    done = swarmcg("bot", *(word for flag, words in given.items() if flag != missing for word in words))
    assert done.returncode == 2
    assert missing in done.stderr.splitlines()[0]
