"""What `swarmcg ps` says of bots in every state that can be brought about, and that it changes nothing."""

import fcntl
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarmcg.cgroup.home_lock import locked
from swarmcg.testing import SwarmingServer
from tests.host.command import SOON_S, Command, line
from tests.host.engine import until
from tests.host.unit import Unit

DEAF = "trap '' TERM; echo ready; while :; do sleep 1; done"
HEAD = ["ID", "INCARNATION", "PID", "OWNER", "STATE", "AGE", "MEMORY", "TASKS", "SLICE"]


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


def listed(swarmcg: Command) -> list[dict[str, Any]]:
    done = swarmcg("ps", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_no_bot_is_an_empty_list(swarmcg: Command) -> None:
    assert listed(swarmcg) == []
    done = swarmcg("ps")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, HEAD, "")
    assert not (swarmcg.state / "state").exists()
    assert not (swarmcg.state / "run").exists()


def test_a_named_home_that_is_not_there_is_an_error_and_not_made(swarmcg: Command) -> None:
    done = swarmcg("ps", "--json", "--home", str(swarmcg.home / "none"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("swarmcg: There is no such home")
    assert not (swarmcg.home / "none").exists()


def test_what_is_no_cgroup_cannot_be_looked_at(swarmcg: Command) -> None:
    done = swarmcg("ps", "--home", "/tmp")
    assert done.returncode == 1
    assert done.stderr.startswith("swarmcg: The home is not a cgroup")


def test_a_bot_that_runs_is_shown_with_its_main_process(swarmcg: Command) -> None:
    with swarmcg.running("run", "--id", "one", "--", "sh", "-c", "echo $$; exec sleep 1000") as process:
        pid = int(line(process.stdout))
        (bot,) = listed(swarmcg)
        (name,) = swarmcg.slices()
        assert (bot["bot_id"], bot["pid"], bot["state"], bot["detached"]) == ("one", pid, "running", False)
        assert (bot["slice"], bot["incarnation"]) == (str(swarmcg.home / name), name.rpartition(".")[2])
        assert 0 <= bot["age_s"] < 1000
        has_memory = Path(bot["slice"], "memory.current").exists()
        assert (bot["memory_bytes"] is not None) == has_memory
        head, row = (text.split("\t") for text in swarmcg("ps").stdout.splitlines())
        assert head == HEAD
        assert (row[0], row[2], row[3], row[4]) == ("one", str(pid), str(process.pid), "running")
        process.terminate()
        process.wait()
    assert listed(swarmcg) == []


def test_a_frozen_one_stopping_and_then_without_an_owner(swarmcg: Command) -> None:
    with swarmcg.running("run", "--grace", "1h", "--", "sh", "-c", DEAF) as process:
        assert line(process.stdout) == "ready"
        (name,) = swarmcg.slices()
        freezer = swarmcg.home / name / "cgroup.freeze"
        freezer.write_text("1")
        until(lambda: [bot["state"] for bot in listed(swarmcg)] == ["frozen"])
        freezer.write_text("0")
        until(lambda: [bot["state"] for bot in listed(swarmcg)] == ["running"])
        process.terminate()
        until(lambda: [bot["state"] for bot in listed(swarmcg)] == ["stopping"])
        process.kill()
        process.wait()
    for _ in range(2):  # a look takes nothing over
        assert [(bot["state"], bot["owner_pid"]) for bot in listed(swarmcg)] == [("ownerless", None)]
    assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
    assert listed(swarmcg) == []


def test_a_home_in_use_leaves_the_owner_unknown(swarmcg: Command) -> None:
    with swarmcg.running("run", "--", "sh", "-c", "echo ready; exec sleep 1000") as process:
        line(process.stdout)
        with locked(str(swarmcg.home), fcntl.LOCK_EX):
            assert [bot["state"] for bot in listed(swarmcg)] == ["unknown"]
        process.send_signal(signal.SIGTERM)
        process.wait()


def test_a_bot_that_finishes_its_task_first_is_draining(swarmcg: Command) -> None:
    with SwarmingServer() as server, tempfile.TemporaryDirectory(prefix="bot") as work:
        task = server.give_task(["sleep", "1000"])
        os.mkdir(os.path.join(work, "w"))
        words = [
            "--swarming-url",
            server.url,
            "--work-dir",
            os.path.join(work, "w"),
            "--python",
            sys.executable,
            "bot-1",
        ]
        with swarmcg.running("bot", "--grace", "0", *words) as process:
            until(lambda: task.state == "RUNNING")
            assert [bot["state"] for bot in listed(swarmcg)] == ["running"]
            process.send_signal(signal.SIGUSR1)
            until(lambda: [bot["state"] for bot in listed(swarmcg)] == ["draining"])
            process.terminate()
            process.communicate(timeout=SOON_S)
    assert listed(swarmcg) == []


@pytest.fixture
def unit(home: Path, tmp_path: Path) -> Iterator[Unit]:
    unit = Unit(home, tmp_path)
    unit.start()
    yield unit
    assert unit.stop("--grace", "0").returncode == 0


def in_the_unit(unit: Unit) -> dict[str, Any]:
    """The one bot there. Where other tests run at the same time, theirs are listed from the default home, too."""
    found: list[dict[str, Any]] = json.loads(unit("ps", "--json").stdout)
    (bot,) = (bot for bot in found if bot["slice"].startswith(f"{unit.bots}/"))
    return bot


def test_detached_ones_are_found_in_the_unit(unit: Unit) -> None:
    pid, place = unit.detach("one", "sleep", "1000")
    bot = in_the_unit(unit)
    assert (bot["pid"], bot["slice"], bot["state"], bot["detached"]) == (pid, place, "running", True)
    rows = [line.split("\t") for line in unit("ps").stdout.splitlines()]
    assert [row[4] for row in rows if place in row] == ["running, detached"]


def test_the_owner_is_the_one_that_serves_the_unit_now(unit: Unit) -> None:
    def owner() -> object:
        return in_the_unit(unit)["owner_pid"]

    unit.detach("one", "sleep", "1000")
    before = unit.processes()["host"]
    assert owner() == before
    unit.kill("host")
    until(lambda: unit.processes().get("host", before) != before)
    until(lambda: owner() == unit.processes()["host"])
