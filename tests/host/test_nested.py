"""A task that calls swarmcg itself: what it starts gets slices inside of the task's own, and ends with that."""

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmcg.cgroup.names import new_incarnation, slice_name
from swarmcg.cgroup.slice import Slice
from swarmcg.supervisor import supervisor as supervisor_module
from tests.host.command import SOON_S, SWARMCG, Command, line
from tests.host.engine import Driver, reports

FOREVER = "while :; do sleep 1; done"


@pytest.fixture
def swarmcg(home: Path, tmp_path: Path) -> Command:
    return Command(home, tmp_path)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_run_in_a_run_makes_its_slice_inside_and_leaves_nothing(swarmcg: Command, home: Path) -> None:
    ended = swarmcg("run", "--", SWARMCG, "run", "--", "cat", "/proc/self/cgroup")
    assert ended.returncode == 0, ended.stderr
    place = next(line for line in ended.stdout.splitlines() if line.startswith("0::"))
    outer, inner = (part for part in place.split("/") if "." in part)
    assert f"/{home.name}/{outer}/swarmcg/{inner}/main" in place
    assert [report.reason for report in swarmcg.reports()] == ["exited", "exited"]
    assert not swarmcg.slices()


def test_a_detached_bot_is_refused_inside(swarmcg: Command) -> None:
    ended = swarmcg("run", "--", SWARMCG, "run", "--detach", "--", "true")
    assert ended.returncode != 0
    assert "cannot be detached from inside of a slice" in ended.stderr


def test_the_kill_of_the_outer_slice_ends_the_inner_ones(swarmcg: Command, pipe: tuple[int, int]) -> None:
    """Also the processes of an inner run which ignores every signal, and whose own supervisor is killed with it."""
    held, given = pipe
    deaf = f"trap '' TERM INT HUP; echo ready; {FOREVER}"
    words = ("--grace", "0", "--", SWARMCG, "run", "--", "sh", "-c", deaf)
    with swarmcg.running("run", *words, pass_fds=(given,)) as process:
        os.close(given)
        assert line(process.stdout) == "ready"
        process.send_signal(signal.SIGTERM)
        process.wait(SOON_S)
    # Whoever still lived would hold the other end open.
    assert select.select([held], [], [], SOON_S)[0]
    assert os.read(held, 1) == b""
    assert not swarmcg.slices()


def test_who_looks_from_inside_sees_what_is_inside(swarmcg: Command, tmp_path: Path) -> None:
    for name in ("runs", "ends"):
        os.mkfifo(tmp_path / name)
    inner = "echo >runs; read _ <ends"
    script = (
        f"{SWARMCG} run --id inner -- sh -c '{inner}' & read _ <runs; {SWARMCG} ps --json; echo >ends; wait"
    )
    with swarmcg.running("run", "--id", "beside", "--", "sh", "-c", f"echo ready; {FOREVER}") as other:
        assert line(other.stdout) == "ready"
        ended = swarmcg("run", "--id", "outer", "--", "sh", "-c", script, cwd=tmp_path)
        other.send_signal(signal.SIGTERM)
        other.wait(SOON_S)
    assert [bot["bot_id"] for bot in json.loads(ended.stdout)] == ["inner"]


def test_a_slice_that_ends_with_the_outer_one_is_reported_all_the_same(swarmcg: Command) -> None:
    """To any depth: each of them has a line, and the outer one's comes last."""
    inner = f"exec {SWARMCG} run --id innermost -- sh -c 'echo >$READY; exec sleep 1000'"
    script = f'READY=$PWD/ready; export READY; mkfifo ready; {SWARMCG} run --id inner -- sh -c "$1" & read _ <ready'
    ended = swarmcg("run", "--id", "outer", "--", "sh", "-c", script, "sh", inner, cwd=swarmcg.state)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [(report.bot_id, report.reason) for report in swarmcg.reports()] == [
        ("innermost", "unobserved"),
        ("inner", "unobserved"),
        ("outer", "exited"),
    ]
    assert not swarmcg.slices()


def test_clean_finds_what_has_lost_its_owner_inside_of_a_bot_that_lives(swarmcg: Command) -> None:
    lost = f"{SWARMCG} run --id lost -- sh -c 'echo ready; exec sleep 1000'"
    script = f"{lost} & read _; kill -9 $!; wait; echo killed; read _"
    with swarmcg.running("run", "--id", "outer", "--", "sh", "-c", script, stdin=subprocess.PIPE) as outer:
        assert outer.stdin is not None
        for wanted in ("ready", "killed"):
            assert line(outer.stdout) == wanted
            if wanted == "ready":
                outer.stdin.write("go\n")
                outer.stdin.flush()
        assert "lost" in swarmcg("clean").stdout
        assert swarmcg("clean", "--yes", "--grace", "0").returncode == 0
        outer.communicate("go\n", timeout=SOON_S)
        assert outer.returncode == 0
    assert [report.bot_id for report in swarmcg.reports()] == ["lost", "outer"]


def ownerless(home: Path, bot_id: str, journal: Path) -> Path:
    """A slice whose owner died before anything ran in it."""
    intent = {"bot_id": bot_id, "incarnation": (incarnation := new_incarnation()), "grace": 0.0}
    intent |= {"journal": str(journal), "ours": False, "created": time.time()}
    held = Slice.create(str(home / slice_name(bot_id, incarnation)), intent)
    held.close()
    return Path(held.path)


def test_slices_inside_beyond_those_that_are_reported_are_told_in_the_log(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor_module, "_MOST_INSIDE", 1)
    monkeypatch.setattr(supervisor_module, "_NAMED", 1)
    driver = Driver(home, tmp_path, in_process=True)
    inside = ownerless(home, "outer", driver.journal) / "swarmcg"
    inside.mkdir()
    names = [ownerless(inside, name, driver.journal).name for name in ("one", "three", "two")]
    for held in driver.supervisor.home.ownerless():
        driver.supervisor.adopt(held, driver)
    driver.turn_until(lambda: not driver.supervisor.bots)
    driver.supervisor.close()
    assert [report.bot_id for report in reports(driver.journal)] == ["one", "outer"]
    (told,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert f"2 more slices inside of its own are removed without a report: {names[1]}, …" in told.getMessage()
