"""The embedded server as a command, and the person at it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from swarmcg.testing import SwarmingServer, small_bot_zip
from swarmcg.testing.command import main

SOON_S = 90.0
COMMAND = [sys.executable, "-W", "error", "-m", "swarmcg.testing.server"]


@pytest.fixture
def server() -> Iterator[SwarmingServer]:
    with SwarmingServer(sleep=0.05) as running:
        yield running


@contextlib.contextmanager
def serving(*words: str) -> Iterator[tuple[str, IO[str]]]:
    """The command as a process: its URL, and what it says after that."""
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.stdout
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(SOON_S) == 0


@contextlib.contextmanager
def small_bot(url: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    directory.mkdir()
    (directory / "bot.zip").write_bytes(small_bot_zip(url))
    words = [sys.executable, str(directory / "bot.zip"), "start_bot"]
    with subprocess.Popen(words, env=os.environ | {"SWARMING_BOT_ID": "b"}) as bot:
        try:
            yield bot
        finally:
            bot.terminate()


def expect(stream: IO[str], wanted: str) -> None:
    """Reads until the wanted line; the server's end, or the runner's time-out, bounds that."""
    for line in stream:
        if wanted in line:
            return
    pytest.fail(f"it ended before {wanted!r}")


def test_it_tells_its_url_then_what_happens_and_ends(tmp_path: Path) -> None:
    words = [*COMMAND, "--task", "echo done", "--then-terminate"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with small_bot(url, tmp_path / "w") as bot:
            assert bot.wait(SOON_S) == 0
        told, _ = process.communicate(timeout=SOON_S)
    assert process.returncode == 0
    assert "done\n" in told
    assert told.endswith("b: bot_shutdown The server asked for it\n")


def test_a_person_gives_a_task_to_a_server_that_runs_and_ends_its_bot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving("--sleep", "0.05") as (url, said), small_bot(url, tmp_path / "w") as bot:
        assert main(["--at", url, "task", "echo hello; exit 7", "--wait"]) == 7
        assert capsys.readouterr().out == "hello\n"
        assert main(["--at", url, "terminate", "b"]) == 0
        assert bot.wait(SOON_S) == 0
        expect(said, "hello")
        expect(said, "b: bot_shutdown")


def test_a_list_shows_bots_and_tasks_with_states_and_output(
    server: SwarmingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = server.give_task(["/bin/sh", "-c", "echo some output; exit 3"])
    with small_bot(server.url, tmp_path / "w"):
        task.wait(SOON_S)
        waiting = server.give_task(["true"], bot_id="somebody else")
        assert main(["--at", server.url, "list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"live version {server.version}"
        assert lines[1].startswith(f"bot b: idle, version {server.version}, seen ")
        assert lines[2:] == [
            f"task {task.id}: COMPLETED, exit code 3, bot b",
            "    some output",
            f"task {waiting.id}: PENDING, bot somebody else",
        ]
        assert main(["--at", server.url, "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bots"][0]["bot"], found["tasks"][0]["output"]) == ("b", "some output\n")


def test_a_task_is_cancelled(
    server: SwarmingServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_bot(server.url, tmp_path / "w"):
        assert (
            main(
                ["--at", server.url, "task", "sleep 1000", "--bot", "b", "--manifest", '{"env": {"A": "1"}}']
            )
            == 0
        )
        (task,) = server.tasks
        assert capsys.readouterr().out == f"{task.id}\n"
        assert (task.bot_id, task.facts) == ("b", {"env": {"A": "1"}})
        task.wait_until_running(SOON_S)
        assert main(["--at", server.url, "cancel", task.id]) == 0
        assert "told the bot of task" in capsys.readouterr().out
        assert task.wait(SOON_S) == "KILLED"


def test_cancel_says_what_becomes_of_a_task_that_no_bot_works_on(
    server: SwarmingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    task = server.give_task(["never"])
    assert main(["--at", server.url, "cancel", task.id]) == 0
    assert capsys.readouterr().out == f"task {task.id} will never begin\n"
    assert main(["--at", server.url, "cancel", task.id]) == 1
    assert capsys.readouterr().err == f"server: task {task.id} has ended already: CANCELED\n"


def test_a_task_that_did_not_complete_is_waited_for_too(
    server: SwarmingServer, capsys: pytest.CaptureFixture[str]
) -> None:
    task = server.give_task(["never"])
    server.cancel(task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "give_task", lambda *_, **__: task)
        assert main(["--at", server.url, "task", "never", "--wait"]) == 1
    assert capsys.readouterr().err == "server: CANCELED\n"


@pytest.mark.parametrize(
    ("verb", "cmd", "said"),
    [
        ("terminate", "terminate", "told b to end at its next poll\n"),
        ("restart", "bot_restart", "told b to restart at its next poll\n"),
        ("reboot", "host_reboot", "told b to reboot its host at its next poll\n"),
    ],
)
def test_a_bot_is_told_what_to_do_and_that_is_said(
    server: SwarmingServer, capsys: pytest.CaptureFixture[str], verb: str, cmd: str, said: str
) -> None:
    who = {"dimensions": {"id": ["b"]}}
    server._board.handshake(who)
    assert main(["--at", server.url, verb, "b"]) == 0
    assert capsys.readouterr().out == said
    assert server._board.poll(who)["cmd"] == cmd


def test_another_package_is_published_and_the_first_one_again(server: SwarmingServer, tmp_path: Path) -> None:
    first = server.version
    (tmp_path / "new.zip").write_bytes(b"new")
    assert main(["--at", server.url, "update", f"2={tmp_path}/new.zip"]) == 0
    assert (server.version, server.zip) == ("2", b"new")
    assert main(["--at", server.url, "update", first]) == 0
    assert (server.version, server.versions) == (first, [first, "2"])


def test_packages_are_kept_and_the_first_one_is_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zips = []
    for version in "12":
        (tmp_path / version).write_bytes(version.encode())
        zips += ["--zip", f"{version}={tmp_path / version}"]
    with serving(*zips) as (url, _):
        assert main(["--at", url, "list"]) == 0
        assert capsys.readouterr().out == "live version 1\nkept version 2\n"


def test_hooks_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("# mine\n")
    with serving("--bot-config", str(tmp_path / "hooks.py")) as (url, _), small_bot(url, tmp_path / "w"):
        assert main(["--at", url, "task", "true", "--wait"]) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["cancel", "nothing"], "server: there is no task 'nothing'"),
        (["terminate", "nobody"], "server: there is no bot 'nobody'"),
        (["update", "9"], "server: there is no package of version '9'"),
        (["update", "9=/no/such/file"], "server: /no/such/file: No such file or directory"),
        (["task", "true", "--manifest", '{"bot_id": "b"}'], "the manifest cannot hold bot_id"),
    ],
)
def test_what_cannot_be_is_one_line(
    server: SwarmingServer, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert main(["--at", server.url, *words]) == 1
    told = capsys.readouterr().err
    assert text in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "ftp://127.0.0.1"])
def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["--at", url, "list"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"server: {url} ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["list"], "--at"),
        (["--at", "http://h"], "verb"),
        (["--zip", "file"], "VERSION=FILE"),
        (["--zip", "1=/no/such/file"], "No such file"),
        (["--bot-config", "/no/such/file"], "No such file"),
        (["--port", "99999"], "99999"),
        (["--host", "203.0.113.1"], "203.0.113.1"),
        (["--at", "http://h", "task", "true", "--manifest", "{"], "--manifest: '{' is not JSON"),
        (["--at", "http://h", "task", "true", "--manifest", "[1]"], "--manifest: '[1]' is no JSON object"),
        (["--sleep", "-1"], "--sleep"),
        (["--sleep", "nan"], "--sleep: 'nan' is no number of seconds"),
        (["--sleep", "x"], "--sleep: 'x' is no number of seconds"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert text in told
    assert told.startswith("server: ")
    assert told.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error_of_the_server(server: SwarmingServer) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*COMMAND, "--at", server.url, "list"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + 13, "")
